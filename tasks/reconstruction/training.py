"""Train a reconstruction network through the soft renderer, from silhouettes alone.

Two images a and b of an object give two meshes. Each is rendered from both views, and all four
silhouettes are compared with those of the images (Liu et al., ICCV 2019):

    loss = mean of the four IoU losses + 5e-3 Laplacian + 5e-4 flattening.

A batch is a function of the seed and the step, and the checkpoint holds everything else that a step
depends on. A run that is killed and resumed ends with the same numbers as one that was not, on one
machine with a deterministic runtime and equally many threads.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor

import taichi_raster as tr
from meta.console import progress_bar
from meta.outer.checkpoint import CheckpointError, load_checkpoint, require_equal, save_checkpoint
from meta.outer.distributed import World
from meta.outer.log import Board, TrainingLog
from tasks.reconstruction.dataset import voxel_rule
from tasks.reconstruction.evaluation import evaluate
from tasks.reconstruction.model import Reconstructor, save_model
from tasks.reconstruction.nmr import NMRDataset, Pairs
from tasks.reconstruction.softness import SoftnessSettings, build_softness
from tasks.reconstruction.views import cameras

KIND = "reconstruction training"
PARTS = ("data", "network", "renderer", "regularisers", "optimiser")
"""The parts of a step's time; forward and backward together."""


@dataclass(frozen=True)
class PartTime:
    """Wall-clock seconds, and CPU seconds of all cores, which are steadier on a busy machine."""

    wall: float = 0.0
    cpu: float = 0.0


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained; the published numbers by default.

    Args:
        steps: number of steps. Progress is step / steps.
        batch_size: objects in a step, each in two views.
        lr: Adam's learning rate.
        lr_drop, lr_drop_at: factor of the learning rate, and the progress from which it applies.
        laplacian, flattening: weights of these two terms.
        seed: of the network's start and of the batches.
        log_every: steps that a line of the log covers.
        save_every: steps between checkpoints.
        validate_every: steps between voxel IoUs of unseen objects; 0 for never.
        validate_objects: unseen objects of each class, in views 0, 6, 12 and 18.

    Raises ValueError, naming the argument that is out of range.
    """

    steps: int = 250_000
    batch_size: int = 64
    lr: float = 1e-4
    lr_drop: float = 0.3
    lr_drop_at: float = 0.6
    laplacian: float = 5e-3
    flattening: float = 5e-4
    seed: int = 0
    log_every: int = 100
    save_every: int = 1000
    validate_every: int = 0
    validate_objects: int = 8

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 2),
            ("seed", 0),
            ("log_every", 1),
            ("save_every", 1),
            ("validate_every", 0),
            ("validate_objects", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "lr_drop"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be positive, got {getattr(self, name)}")
        for name in ("laplacian", "flattening"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be at least 0, got {getattr(self, name)}")

    def rate(self, progress: float) -> float:
        """The learning rate at a progress in [0, 1]."""
        return self.lr * (self.lr_drop if progress >= self.lr_drop_at else 1.0)


def render_device(runtime: tr.Runtime) -> torch.device:
    """Where a scene best lies: on the GPU that the kernels run on, if torch can use it, too.

    A torch that was built without CUDA has its tensors on the CPU; the kernels copy them.
    """
    on_gpu = runtime.arch == "cuda" and torch.cuda.is_available()
    return torch.device("cuda", 0) if on_gpu else torch.device("cpu")


def cross_renders(
    vertices: Float[Tensor, "2B V 3"],
    faces: Int[Tensor, "F 3"],
    views_a: Int[Tensor, " B"],
    views_b: Int[Tensor, " B"],
    renderer: tr.SoftRasterizer,
    progress: float,
) -> Float[Tensor, "4B H W"]:
    """Silhouettes of the meshes of a, then b, from the views of a; then of both from those of b."""
    camera = cameras(torch.cat([views_a, views_a, views_b, views_b]), vertices)
    seen = camera.project(torch.cat([vertices, vertices]))
    return renderer.silhouette(tr.gather_faces(seen, faces), progress)


class Trainer:
    """Trains a network on a data set, resumably.

    Args:
        model: from `build_model`, or any module with `faces` that gives vertices for images.
        data: the training objects, handed out at the size that the model sees and renders.
        settings: of the training.
        softness: of the renderer; the published one by default.
        folder: of log.jsonl and checkpoint.safetensors. When a run ends or is stopped, it also gets
            model.safetensors and, for a learned softness, softening.safetensors. None writes
            nothing.
        validation: unseen objects, for `validate_every`.
        world: the processes that share each batch (`meta.join()`). Batch norm then acts on each
            share separately, and gradients are averaged.
        device: of the network; the renderer runs where the runtime does.
        tensorboard: whether to write the log's numbers for TensorBoard, too.

    Raises:
        ValueError: if there are no objects for `validate_every`, or fewer objects in a batch than
            processes.
    """

    def __init__(
        self,
        model: Reconstructor,
        data: NMRDataset,
        settings: TrainSettings,
        softness: SoftnessSettings | None = None,
        folder: Path | None = None,
        validation: NMRDataset | None = None,
        world: World | None = None,
        device: str = "cpu",
        tensorboard: bool = False,
    ) -> None:
        self.settings = settings
        self.softness_settings = SoftnessSettings() if softness is None else softness
        self.data, self.validation, self.folder = data, validation, folder
        self.world = World() if world is None else world
        if settings.validate_every and validation is None:
            raise ValueError("validation: is needed for validate_every")
        if tensorboard and folder is None:
            raise ValueError("folder: is needed for tensorboard")
        self.share = self.world.shard(settings.batch_size).instances
        self.device = torch.device(device)
        self.render_device = render_device(tr.runtime())
        self.model = model.to(self.device).train()
        self.softness = build_softness(self.softness_settings, data.image_size)
        self.softness.renderer.to(self.render_device)
        self._faces = model.faces.to(self.render_device)
        count = 1 + int(self._faces.max())
        self._laplacian = tr.LaplacianLoss(self._faces, count)
        self._flattening = tr.FlatteningLoss(self._faces, count)
        self.optimiser = torch.optim.Adam(
            [
                {"params": list(model.parameters()), "lr": settings.lr},
                {
                    "params": list(self.softness.learnable.parameters()),
                    "lr": self.softness_settings.lr,
                },
            ]
        )
        self.step, self.seconds = 0, 0.0
        self.times: dict[str, PartTime] = defaultdict(PartTime)
        self._sums: dict[str, float] = defaultdict(float)
        self._summed = 0
        main = self.world.is_main and folder is not None
        self.log = TrainingLog(folder / "log.jsonl" if main and folder else None)
        self._board_folder = folder / "tensorboard" if main and folder and tensorboard else None

    @property
    def checkpoint_path(self) -> Path:
        """Raises ValueError if there is no folder."""
        if self.folder is None:
            raise ValueError("folder: this trainer was made without one and writes no files")
        return self.folder / "checkpoint.safetensors"

    def run(
        self,
        resume: bool | Literal["auto"] = False,
        minutes: float | None = None,
        steps: int | None = None,
        console: Console | None = None,
        quiet: bool = True,
    ) -> bool:
        """Train to the end, or until time or `steps` (of this call) are over, or SIGINT or SIGTERM.

        Args:
            resume: resume from the checkpoint; "auto" does so if there is one. With False, a folder
                that holds one is refused.
            minutes, steps: of this call; then a checkpoint is written.
            console, quiet: of the progress bar.

        Returns:
            Whether it is finished.

        Raises:
            FileNotFoundError, CheckpointError: if there is no checkpoint, or it does not fit.
            FloatingPointError: if the loss is not finite; the last checkpoint stays.
        """
        settings = self.settings
        if resume is not False:
            self._restore(resume)
        elif self.folder is not None and self.world.from_main(self.checkpoint_path.is_file):
            raise CheckpointError(
                f"{self.checkpoint_path} is from an earlier run: resume it, choose another folder, "
                "or delete it"
            )
        elif self.log.path is not None:
            self.log.path.unlink(missing_ok=True)
        last = settings.steps if steps is None else min(settings.steps, self.step + steps)
        board = Board(self._board_folder, self.step)
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        quiet = quiet or not self.world.is_main
        with _stops() as stopped, progress_bar(console, quiet) as bar, self._batches(last) as get:
            line = bar.add_task("training", total=settings.steps, completed=self.step, note="")
            while self.step < last:
                over = stopped.is_set() or (deadline is not None and time.monotonic() > deadline)
                if self._any(over):
                    break
                begin = time.monotonic()
                self._train_step(get())
                self.seconds += time.monotonic() - begin
                self._after_step(board, self.step == last)
                bar.update(line, completed=self.step, note=self._note())
        board.close()
        self._log_entry(None)
        self.save()
        self._export()
        return self.step >= settings.steps

    def save(self) -> None:
        """Write the checkpoint (if there is a folder, by rank 0), atomically."""
        self._average_buffers()
        if self.folder is None or not self.world.is_main:
            return
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        learnable = self.softness.learnable.state_dict()
        tensors |= {f"softness.{name}": t for name, t in learnable.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(t) for name, t in state.items()}
        content = {
            "kind": KIND,
            "step": self.step,
            "seconds": self.seconds,
            "settings": self._settings(),
        }
        save_checkpoint(self.checkpoint_path, tensors, content)

    def measure(self, steps: int) -> dict[str, PartTime]:
        """The time of a step by `PARTS`: the mean of `steps` steps, after two to warm up.

        The steps train, but nothing is logged or written.
        """
        for k in range(steps + 2):
            if k == 2:
                self.times.clear()
            with self._timed("data"):
                batch = self._fetch(self.step)
            self._train_step(batch)
        means = {part: self.times[part] for part in PARTS}
        return {part: PartTime(t.wall / steps, t.cpu / steps) for part, t in means.items()}

    def _train_step(self, batch: Pairs) -> None:
        """One step; `self.step` counts it at its end."""
        settings, progress = self.settings, min(1.0, self.step / self.settings.steps)
        self._set_rates(progress)
        self.optimiser.zero_grad(set_to_none=True)
        with self._timed("network"):
            images = torch.cat([batch.images_a, batch.images_b]).to(self.device)
            predicted = self.model(images)
        # Cut here, so that each part's backward pass is on its own: the numbers are the same.
        vertices = predicted.detach().to(self.render_device, tr.runtime().dtype).requires_grad_()
        with self._timed("renderer"):
            seen = cross_renders(
                vertices,
                self._faces,
                batch.views_a,
                batch.views_b,
                self.softness.renderer,
                progress,
            )
            targets = torch.cat([batch.images_a, batch.images_a, batch.images_b, batch.images_b])
            iou_loss = tr.silhouette_iou_loss(seen, targets[:, 3].to(seen)).mean()
            iou_loss.backward()
        with self._timed("regularisers"):
            laplacian = self._laplacian(vertices).mean()
            flattening = self._flattening(vertices).mean()
            (settings.laplacian * laplacian + settings.flattening * flattening).backward()
        parts = {"iou_loss": iou_loss, "laplacian": laplacian, "flattening": flattening}
        figures = {name: float(value.detach()) for name, value in parts.items()}
        figures["loss"] = (
            figures["iou_loss"]
            + settings.laplacian * figures["laplacian"]
            + settings.flattening * figures["flattening"]
        )
        if not abs(figures["loss"]) < float("inf"):
            raise FloatingPointError(f"step {self.step}: the loss is not finite ({figures})")
        with self._timed("network"):
            assert vertices.grad is not None
            predicted.backward(vertices.grad.to(predicted))
        with self._timed("optimiser"):
            self._average_gradients()
            self.optimiser.step()
        for name, value in figures.items():
            self._sums[name] += value
        self._summed += 1
        self.step += 1

    def _set_rates(self, progress: float) -> None:
        self.optimiser.param_groups[0]["lr"] = self.settings.rate(progress)
        self.softness.learnable.requires_grad_(progress >= self.softness_settings.unfreeze)

    def _after_step(self, board: Board, last: bool) -> None:
        settings, step = self.settings, self.step
        score = None
        if settings.validate_every and (step % settings.validate_every == 0 or last):
            self._average_buffers()
            score = self.world.from_main(self._validate)
        save = step % settings.save_every == 0
        if score is not None or save or step % settings.log_every == 0:
            self._log_entry(board, score)
        if save:
            self.save()

    def _validate(self) -> float:
        assert self.validation is not None
        scores = evaluate(
            self.model,
            self.validation,
            voxel_rule(self.validation.folder),
            (0, 6, 12, 18),
            (),
            objects=self.settings.validate_objects,
            device=self.device,
        )
        self.model.train()
        return scores.mean("voxel_iou")

    def _log_entry(self, board: Board | None, score: float | None = None) -> None:
        """A line of the log, over the steps since the last one; nothing if there are none."""
        if self._summed == 0:
            return
        sums = self.world.mean(
            {name: torch.tensor(value) for name, value in sorted(self._sums.items())},
            len(self.share),
        )
        entry: dict[str, Any] = {"iteration": self.step}
        entry |= {name: float(value) / self._summed for name, value in sums.items()}
        entry["seconds"] = round(self.seconds, 3)
        if score is not None:
            entry["validation"] = {"voxel_iou": score}
        if self.world.is_main:
            self.log.append(entry)
            if board is not None:
                board.append(entry)
        self._sums.clear()
        self._summed = 0

    def _export(self) -> None:
        """Write the trained model and softness of this step for use elsewhere."""
        if self.folder is None or not self.world.is_main:
            return
        card = {
            "training": self._settings(),
            "step": self.step,
            "seconds": round(self.seconds),
        }
        if self.model.settings is not None:
            save_model(self.folder / "model.safetensors", self.model, card)
        if len(self.softness.learnable):
            softening = tr.Softening(
                self.softness.renderer.edge,
                tr.HardDepth(),
                self.softness.renderer.alpha,
                steps=self.settings.steps,
                card={"task": "single-view reconstruction", **card},
            )
            tr.save_softening(self.folder / "softening.safetensors", softening)

    def _restore(self, resume: bool | Literal["auto"]) -> None:
        path = self.checkpoint_path
        if resume == "auto" and not path.is_file():
            if self.log.path is not None:  # of a run that was killed before its first checkpoint
                self.log.path.unlink(missing_ok=True)
            return
        tensors, content = load_checkpoint(path, KIND)
        require_equal(path, content["settings"], self._settings())
        self.model.load_state_dict(_part(tensors, "model."))
        self.softness.learnable.load_state_dict(_part(tensors, "softness."))
        states: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in _part(tensors, "adam.").items():
            index, key = name.split(".", 1)
            states[int(index)][key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": dict(states), "param_groups": groups})
        self.step, self.seconds = content["step"], content["seconds"]
        self.log.restore(self.step)

    def _settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on, except the code."""
        settings = asdict(self.settings)
        for harmless in ("log_every", "save_every", "validate_every", "validate_objects"):
            del settings[harmless]
        softness: dict[str, Any] = asdict(self.softness_settings)
        if self.softness_settings.file is not None:
            file = self.softness_settings.file
            softness["file"] = f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
        model = self.model.settings
        whole = {
            **settings,
            "softness": softness,
            "model": type(self.model).__name__ if model is None else asdict(model),
            "objects": self.data.counts,
            "processes": self.world.size,
        }
        return dict(json.loads(json.dumps(whole)))

    def _average_gradients(self) -> None:
        if self.world.size == 1:
            return
        named = self._named_parameters()
        grads = {name: p.grad for name, p in named.items() if p.grad is not None}
        for name, grad in self.world.mean(grads, len(self.share)).items():
            named[name].grad = grad

    def _named_parameters(self) -> dict[str, torch.nn.Parameter]:
        modules = {"model": self.model, "softness": self.softness.learnable}
        return {f"{k}.{name}": p for k, m in modules.items() for name, p in m.named_parameters()}

    def _average_buffers(self) -> None:
        """Average the running statistics of batch norm over processes."""
        if self.world.size == 1:
            return
        buffers = {
            n: b
            for n, b in self.model.named_buffers()
            if n.rpartition(".")[2].startswith("running")
        }
        for name, value in self.world.mean(buffers, len(self.share)).items():
            buffers[name].copy_(value)

    def _any(self, flag: bool) -> bool:
        """Whether any process raised its flag."""
        if self.world.size == 1:
            return flag
        return float(self.world.mean({"flag": torch.tensor(float(flag))}, 1.0)["flag"]) > 0

    def _fetch(self, step: int) -> Pairs:
        settings = self.settings
        return self.data.pairs(settings.batch_size, settings.seed, step, self.share)

    @contextmanager
    def _batches(self, last: int) -> Iterator[Any]:
        """A function that returns the next batch, while another thread reads the one after it."""
        with ThreadPoolExecutor(1) as pool:
            coming: Future[Pairs] = pool.submit(self._fetch, self.step)

            def get() -> Pairs:
                nonlocal coming
                with self._timed("data"):
                    batch = coming.result()
                if self.step + 1 < last:
                    coming = pool.submit(self._fetch, self.step + 1)
                return batch

            yield get

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        for device in {self.device, self.render_device}:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        before = self.times[part]
        self.times[part] = PartTime(
            before.wall + time.perf_counter() - wall, before.cpu + time.process_time() - cpu
        )

    def _note(self) -> str:
        if not self.log.entries:
            return ""
        entry = self.log.entries[-1]
        score = entry.get("validation", {}).get("voxel_iou")
        return f"loss {entry['loss']:.4f}" + ("" if score is None else f", voxel IoU {score:.3f}")


@contextmanager
def _stops() -> Iterator[threading.Event]:
    """Within this context SIGINT and SIGTERM set the event, so that a step is always finished.

    A second signal raises KeyboardInterrupt. Python delivers signals to the main thread alone: in
    another one this does nothing. The earlier handlers are restored at the end.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
