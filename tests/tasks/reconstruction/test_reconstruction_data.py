"""Procedural objects, voxels and the making of data sets, also interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import taichi_raster as tr
from meta.outer.checkpoint import CheckpointError
from paths import ROOT
from tasks.reconstruction import FAMILIES, DataSettings, NMRDataset, make_dataset, random_object
from tasks.reconstruction.dataset import render_views
from tasks.reconstruction.views import VIEWS, cameras
from tasks.reconstruction.voxels import BOUNDS, voxelise

pytestmark = [pytest.mark.runs_on(arch="cpu", precision="f32"), pytest.mark.timeout(1800)]

SETTINGS = DataSettings(("chair", "bottle"), (3, 1, 1), shard=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    result = make_dataset(folder, SETTINGS)
    return folder, result


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".npz"}


def box(low, high, lid=True):
    mesh = tr.box(1.0, 1.0, 1.0, torch.float64)
    low, high = torch.tensor(low), torch.tensor(high)
    vertices = (mesh.vertices + 0.5) * (high - low) + low
    top = (vertices[mesh.faces][..., 1] == high[1]).all(dim=1)
    return tr.Mesh(vertices, mesh.faces if lid else mesh.faces[~top])


@pytest.mark.parametrize("family", FAMILIES)
def test_objects_are_closed_varied_and_of_the_size_of_shapenet_models(family):
    drawn = [random_object(family, np.random.default_rng(seed)) for seed in range(4)]
    again = random_object(family, np.random.default_rng(0))
    assert torch.equal(again.vertices, drawn[0].vertices)
    shapes = set()
    for mesh in drawn:
        size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
        assert float(size.norm()) == pytest.approx(1, abs=1e-9)
        inside = voxelise(mesh.vertices[None], mesh.faces)  # raises for an open surface
        assert 40 < int(inside.sum()) < 12_000
        shapes.add(inside.numpy().tobytes())
    assert len(shapes) == 4


def test_voxels_are_indexed_by_y_x_z():
    mesh = box([0.1, -0.45, 0.2], [0.3, 0.4, 0.48])
    centres = np.linspace(*BOUNDS, 33)
    centres = (centres[1:] + centres[:-1]) / 2
    y, x, z = (
        (centres > low) & (centres < high) for low, high in ((-0.45, 0.4), (0.1, 0.3), (0.2, 0.48))
    )
    expected = y[:, None, None] & x[:, None] & z
    assert np.array_equal(voxelise(mesh.vertices[None], mesh.faces)[0], expected)


def test_published_voxels_are_those_touched_or_enclosed():
    # 31 v + 16 puts the walls of this box at 8.25 and 23.75: inside of voxels 8 and 23.
    closed, open_box = (box([-0.25] * 3, [0.25] * 3, lid) for lid in (True, False))
    solid = voxelise(closed.vertices[None], closed.faces, "published")[0].numpy()
    expected = np.zeros((32, 32, 32), dtype=bool)
    expected[8:24, 8:24, 8:24] = True
    assert np.array_equal(solid, expected)
    hollow = voxelise(open_box.vertices[None], open_box.faces, "published")[0].numpy()
    expected[9:, 9:23, 9:23] = False  # y first: the open top
    assert np.array_equal(hollow, expected)
    with pytest.raises(ValueError, match="open"):
        voxelise(open_box.vertices[None], open_box.faces)
    with pytest.raises(ValueError, match="rule"):
        voxelise(closed.vertices[None], closed.faces, "both")  # type: ignore[arg-type]


def test_images_show_what_the_voxels_hold(made):
    """Voxels' centres are seen, in every view, where their object is."""
    data = NMRDataset(made[0], "train")
    for class_id in data.classes:
        index = np.zeros(VIEWS, dtype=int)
        alpha = data.images(class_id, index, np.arange(VIEWS))[:, 3]
        assert set(np.unique((alpha * 255).round())) > {0, 255}
        y, x, z = np.nonzero(data.voxels(class_id, np.array([0]))[0].numpy())

        def covered(*index, alpha=alpha):
            places = torch.tensor((np.stack(index, -1) + 0.5) / 32 * (BOUNDS[1] - BOUNDS[0]))
            places = (places + BOUNDS[0])[None].expand(VIEWS, -1, -1)
            seen = cameras(torch.arange(VIEWS), places).project(places)
            column = ((seen[..., 0] + 1) * 32).long()
            row = ((1 - seen[..., 1]) * 32).long()
            return float((alpha[torch.arange(VIEWS)[:, None], row, column] > 0).double().mean())

        assert covered(x, y, z) > 0.99  # a corner may cover less than a sixteenth of its pixel
        assert covered(y, x, z) < 0.9


def test_a_data_set_has_the_published_layout(made):
    folder, result = made
    assert result.counts["chair_train"] == 3 and result.counts["bottle_test"] == 1
    for name, count in result.counts.items():
        with np.load(folder / f"{name}_images.npz") as images:
            assert images.files == ["arr_0"]
            assert images["arr_0"].shape == (count, 24, 4, 64, 64)
            assert images["arr_0"].dtype == np.uint8
        with np.load(folder / f"{name}_voxels.npz") as voxels:
            assert voxels["arr_0"].shape == (count, 32, 32, 32)
    assert isinstance(NMRDataset(folder, "val")._images["chair"], np.memmap)
    assert not (folder / ".shards").exists()


def test_a_killed_run_goes_on_and_makes_the_same_files(made, tmp_path):
    program = [
        sys.executable,
        "examples/reconstruct.py",
        "make-data",
        "--families",
        "chair",
        "bottle",
        "--counts",
        "3",
        "1",
        "1",
        "--shard",
        "2",
        "--out",
        str(tmp_path / "d"),
        "--workers",
        "1",
    ]
    shards = tmp_path / "d" / ".shards"
    run = subprocess.Popen(
        program,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 1500
    while not list(shards.glob("chair*.npz")) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()[0].decode()
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    left = {p.name: p.stat().st_mtime_ns for p in shards.glob("chair*.npz")}
    assert left and len(contents(tmp_path / "d")) < 12
    make_dataset(tmp_path / "d", SETTINGS)
    assert contents(tmp_path / "d") == contents(made[0])


def test_a_folder_of_another_data_set_is_not_mixed_with_this_one(made, tmp_path):
    with pytest.raises(CheckpointError, match="seed"):
        make_dataset(made[0], DataSettings(("chair", "bottle"), (3, 1, 1), shard=2, seed=1))
    np.savez(tmp_path / "02691156_train_images.npz", np.zeros(1))
    with pytest.raises(ValueError, match="not made here"):
        make_dataset(tmp_path, SETTINGS)


def test_mesh_files_become_classes_by_their_folders(tmp_path):
    meshes = tmp_path / "meshes"
    for name, mesh in (
        ("cube/a.obj", tr.box()),
        ("cube/deep/b.ply", tr.box(2.0)),
        ("ball/c.off", tr.icosphere(1)),
        ("ball/open.obj", box([0.0] * 3, [1.0] * 3, lid=False)),
    ):
        (meshes / name).parent.mkdir(parents=True, exist_ok=True)
        tr.save_mesh(meshes / name, mesh)
    (meshes / "ball/broken.obj").write_text("f 1 2 3\n")
    options = {"meshes": meshes, "shares": (1.0, 0.0, 0.0)}
    with pytest.raises(ValueError, match=r"(open|broken).obj"):
        make_dataset(tmp_path / "stops", DataSettings(**options))
    result = make_dataset(tmp_path / "skips", DataSettings(**options, skip_bad=True))
    assert sorted(Path(path).name for path in result.skipped) == ["broken.obj", "open.obj"]
    assert result.counts["cube_train"] == 2 and result.counts["ball_train"] == 1
    data = NMRDataset(tmp_path / "skips", "train")
    cube = (data.voxels("cube", np.array([0, 1])).sum((1, 2, 3)).numpy()) / 31**3
    assert any(np.isclose(cube, 3**-1.5, rtol=0.1))  # a cube of diagonal 1


def test_open_mesh_files_need_the_published_rule(tmp_path):
    (tmp_path / "m").mkdir()
    tr.save_mesh(tmp_path / "m" / "open.obj", box([0.0] * 3, [1.0] * 3, lid=False))
    options = {"meshes": tmp_path / "m", "shares": (1.0, 0.0, 0.0), "voxels": "published"}
    assert make_dataset(tmp_path / "d", DataSettings(**options)).counts["m_train"] == 1


def test_colours_come_from_a_mesh_or_its_texture():
    mesh = tr.torus(sides=4, sectors=8)
    red = torch.zeros(4, 4, 3)
    red[..., 0] = 1
    textured = tr.Mesh(mesh.vertices * 0.5, mesh.faces, mesh.uv, mesh.uv_faces, red)
    shown = render_views(textured)[0]
    assert shown[0].max() > 60 and shown[1].max() == shown[2].max() == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"families": ("chair", "spoon")}, "spoon"),
        ({"families": ()}, "families"),
        ({"counts": (0, 0, 0)}, "counts"),
        ({"shares": (0.5, 0.1, 0.1)}, "shares"),
        ({"voxels": "soft"}, "voxels"),
        ({"shard": 0}, "shard"),
    ],
)
def test_bad_settings_are_named(changes, word):
    with pytest.raises(ValueError, match=word):
        DataSettings(**changes)


def test_missing_meshes_are_named(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=folder.name):
            make_dataset(tmp_path / "d", DataSettings(meshes=folder))
