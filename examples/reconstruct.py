"""A mesh from one image: make data, train a network through the soft renderer, evaluate, predict.

    python examples/reconstruct.py make-data                       # procedural objects, 10 classes
    python examples/reconstruct.py make-data --meshes FOLDER       # or of any mesh files
    python examples/reconstruct.py train --preset small            # two cores; --resume goes on
    python examples/reconstruct.py train --steps 10 --profile      # where a step's time goes
    python examples/reconstruct.py evaluate out/reconstruct/small  # or a=RUN,RUN b=RUN,RUN
    python examples/reconstruct.py predict IMAGE --model out/reconstruct/small/model.safetensors

The network never sees a shape: two images of an object give two meshes, each is rendered softly
from both views, and the silhouettes are compared (Liu et al., ICCV 2019). `--data` may be any
folder in the format of NMR and SoftRas, such as their ShapeNet; then the published training is

    python examples/reconstruct.py train --data FOLDER --preset published --out out/shapenet

`torchrun --nproc-per-node N examples/reconstruct.py train ...` shares each batch among N processes.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from tyro.conf import Positional, arg, subcommand

import taichi_raster as tr
from meta.console import progress_bar
from meta.outer.distributed import join
from tasks import reconstruction as rec
from tasks.reconstruction.curves import draw_curves
from tasks.reconstruction.model import parameter_count
from tasks.reconstruction.softness import SoftnessSettings
from tasks.reconstruction.training import PARTS

Arch = Literal["cpu", "cuda", "vulkan", "auto"]
DATA = Path("out/reconstruct/data")
SHIPPED = Path(rec.__file__).parent / "pretrained" / "small.safetensors"
PRETRAINING = "make-data, then train --preset small"


@dataclass(frozen=True)
class MakeData:
    """Write a data set in the published format; the same command resumes where it was stopped.

    Args:
        out: its folder.
        families: classes of procedural objects.
        counts: objects of each in train, val and test.
        meshes: take a folder of mesh files instead: each folder in it is a class.
        shares: of a class's files in train, val and test.
        voxels: "inside", by centres, for closed meshes; "published", as SoftRas does.
        skip_bad: leave out mesh files that cannot be used.
        seed: of the objects.
        shard: objects in one piece of work.
        workers: processes; 0 for none but this one.
    """

    out: Path = DATA
    families: tuple[str, ...] = tuple(rec.FAMILIES)
    counts: tuple[int, int, int] = (200, 20, 40)
    meshes: Path | None = None
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    voxels: Literal["inside", "published"] = "inside"
    skip_bad: bool = False
    seed: int = 0
    shard: int = 16
    workers: int = 2


@dataclass(frozen=True)
class Source:
    """Where the images are.

    Args:
        data: a folder in the format of NMR and SoftRas.
        classes: class ids; all by default.
        cache: a folder where compressed files may be unpacked.
        in_memory: or unpack them into memory.
    """

    data: Path = DATA
    classes: tuple[str, ...] = ()
    cache: Path | None = None
    in_memory: bool = False

    def split(self, name: str, image_size: int) -> rec.NMRDataset:
        classes = self.classes or None
        return rec.NMRDataset(self.data, name, classes, image_size, self.cache, self.in_memory)


@dataclass(frozen=True)
class Train:
    """Train a network; --resume continues where a run was stopped, and ends with the same numbers.

    Args:
        source: the data.
        preset: published, small or tiny: sizes of network and training.
        out: folder of the run; by default out/reconstruct/PRESET.
        softness: of the renderer.
        encoder: "published", or "timm:NAME"; by default the preset's.
        steps, batch_size, lr, seed, validate_every, save_every: instead of the preset's.
        resume: go on with what is there, if anything is.
        minutes: stop after so many; --resume goes on.
        tensorboard: keep the log's numbers for TensorBoard too.
        profile: measure --steps steps (after two), say where their time goes, and stop.
        brute_force: with --profile: also measure two steps where every pixel meets every face.
        device: of the network: cpu or cuda.
        arch: of the renderer.
        quiet: no progress bar.
    """

    source: Annotated[Source, arg(name="")] = field(default_factory=Source)
    preset: Literal["published", "small", "tiny"] = "small"
    out: Path | None = None
    softness: SoftnessSettings = field(default_factory=SoftnessSettings)
    encoder: str | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    validate_every: int | None = None
    save_every: int | None = None
    resume: bool = False
    minutes: float | None = None
    tensorboard: bool = False
    profile: bool = False
    brute_force: bool = False
    device: str = "cpu"
    arch: Arch = "cpu"
    quiet: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Voxel and silhouette IoU of trained networks, of mean shapes, a contact sheet, curves.

    Args:
        runs: folders of runs. NAME=FOLDER,FOLDER,... is a group, such as one softness with three
            seeds: a column of the table, with mean and standard deviation, and a curve.
        source: the data.
        split: train, val or test.
        voxels: the rule for predicted meshes; by default the one the data was made by, or
            "published".
        views: input views of each object, spread evenly over the 24.
        objects: of each class; all by default.
        rows: of the contact sheet, which is the first run's.
        out: folder of results.md, scores.json, sheet.png and curves.png; by default the first
            run's.
        arch: of the renderer.
        quiet: no progress bar.
    """

    runs: Positional[tuple[str, ...]] = ("out/reconstruct/small",)
    source: Annotated[Source, arg(name="")] = field(default_factory=Source)
    split: Literal["train", "val", "test"] = "test"
    voxels: Literal["inside", "published"] | None = None
    views: int = 24
    objects: int | None = None
    rows: int = 12
    out: Path | None = None
    arch: Arch = "cpu"
    quiet: bool = False

    def groups(self) -> dict[str, list[Path]]:
        """Folders by the name of their group."""
        found: dict[str, list[Path]] = {}
        for run in self.runs:
            name, equals, folders = run.rpartition("=")
            name = name if equals else Path(run).name
            if not equals and name in found:
                raise ValueError(f"runs: two are called {name!r}; say NAME=FOLDER")
            found.setdefault(name, []).extend(Path(folder) for folder in folders.split(","))
        if not found:
            raise ValueError("runs: name at least one folder")
        return found


@dataclass(frozen=True)
class Predict:
    """The mesh of one image: mesh.obj, and a picture of it.

    Args:
        image: any image file. One with transparency is taken as it is; of another, what has the
            colour of its border is background.
        model: a file of a trained network.
        out: folder of mesh.obj and prediction.png.
        arch: of the renderer.
    """

    image: Positional[Path]
    model: Path = SHIPPED
    out: Path = Path("out/reconstruct/predict")
    arch: Arch = "cpu"


Command = (
    Annotated[MakeData, subcommand("make-data")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Predict, subcommand("predict")]
)


def make_data(options: MakeData) -> None:
    settings = rec.DataSettings(
        options.families,
        options.counts,
        options.meshes,
        options.shares,
        options.voxels,
        options.skip_bad,
        options.seed,
        options.shard,
    )
    if options.workers == 0:
        tr.init(arch="cpu")
    with progress_bar() as bar:
        line = bar.add_task("pieces", total=None, note="")
        made = rec.make_dataset(
            options.out,
            settings,
            options.workers,
            lambda done, total: bar.update(line, completed=done, total=total),
        )
    for path, reason in made.skipped.items():
        print(f"left out {path}: {reason}")
    print(f"{sum(made.counts.values())} objects in {options.out}")


def train(options: Train) -> None:
    world = join(timeout=1800)
    tr.init(arch=options.arch, deterministic=True)
    if options.device == "cpu":
        torch.use_deterministic_algorithms(True)
    preset = rec.PRESETS[options.preset]
    changes = {
        name: getattr(options, name)
        for name in ("steps", "batch_size", "lr", "seed", "validate_every", "save_every")
        if getattr(options, name) is not None
    }
    if options.profile:
        changes = {**changes, "steps": preset.training.steps, "validate_every": 0}
    settings = replace(preset.training, **changes)
    sizes = preset.model
    if options.encoder is not None:
        sizes = replace(sizes, encoder=options.encoder)
    data = options.source.split("train", sizes.image_size)
    model = rec.build_model(sizes, settings.seed)
    console = Console(quiet=not world.is_main)
    console.print(
        f"{len(data)} objects of {len(data.classes)} classes, {parameter_count([model]):,} weights"
    )
    if options.profile:
        profile(options, model, data, settings, console)
        return
    validation = None
    if settings.validate_every:
        validation = options.source.split("val", sizes.image_size)
    folder = options.out or Path("out/reconstruct") / options.preset
    trainer = rec.Trainer(
        model,
        data,
        settings,
        options.softness,
        folder,
        validation,
        world,
        options.device,
        options.tensorboard,
    )
    resume: Literal["auto", False] = "auto" if options.resume else False
    finished = trainer.run(resume, options.minutes, console=console, quiet=options.quiet)
    console.print(
        f"{trainer.step} of {settings.steps} steps in {trainer.seconds:.0f} s; results in {folder}"
        + ("" if finished else "; the same command with --resume goes on")
    )


def profile(
    options: Train,
    model: rec.Reconstructor,
    data: rec.NMRDataset,
    settings: rec.TrainSettings,
    console: Console,
) -> None:
    """A table of seconds and shares; also in profile.json, if --out is given."""
    runs = {"tiles": (options.softness, options.steps or 10)}
    if options.brute_force:
        runs["brute force"] = (replace(options.softness, threshold=0.0), 2)
    found = {}
    for name, (softness, steps) in runs.items():
        trainer = rec.Trainer(model, data, settings, softness, device=options.device)
        found[name] = trainer.measure(steps)
    table = Table(title=f"a step of {settings.batch_size} objects in 2 views, 4 renders each")
    table.add_column("part")
    for name in found:
        for column in (f"{name}: ms", "CPU ms", "of CPU"):
            table.add_column(column, justify="right")
    for part in (*PARTS, "all"):
        cells = []
        for times in found.values():
            chosen = list(times.values()) if part == "all" else [times[part]]
            wall, cpu = sum(t.wall for t in chosen), sum(t.cpu for t in chosen)
            share = cpu / sum(t.cpu for t in times.values())
            cells += [f"{1000 * wall:.1f}", f"{1000 * cpu:.1f}", f"{share:.0%}"]
        table.add_row(part, *cells)
    console.print(table)
    console.print(f"at most {peak_memory():.2f} GB of memory were in use")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        seconds = {n: {p: asdict(t) for p, t in times.items()} for n, times in found.items()}
        content = {"seconds": seconds, "peak_gb": peak_memory()}
        (options.out / "profile.json").write_text(json.dumps(content, indent=1))


def peak_memory() -> float:
    """GB that this process had at most; NaN where the system does not tell."""
    if importlib.util.find_spec("resource") is None:
        return float("nan")
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def evaluate(options: Evaluate) -> None:
    groups = options.groups()
    if not 1 <= options.views <= 24:
        raise ValueError(f"--views: must be 1 to 24, got {options.views}")
    tr.init(arch=options.arch)
    folders = [folder for runs in groups.values() for folder in runs]
    models = {folder: rec.load_model(folder / "model.safetensors")[0] for folder in folders}
    sizes = {model.settings.image_size for model in models.values() if model.settings}
    if len(sizes) != 1:
        raise ValueError(f"runs: their image sizes differ: {sorted(sizes)}")
    size = sizes.pop()
    data, training = (options.source.split(name, size) for name in (options.split, "train"))
    rule = options.voxels or rec.voxel_rule(options.source.data)
    views = tuple(int(v) for v in np.floor(np.arange(options.views) * 24 / options.views))
    with progress_bar(quiet=options.quiet) as bar:

        def scored(folder: Path) -> rec.Scores:
            line = bar.add_task(f"{folder}", total=None, note="")
            return rec.evaluate(
                models[folder],
                data,
                rule,
                views,
                objects=options.objects,
                report=lambda name, done, total: bar.update(
                    line, completed=done, total=total, note=data.name(name)
                ),
            )

        scores = {folder: scored(folder) for folder in folders}
    guess = rec.mean_shapes(training, data, options.objects)
    baselines = {"mean shape": guess.overall, "mean shape of the class": guess.by_class}
    grouped = {name: [scores[folder] for folder in runs] for name, runs in groups.items()}
    text = rec.scores_markdown(grouped, baselines, data)
    out = options.out or folders[0]
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text(text)
    everything = {**{str(folder): one for folder, one in scores.items()}, **baselines}
    numbers = {
        name: {c: vars(s) for c, s in one.classes.items()} for name, one in everything.items()
    }
    (out / "scores.json").write_text(json.dumps(numbers, indent=1))
    rec.draw_sheet(out / "sheet.png", models[folders[0]], data, options.rows)
    logs = {name: [folder / "log.jsonl" for folder in runs] for name, runs in groups.items()}
    if all(log.is_file() for several in logs.values() for log in several):
        draw_curves(out / "curves.png", logs)
    Console().print(text, highlight=False, markup=False)
    print(f"voxels by the rule {rule!r}; results.md, scores.json and pictures in {out}")


def predict(options: Predict) -> None:
    if not options.image.is_file():
        raise FileNotFoundError(f"{options.image}: there is no such image")
    if not options.model.is_file():
        hint = f"; train one: {PRETRAINING}" if options.model == SHIPPED else ""
        raise FileNotFoundError(f"{options.model}: there is no such model{hint}")
    tr.init(arch=options.arch)
    model, _ = rec.load_model(options.model)
    assert model.settings is not None
    image = read_image(options.image, model.settings.image_size)
    options.out.mkdir(parents=True, exist_ok=True)
    vertices = rec.draw_prediction(options.out / "prediction.png", image, model)
    tr.save_mesh(options.out / "mesh.obj", tr.Mesh(vertices, model.faces))
    print(f"wrote mesh.obj and prediction.png into {options.out}")


def read_image(path: Path, size: int) -> torch.Tensor:
    """(4, size, size) RGBA over black, as in the data set: square, the object in its middle."""
    try:
        with Image.open(path) as file:
            transparent = "A" in file.getbands() or "transparency" in file.info
            pixels = np.asarray(file.convert("RGBA"), dtype=np.float32) / 255
    except OSError as error:
        raise ValueError(f"{path}: is not an image ({error})") from error
    pixels = pixels.copy()
    if not transparent or bool((pixels[..., 3] == 1).all()):
        rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])[:, :3]
        distance = np.abs(pixels[..., :3] - np.median(rim, axis=0)).max(axis=-1)
        pixels[..., 3] = distance > 0.08
    if not pixels[..., 3].any():
        raise ValueError(f"{path}: is all background")
    pixels[..., :3] *= pixels[..., 3:]
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 4), dtype=np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    image = torch.from_numpy(square).permute(2, 0, 1)[None]
    return functional.interpolate(image, (size, size), mode="area")[0]


RUN = {MakeData: make_data, Train: train, Evaluate: evaluate, Predict: predict}


def main(options: MakeData | Train | Evaluate | Predict) -> None:
    torch.set_num_threads(min(torch.get_num_threads(), 2))
    RUN[type(options)](options)  # type: ignore[operator]


if __name__ == "__main__":
    try:
        main(tyro.cli(Command, description=__doc__.split("\n\n")[0]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ValueError, ImportError, FileNotFoundError, FloatingPointError, RuntimeError) as error:
        raise SystemExit(f"reconstruct: {error}") from error
