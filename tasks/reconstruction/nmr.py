"""The data set of single-view reconstruction: ShapeNet as NMR and SoftRas read it.

For each class and split (train, val, test) two files:

    <class id>_<split>_images.npz   uint8 (N, 24, 4, 64, 64): RGBA of N objects in 24 views
    <class id>_<split>_voxels.npz   (N, 32, 32, 32): 0 or 1, see `voxels`

Its 13 classes hold about 44 thousand objects: 17 GB of images, more than most memories. They are
memory-mapped, so that a batch reads 16 KB an image from disk. Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from tasks.reconstruction.npz import DataFileError, check_integrity, open_array
from tasks.reconstruction.views import IMAGE_SIZE, VIEWS
from tasks.reconstruction.voxels import SIZE

SPLITS = ("train", "val", "test")

CLASS_NAMES = {
    "02691156": "airplane",
    "02828884": "bench",
    "02933112": "cabinet",
    "02958343": "car",
    "03001627": "chair",
    "03211117": "display",
    "03636649": "lamp",
    "03691459": "loudspeaker",
    "04090263": "rifle",
    "04256520": "sofa",
    "04379243": "table",
    "04401088": "telephone",
    "04530566": "watercraft",
}
"""The 13 classes, by WordNet number."""


@dataclass(frozen=True)
class Pairs:
    """A batch of objects, each in two views.

    Attributes:
        images_a, images_b: (B, 4, H, W) RGBA in [0, 1].
        views_a, views_b: (B,) numbers of the views.
    """

    images_a: Float[Tensor, "B 4 H W"]
    images_b: Float[Tensor, "B 4 H W"]
    views_a: Int[Tensor, " B"]
    views_b: Int[Tensor, " B"]


class NMRDataset:
    """One split of the data set.

    Args:
        folder: where the files are.
        split: "train", "val" or "test".
        classes: class ids; all that the folder has, sorted, by default.
        image_size: of the images returned, a divisor of 64; pixels are averaged.
        cache: a folder into which compressed files are unpacked once.
        in_memory: whether to unpack them into memory instead.
        verify: whether to read all files once and compare their checksums.

    Attributes:
        classes: class ids.
        counts: the number of objects of each.

    Raises:
        FileNotFoundError: if the folder or a class's file is not there.
        DataFileError: naming the file, for one that is truncated, not an archive, compressed where
            unpacking is not allowed, pickled, of another shape or dtype, or empty.
        ValueError: for an unknown split, or an image size that does not divide 64.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        classes: Sequence[str] | None = None,
        image_size: int = IMAGE_SIZE,
        cache: Path | None = None,
        in_memory: bool = False,
        verify: bool = False,
    ) -> None:
        self.folder, self.split, self.image_size = Path(folder), split, image_size
        if split not in SPLITS:
            raise ValueError(f"split: unknown {split!r}; known: {', '.join(SPLITS)}")
        if not (isinstance(image_size, int) and image_size >= 1 and IMAGE_SIZE % image_size == 0):
            raise ValueError(f"image_size: must divide {IMAGE_SIZE}, got {image_size!r}")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: there is no such folder of data")
        self.classes = tuple(find_classes(self.folder, split) if classes is None else classes)
        if not self.classes:
            raise FileNotFoundError(
                f"{self.folder}: has no file *_{split}_images.npz; name a folder in the format of "
                "NMR and SoftRas, or make one"
            )
        self._images: dict[str, ndarray] = {}
        self._voxels: dict[str, ndarray] = {}
        for class_id in self.classes:
            images, voxels = (
                self.folder / f"{class_id}_{split}_{part}.npz" for part in ("images", "voxels")
            )
            for path in (images, voxels) if verify else ():
                check_integrity(path)
            self._images[class_id] = _checked_images(images, cache, in_memory)
            self._voxels[class_id] = _checked_voxels(voxels, cache, in_memory)
            if len(self._images[class_id]) != len(self._voxels[class_id]):
                raise DataFileError(
                    f"{voxels}: holds {len(self._voxels[class_id])} objects where "
                    f"{images.name} holds {len(self._images[class_id])}"
                )
        self.counts = {class_id: len(images) for class_id, images in self._images.items()}

    def __len__(self) -> int:
        """The number of objects, of all classes."""
        return sum(self.counts.values())

    def name(self, class_id: str) -> str:
        """The name of a class; its id if it has none."""
        return CLASS_NAMES.get(class_id, class_id)

    def images(
        self, class_id: str, objects: Int[ndarray, " B"], views: Int[ndarray, " B"]
    ) -> Float[Tensor, "B 4 H W"]:
        """One view of each object, RGBA in [0, 1]."""
        return self._floats(self._images[class_id][objects, views])

    def full_images(
        self, class_id: str, objects: Int[ndarray, " B"], views: Int[ndarray, " B"]
    ) -> Float[Tensor, "B 4 64 64"]:
        """The same at the size they are stored in."""
        stored = self._images[class_id][objects, views]
        return torch.from_numpy(np.ascontiguousarray(stored)).float() / 255

    def voxels(self, class_id: str, objects: Int[ndarray, " B"]) -> Bool[Tensor, "B 32 32 32"]:
        """Indexed by y, x, z; DataFileError for values other than 0 and 1."""
        found = np.asarray(self._voxels[class_id][objects])
        if found.dtype != bool:
            if not np.isin(found, (0, 1)).all():
                raise DataFileError(
                    f"{self.folder}/{class_id}_{self.split}_voxels.npz: holds other values than 0 "
                    "and 1"
                )
            found = found != 0
        return torch.from_numpy(np.ascontiguousarray(found))

    def pairs(self, size: int, seed: int, step: int, share: Sequence[int] | None = None) -> Pairs:
        """Batch `step`: a function of (seed, step) alone.

        As published, each object's class is drawn first, all with equal probability; then the
        object; then two views, which may be the same. `share` names the places in the batch to be
        read; all by default.
        """
        rng = np.random.default_rng([seed, step])
        classes = rng.integers(len(self.classes), size=size)
        where = rng.random(size)
        views = rng.integers(VIEWS, size=(2, size))
        places = range(size) if share is None else share
        shots = np.empty((2, len(places), 4, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
        for row, place in enumerate(places):
            images = self._images[self.classes[classes[place]]]
            index = int(where[place] * len(images))
            for side in range(2):
                shots[side, row] = images[index, views[side, place]]
        chosen = torch.from_numpy(views[:, list(places)])
        return Pairs(self._floats(shots[0]), self._floats(shots[1]), chosen[0], chosen[1])

    def each(
        self, class_id: str, views: Sequence[int], size: int, objects: int | None = None
    ) -> Iterator[tuple[Int[ndarray, " B"], Int[ndarray, " B"]]]:
        """Batches of (objects, views): every object of a class, in each of the views.

        `objects` limits the number of objects, which are then spread evenly over the class.
        """
        count = self.counts[class_id]
        chosen = np.arange(count)
        if objects is not None and objects < count:
            chosen = np.floor(np.arange(objects) * count / objects).astype(int)
        index = np.repeat(chosen, len(views))
        seen = np.tile(np.asarray(views), len(chosen))
        for begin in range(0, len(index), size):
            yield index[begin : begin + size], seen[begin : begin + size]

    def _floats(self, images: ndarray) -> Tensor:
        found = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
        factor = IMAGE_SIZE // self.image_size
        return found if factor == 1 else functional.avg_pool2d(found, factor)


def find_classes(folder: Path, split: str) -> list[str]:
    """Class ids of which a folder has images of this split, sorted."""
    ending = f"_{split}_images.npz"
    found = (path.name.removesuffix(ending) for path in Path(folder).glob(f"*{ending}"))
    return sorted(name for name in found if not name.startswith("."))


def _checked_images(path: Path, cache: Path | None, in_memory: bool) -> ndarray:
    images = open_array(path, cache, in_memory, "array of images")
    if images.dtype != np.uint8:
        raise DataFileError(f"{path}: images must be uint8, got {images.dtype}")
    expected = (VIEWS, 4, IMAGE_SIZE, IMAGE_SIZE)
    if images.ndim != 5 or images.shape[1:] != expected:
        raise DataFileError(
            f"{path}: images must be (N, {', '.join(map(str, expected))}), got {images.shape}"
        )
    if len(images) == 0:
        raise DataFileError(f"{path}: holds no object")
    return images


def _checked_voxels(path: Path, cache: Path | None, in_memory: bool) -> ndarray:
    voxels = open_array(path, cache, in_memory, "array of voxels")
    if voxels.dtype.kind not in "biuf":
        raise DataFileError(f"{path}: voxels must be booleans or numbers, got {voxels.dtype}")
    if voxels.ndim != 4 or voxels.shape[1:] != (SIZE, SIZE, SIZE):
        raise DataFileError(
            f"{path}: voxels must be (N, {SIZE}, {SIZE}, {SIZE}), got {voxels.shape}"
        )
    return voxels
