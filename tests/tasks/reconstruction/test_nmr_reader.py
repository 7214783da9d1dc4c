"""The reader takes files in the published layout, written here by numpy alone, and no others."""

import zipfile

import numpy as np
import pytest
import torch

from tasks.reconstruction import CLASS_NAMES, DataFileError, NMRDataset, cameras
from tasks.reconstruction.npz import open_array

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

PLANE, CAR = "02691156", "02958343"
IMAGES = np.random.default_rng(1).integers(0, 256, (3, 24, 4, 64, 64), dtype=np.uint8)
VOXELS = np.random.default_rng(2).random((3, 32, 32, 32)) < 0.3


def write(folder, class_id=PLANE, images=IMAGES, voxels=VOXELS, split="train", save=np.savez):
    """As NMR and SoftRas publish it: one unnamed array in each of two files."""
    save(folder / f"{class_id}_{split}_images.npz", images)
    save(folder / f"{class_id}_{split}_voxels.npz", voxels)


def refused(folder, *words):
    with pytest.raises(DataFileError) as caught:
        NMRDataset(folder, "train")
    for word in (PLANE, *words):
        assert word in str(caught.value)


def test_every_value_is_where_the_layout_says(tmp_path):
    write(tmp_path)
    data = NMRDataset(tmp_path, "train")
    assert data.classes == (PLANE,) and data.counts == {PLANE: 3} and len(data) == 3
    assert data.name(PLANE) == "airplane" and len(CLASS_NAMES) == 13
    seen = data.images(PLANE, np.array([2, 0]), np.array([23, 7]))
    assert torch.equal(seen, torch.tensor(IMAGES[[2, 0], [23, 7]]).float() / 255)
    assert torch.equal(data.voxels(PLANE, np.array([1])), torch.tensor(VOXELS[[1]]))


def test_a_stored_array_is_mapped_and_not_loaded(tmp_path):
    write(tmp_path)
    found = open_array(tmp_path / f"{PLANE}_train_images.npz")
    assert isinstance(found, np.memmap) and not found.flags.writeable
    assert np.array_equal(found, IMAGES)


def test_fortran_order_and_other_dtypes_of_voxels_are_read(tmp_path):
    write(tmp_path, images=np.asfortranarray(IMAGES), voxels=VOXELS.astype(np.float32))
    data = NMRDataset(tmp_path, "train")
    assert np.array_equal(data._images[PLANE], IMAGES)
    assert torch.equal(data.voxels(PLANE, np.arange(3)), torch.tensor(VOXELS))


def test_images_are_averaged_to_a_smaller_size(tmp_path):
    write(tmp_path)
    seen = NMRDataset(tmp_path, "train", image_size=16).images(PLANE, np.array([1]), np.array([5]))
    mean = IMAGES[1, 5].reshape(4, 16, 4, 16, 4).mean(axis=(2, 4)) / 255
    assert np.allclose(seen[0], mean, atol=1e-6)


def test_batches_depend_on_seed_and_step_alone_and_can_be_shared(tmp_path):
    write(tmp_path)
    write(tmp_path, CAR, IMAGES[:2], VOXELS[:2])
    data = NMRDataset(tmp_path, "train")
    batch, again = data.pairs(8, seed=3, step=5), data.pairs(8, seed=3, step=5)
    assert torch.equal(batch.images_a, again.images_a) and torch.equal(batch.views_b, again.views_b)
    assert not torch.equal(batch.images_a, data.pairs(8, seed=3, step=6).images_a)
    part = data.pairs(8, seed=3, step=5, share=(2, 6))
    assert torch.equal(part.images_b, batch.images_b[[2, 6]])
    assert torch.equal(part.views_a, batch.views_a[[2, 6]])
    # Both images are of one object, each in its view.
    for k in range(8):
        pair = [
            (images[k] * 255).round().byte().numpy() for images in (batch.images_a, batch.images_b)
        ]
        views = int(batch.views_a[k]), int(batch.views_b[k])
        assert any(
            all((IMAGES[i, v] == p).all() for v, p in zip(views, pair, strict=True))
            for i in range(3)
        )


def test_a_compressed_file_is_unpacked_only_where_that_is_allowed(tmp_path):
    write(tmp_path, save=np.savez_compressed)
    refused(tmp_path, "compressed", "cache", "in_memory", "GB")
    cache = tmp_path / "cache"
    for options in ({"cache": cache}, {"cache": cache}, {"in_memory": True}):
        data = NMRDataset(tmp_path, "train", **options)
        assert np.array_equal(data._images[PLANE], IMAGES)
        assert np.array_equal(data._voxels[PLANE], VOXELS)
        assert isinstance(data._images[PLANE], np.memmap) == ("cache" in options)
    assert len(list(cache.iterdir())) == 2  # nothing half made is left


def test_a_truncated_file_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / f"{PLANE}_train_images.npz"
    whole = path.read_bytes()
    for size in (0, 10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(tmp_path, "truncated")
    with zipfile.ZipFile(path, "w") as archive:  # a whole archive of a truncated array
        archive.writestr("arr_0.npy", whole[60 : len(whole) // 2])
    refused(tmp_path)


def test_a_damaged_file_is_found_by_its_checksum(tmp_path):
    write(tmp_path)
    path = tmp_path / f"{PLANE}_train_voxels.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataFileError, match="damaged"):
        NMRDataset(tmp_path, "train", verify=True)


def test_a_pickled_array_is_refused_and_not_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    write(tmp_path, images=np.array([Bomb()], dtype=object))
    refused(tmp_path, "unpickled", "images")
    (tmp_path / f"{PLANE}_train_images.npz").write_bytes(b"\x80\x04.")
    refused(tmp_path, "images")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES[:, :23]}, ("images", "(3, 23, 4, 64, 64)", "(N, 24, 4, 64, 64)")),
        ({"images": IMAGES.reshape(-1, 4, 64, 64)}, ("(72, 4, 64, 64)",)),
        ({"images": IMAGES.transpose(0, 1, 3, 4, 2)}, ("(3, 24, 64, 64, 4)",)),
        ({"images": IMAGES.astype(np.float32)}, ("uint8", "float32")),
        ({"images": IMAGES[:0]}, ("no object",)),
        ({"voxels": VOXELS[:, :31]}, ("voxels", "(3, 31, 32, 32)")),
        ({"voxels": VOXELS.astype("S1")}, ("voxels", "S1")),
        ({"voxels": VOXELS[:2]}, ("voxels", "2 objects", "3")),
    ],
)
def test_another_shape_or_dtype_is_refused(tmp_path, arrays, words):
    write(tmp_path, **arrays)
    refused(tmp_path, *words)


def test_voxels_of_other_values_are_refused_when_they_are_read(tmp_path):
    write(tmp_path, voxels=VOXELS * np.uint8(2))
    with pytest.raises(DataFileError, match="0 and 1"):
        NMRDataset(tmp_path, "train").voxels(PLANE, np.arange(3))


def test_an_archive_of_other_things_is_refused(tmp_path):
    write(tmp_path)
    np.savez(tmp_path / f"{PLANE}_train_images.npz", a=IMAGES, b=IMAGES)
    refused(tmp_path, "a.npy, b.npy")
    with zipfile.ZipFile(tmp_path / f"{PLANE}_train_images.npz", "w") as archive:
        archive.writestr("arr_0.npy", b"no array at all")
    refused(tmp_path, "numpy array")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        NMRDataset(tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match=r"_train_images.npz"):
        NMRDataset(tmp_path, "train")
    write(tmp_path)
    (tmp_path / f"{PLANE}_train_voxels.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"voxels.npz"):
        NMRDataset(tmp_path, "train")
    with pytest.raises(ValueError, match="split"):
        NMRDataset(tmp_path, "training")
    with pytest.raises(ValueError, match="image_size"):
        NMRDataset(tmp_path, "train", image_size=30)


def test_cameras_are_the_published_ones_in_a_mirrored_world():
    """SoftRas' get_points_from_angles, look_at and perspective, in a few lines of numpy."""
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 3))
    for view in (0, 1, 7, 23):
        e, a = np.radians(30), np.radians(-15 * view)
        eye = 2.732 * np.array([np.cos(e) * np.sin(a), np.sin(e), -np.cos(e) * np.cos(a)])
        z = -eye / np.linalg.norm(eye)
        x = np.cross([0, 1, 0], z)
        x /= np.linalg.norm(x)
        rotated = (points - eye) @ np.stack([x, np.cross(z, x), z]).T
        width = np.tan(np.radians(15))
        expected = np.stack([rotated[:, k] / rotated[:, 2] / width for k in (0, 1)], -1)
        ours = torch.tensor(points * [1, 1, -1])[None]
        found = cameras(torch.tensor([view]), ours).project(ours)[0]
        assert np.allclose(found[:, :2], expected, atol=1e-9)
        assert np.allclose(found[:, 2], rotated[:, 2], atol=1e-9)
