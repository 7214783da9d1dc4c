"""Make a data set in the published format, from procedural families or from mesh files.

The work is cut into shards of a few objects. Each is a file that is whole or absent, so that a run
killed at any moment can be resumed. Several processes share the shards. The complete shards of a
class become its two .npz files, which are uncompressed, so that they can be memory-mapped.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

import taichi_raster as tr
from meta.outer.checkpoint import load_json, require_equal, save_json, write_atomically
from tasks.reconstruction.nmr import SPLITS
from tasks.reconstruction.parts import fitted
from tasks.reconstruction.shapes import FAMILIES, random_object
from tasks.reconstruction.views import FAR, IMAGE_SIZE, NEAR, VIEWS, cameras
from tasks.reconstruction.voxels import RULES, Rule, voxelise

KIND = "reconstruction data"
SUFFIXES = (".obj", ".off", ".ply", ".stl", ".glb", ".gltf")
SUBPIXELS = 4  # of an image's pixel, along each side
LIGHTS = (
    tr.AmbientLight(0.35),
    tr.DirectionalLight((0.4, 1.0, 0.5), 0.5),
    tr.DirectionalLight((-0.8, 0.3, -0.4), 0.25),
)
"""Fixed in the world."""

Report = Callable[[int, int], None]
"""Called with the number of shards done, and the number of all shards."""


@dataclass(frozen=True)
class DataSettings:
    """Settings of a data set; equal settings give equal files.

    Args:
        families: names in `FAMILIES`, each of which becomes a class; ignored if there are meshes.
        counts: objects of each family in train, val and test.
        meshes: a folder of mesh files (OBJ, OFF, PLY, STL, glTF): each folder in it is a class,
            with all mesh files below; files beside them are a class of the folder's name.
        shares: fractions of a class's files for train, val and test.
        voxels: which rule makes the voxels (see `voxels`): "inside", for closed meshes, or
            "published".
        skip_bad: leave out mesh files that cannot be used, instead of stopping.
        seed: of the objects, and of which file goes where.
        shard: objects in one piece of work.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    counts: tuple[int, int, int] = (200, 20, 40)
    meshes: Path | None = None
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    voxels: Rule = "inside"
    skip_bad: bool = False
    seed: int = 0
    shard: int = 16

    def __post_init__(self) -> None:
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(f"families: unknown {family!r}; known: {', '.join(FAMILIES)}")
        if not self.families or len(set(self.families)) != len(self.families):
            raise ValueError(f"families: expected one or more, each once, got {self.families}")
        if len(self.counts) != 3 or min(self.counts) < 0 or sum(self.counts) == 0:
            raise ValueError(f"counts: expected three numbers >= 0, not all 0, got {self.counts}")
        if len(self.shares) != 3 or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares: expected three shares that add up to 1, got {self.shares}")
        if self.voxels not in RULES:
            raise ValueError(f"voxels: unknown rule {self.voxels!r}; known: {', '.join(RULES)}")
        if self.shard < 1 or self.seed < 0:
            raise ValueError("shard, seed: must be at least 1, and at least 0")


@dataclass(frozen=True)
class Shard:
    """A few objects of a class and split, by their numbers or by their mesh files."""

    class_id: str
    split: str
    index: int
    objects: tuple[int, ...] = ()
    files: tuple[str, ...] = ()

    def path(self, folder: Path) -> Path:
        """The file that holds it until its class is complete."""
        return folder / ".shards" / f"{self.class_id}_{self.split}_{self.index:05d}.npz"


@dataclass(frozen=True)
class Made:
    """The result of `make_dataset`.

    Attributes:
        counts: objects of each class and split, by "class_split".
        skipped: mesh files that were left out, with the reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def make_dataset(
    folder: Path,
    settings: DataSettings | None = None,
    workers: int = 0,
    report: Report | None = None,
) -> Made:
    """Write a data set in the published format into `folder`, or its missing part.

    Args:
        folder: created if missing. It also holds a description, dataset.json.
        settings: what to make.
        workers: worker processes; 0 does the work in this process, with its runtime.
        report: called with the progress.

    Raises:
        ValueError: naming a mesh file that cannot be used, or one class of two names.
        FileNotFoundError: if there is no such folder of meshes.
        meta.CheckpointError: if `folder` holds a data set of other settings.
        RuntimeError: if a worker process died; what was finished stays.
    """
    settings = DataSettings() if settings is None else settings
    folder = Path(folder)
    if workers < 0:
        raise ValueError(f"workers: must be at least 0, got {workers}")
    plan = _plan(settings)
    _describe(folder, settings, plan)
    groups: dict[tuple[str, str], list[Shard]] = {}
    for shard in plan:
        groups.setdefault((shard.class_id, shard.split), []).append(shard)
    open_groups = {key: shards for key, shards in groups.items() if not _finished(folder, *key)}
    missing = [s for shards in open_groups.values() for s in shards if not s.path(folder).is_file()]
    done, total = len(plan) - len(missing), len(plan)
    for _ in _work(missing, folder, settings, workers):
        done += 1
        if report is not None:
            report(done, total)
    for (class_id, split), shards in open_groups.items():
        _merge(folder, class_id, split, [shard.path(folder) for shard in shards])
    shutil.rmtree(folder / ".shards", ignore_errors=True)
    content = load_json(folder / "dataset.json", KIND)
    return Made(content.get("counts", {}), content.get("skipped", {}))


def render_views(mesh: tr.Mesh) -> UInt8[ndarray, "24 4 64 64"]:
    """RGBA of a mesh in the 24 views: flat-shaded colours over black, and coverage.

    Colours and coverage are those of 16 points in each pixel.
    """
    dtype = tr.runtime().dtype
    vertices = mesh.vertices.to(dtype)[None].expand(VIEWS, -1, -1)
    camera = cameras(torch.arange(VIEWS), vertices)
    two_sided = tr.Material(two_sided=True)
    colours = tr.shade_flat(
        vertices,
        mesh.faces,
        _paint(mesh, dtype).expand(VIEWS, -1, -1, -1),
        LIGHTS,
        camera.eye,
        two_sided,
    )
    renderer = tr.SoftRasterizer(
        IMAGE_SIZE,
        tr.Distribution("heaviside"),
        tr.HardDepth(),
        tr.TConorm("hard"),
        near=NEAR,
        far=FAR,
        antialias=SUBPIXELS,
    )
    with torch.no_grad():
        seen = renderer(tr.gather_faces(camera.project(vertices), mesh.faces), colours.contiguous())
    pixels = (seen.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 3, 1, 2).contiguous().cpu().numpy()


def _paint(mesh: tr.Mesh, dtype: torch.dtype) -> torch.Tensor:
    """Colours of faces' corners, (1, F, 3, 3): the mesh's times its texture's there, or grey."""
    colours = None
    if mesh.colours is not None and mesh.colours.shape[1] >= 3:
        colours = mesh.corner_colours()[..., :3].to(dtype)
    if mesh.texture is not None and mesh.texture.shape[2] >= 3:
        uv = mesh.corner_uv() % 1
        height, width = mesh.texture.shape[:2]
        row = ((1 - uv[..., 1]) * height).long().clamp(0, height - 1)
        column = (uv[..., 0] * width).long().clamp(0, width - 1)
        texels = mesh.texture[row, column][..., :3].to(dtype)
        return texels if colours is None else texels * colours
    if colours is not None:
        return colours
    return torch.full((1, len(mesh.faces), 3, 3), 0.7, dtype=dtype)


def _plan(settings: DataSettings) -> list[Shard]:
    plan = []
    for (class_id, split), things in _things(settings).items():
        for index, begin in enumerate(range(0, len(things), settings.shard)):
            part = things[begin : begin + settings.shard]
            if settings.meshes is None:
                plan.append(Shard(class_id, split, index, objects=tuple(part)))
            else:
                plan.append(Shard(class_id, split, index, files=tuple(part)))
    return plan


def _things(settings: DataSettings) -> dict[tuple[str, str], list[Any]]:
    """Numbers of objects, or files, by class and split."""
    if settings.meshes is None:
        return {
            (family, split): list(range(count))
            for family in settings.families
            for split, count in zip(SPLITS, settings.counts, strict=True)
        }
    found: dict[tuple[str, str], list[Any]] = {}
    for class_id, files in mesh_classes(settings.meshes).items():
        rng = np.random.default_rng([settings.seed, zlib.crc32(class_id.encode())])
        order = [str(files[k]) for k in rng.permutation(len(files))]
        ends = np.round(np.cumsum([0, *settings.shares]) * len(files)).astype(int)
        for split, begin, end in zip(SPLITS, ends[:-1], ends[1:], strict=True):
            found[class_id, split] = order[begin:end]
    return found


def mesh_classes(folder: Path) -> dict[str, list[Path]]:
    """The mesh files of each class in a folder, sorted.

    Raises:
        FileNotFoundError: if there is no such folder, or no mesh file in it.
        ValueError: if a class's name has "_" and the name of a split at its end.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder of meshes")
    classes: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            inside = path.relative_to(folder).parts
            classes.setdefault(inside[0] if len(inside) > 1 else folder.name, []).append(path)
    if not classes:
        raise FileNotFoundError(f"{folder}: has no mesh file ({', '.join(SUFFIXES)})")
    for name in classes:
        if name.rpartition("_")[2] in SPLITS:
            raise ValueError(f"{folder / name}: a class cannot be called {name!r}; rename it")
    return classes


def _describe(folder: Path, settings: DataSettings, plan: list[Shard]) -> None:
    """Write dataset.json, or compare an existing one with these settings."""
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    if settings.meshes is None:
        for unused in ("meshes", "shares", "skip_bad"):
            del wanted[unused]
    else:
        files = "\n".join(f for shard in plan for f in shard.files)
        wanted["files"] = f"{zlib.crc32(files.encode()):08x}"
        for unused in ("families", "counts"):
            del wanted[unused]
    path = folder / "dataset.json"
    if path.is_file():
        require_equal(path, load_json(path, KIND)["settings"], wanted)
        return
    if folder.is_dir() and any(folder.glob("*_images.npz")):
        raise ValueError(
            f"{folder}: holds a data set that was not made here; choose another folder"
        )
    save_json(path, {"kind": KIND, "settings": wanted, "voxels": settings.voxels})


def _finished(folder: Path, class_id: str, split: str) -> bool:
    return all(
        (folder / f"{class_id}_{split}_{part}.npz").is_file() for part in ("images", "voxels")
    )


def _work(
    shards: list[Shard], folder: Path, settings: DataSettings, workers: int
) -> Iterator[None]:
    """Make the shards; one yield for each."""
    if workers == 0:
        for shard in shards:
            _make(shard, folder, settings)
            yield
        return
    if not shards:
        return
    pool = ProcessPoolExecutor(
        min(workers, len(shards)), multiprocessing.get_context("spawn"), _start_worker
    )
    try:
        tasks = [pool.submit(_make, shard, folder, settings) for shard in shards]
        for task in as_completed(tasks):
            task.result()
            yield
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"{folder}: a worker process died (out of memory?); the same command resumes from "
            "what is finished"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Set up a new process: with one thread, since other workers use the other cores."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TI_CPU_MAX_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    tr.init(arch="cpu")


def _end_with_parent() -> None:
    """End a worker whose parent was killed; it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(shard: Shard, folder: Path, settings: DataSettings) -> None:
    """Write a shard, atomically."""
    images, voxels = [], []
    skipped: dict[str, str] = {}
    for mesh, source in _meshes(shard, settings, skipped):
        try:
            inside = voxelise(mesh.vertices[None].double(), mesh.faces, settings.voxels)[0]
        except ValueError as error:
            hint = "; voxels='published' takes open surfaces too" if "open" in str(error) else ""
            if not settings.skip_bad:
                raise ValueError(f"{source}: {error}{hint}") from error
            skipped[source] = f"{error}"
            continue
        images.append(render_views(mesh))
        voxels.append(inside.cpu().numpy())
    data = io.BytesIO()
    np.savez(
        data,
        images=np.reshape(images, (-1, VIEWS, 4, IMAGE_SIZE, IMAGE_SIZE)).astype(np.uint8),
        voxels=np.reshape(voxels, (-1, 32, 32, 32)).astype(bool),
        skipped=np.frombuffer(json.dumps(skipped).encode(), dtype=np.uint8),
    )
    write_atomically(shard.path(folder), data.getvalue())


def _meshes(
    shard: Shard, settings: DataSettings, skipped: dict[str, str]
) -> Iterator[tuple[tr.Mesh, str]]:
    """The shard's meshes and their names. Unreadable files go to `skipped`, if that is allowed."""
    label = zlib.crc32(f"{shard.class_id} {shard.split}".encode())
    for number in shard.objects:
        rng = np.random.default_rng([settings.seed, label, number])
        yield random_object(shard.class_id, rng), f"{shard.class_id} {number}"
    for file in shard.files:
        try:
            mesh = fitted(tr.load_mesh(file, torch.float64))
        except (ValueError, FileNotFoundError) as error:
            if not settings.skip_bad:
                raise ValueError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from error
            skipped[file] = f"{error}"
            continue
        yield mesh, file


def voxel_rule(folder: Path) -> Rule:
    """The voxel rule of a data set: "published", unless its dataset.json names another."""
    path = folder / "dataset.json"
    if not path.is_file():
        return "published"
    return "inside" if load_json(path, KIND)["voxels"] == "inside" else "published"


def _merge(folder: Path, class_id: str, split: str, shards: list[Path]) -> None:
    """Write the class's counts to dataset.json, then its two files, piece by piece."""
    skipped: dict[str, str] = {}
    counts = []
    for path in shards:
        with np.load(path, allow_pickle=False) as shard:
            counts.append(len(shard["voxels"]))
            skipped |= json.loads(shard["skipped"].tobytes())
    total = sum(counts)
    path = folder / "dataset.json"  # first: the class counts as finished once its files are there
    content = load_json(path, KIND)
    _add(content, "counts", {f"{class_id}_{split}": total})
    _add(content, "skipped", skipped)
    save_json(path, content)
    for part, shape, dtype in (
        ("images", (VIEWS, 4, IMAGE_SIZE, IMAGE_SIZE), np.uint8),
        ("voxels", (32, 32, 32), np.bool_),
    ):
        if total > 0:
            pieces = (_piece(path, part) for path in shards)
            target = folder / f"{class_id}_{split}_{part}.npz"
            _write_npz(target, pieces, (total, *shape), np.dtype(dtype))


def _piece(path: Path, part: str) -> ndarray:
    with np.load(path, allow_pickle=False) as shard:
        return shard[part]


def _add(content: dict[str, Any], key: str, entries: Mapping[str, Any]) -> None:
    content[key] = {**content.get(key, {}), **entries}


def _write_npz(path: Path, pieces: Iterable[ndarray], shape: tuple[int, ...], dtype: Any) -> None:
    """Write an uncompressed .npz of one array, arr_0; it is renamed into place when complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    try:
        with (
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
            archive.open("arr_0.npy", "w", force_zip64=True) as file,
        ):
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces:
                file.write(np.ascontiguousarray(piece).tobytes())
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
