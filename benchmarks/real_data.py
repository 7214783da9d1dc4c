"""Real photos: the softening for all problems, beside the best of some annealed ones.

    python benchmarks/real_data.py dino shared/data/dino
    python benchmarks/real_data.py box shared/data/box

dino: a ball becomes the toy dinosaur by the silhouettes of 32 photos (90 x 72 pixels), so that
limbs have to grow. Judged by the four photos that are held out, at four times the size.

box: the pose of the printed box by its mask, 180 pixels wide, from starts that are 30 degrees off.
The mask is drawn from the pose that comes with the data, see `box.py`; solved is within a degree.

All take the same number of steps with the same loss. The annealed Gaussians are tuned: the best of
eight, scale and learning rate, by the loss that is left (dino) or by other starts (box). They stand
beside the start by hand, and the policy, `tr.universal_policy()`, which are tuned by nothing.
"sharp" is no softness at all, with its learning rate tuned the same way. Seconds are those of the
processor, of the one run that is reported, once kernels are compiled.

`tr.fit_mesh` and `tr.fit_pose` do not come by here: they start at the visual hull, and take
Gauss-Newton steps of the outline (see `pose_beside_deodr.py`).
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import box as box_data
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tyro.conf import Positional

import taichi_raster as tr
from taichi_raster.fitting.silhouette_fit import LocalMesh

HELD_OUT = (4, 13, 22, 31)
STEPS = 60
WARM = 4  # steps before anything is timed; the last of them is sharp
NEAR, FAR = 0.3, 3.0  # in units of the distance of the object
RATES, FIRST = (0.01, 0.03, 0.1, 0.3), (0.03, 0.1)
LAPLACIAN, SMOOTHING = 0.03, 12.0


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        what: which data.
        folder: of the data.
        steps: of each descent.
        longest: side of the masks in pixels, at most; 90 for dino and 180 for box by default.
    """

    what: Positional[Literal["dino", "box"]]
    folder: Positional[Path]
    steps: int = STEPS
    longest: int | None = None


class Fit(Protocol):
    """A problem: B descents side by side."""

    views: int

    @property
    def target(self) -> Tensor:
        """(R, H, W), R = views times B."""
        ...

    def start(self) -> Tensor:
        """Unknowns (B, ...)."""
        ...

    def geometry(self, unknowns: Tensor) -> Tensor:
        """(R, F, 3, 3)."""
        ...

    def prior(self, unknowns: Tensor) -> Tensor:
        """(B,), added to the loss."""
        ...


def main(options: Options) -> None:
    if not options.folder.is_dir():
        raise SystemExit(f"real_data: there is no {options.folder}")
    tr.init("cpu")
    torch.set_num_threads(1)
    console = Console()
    run = dino if options.what == "dino" else box
    console.print(run(options))


# Descents -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """Where a descent came to, its last loss (B,), and seconds of the processor."""

    unknowns: Tensor
    loss: Tensor
    seconds: float


def loss_of(fit: Fit, renderer: nn.Module, unknowns: Tensor, progress: float) -> Tensor:
    """(B,) 1 - IoU, averaged over views, and the prior."""
    images = renderer(fit.geometry(unknowns), None, progress, fit.views)[..., 0]
    each = tr.coverage_iou_loss(images, fit.target)
    return each.unflatten(0, (-1, fit.views)).mean(dim=1) + fit.prior(unknowns)


def size_of(fit: Fit) -> tuple[int, int]:
    return int(fit.target.shape[1]), int(fit.target.shape[2])


def sharp_alpha(fit: Fit, unknowns: Tensor) -> Tensor:
    with torch.no_grad():
        sharp = tr.SharpRasterizer(size_of(fit), near=NEAR, far=FAR, cull_backfaces=True)
        return sharp(fit.geometry(unknowns), None)[..., 0]


def untuned(fit: Fit, steps: int, policy: tr.SofteningPolicy | None) -> Done:
    """By image-space steps and a softening that is measured at the start, or guided by a policy."""
    begin = time.process_time()
    unknowns = fit.start().requires_grad_()
    drawn = sharp_alpha(fit, unknowns)
    guided = None
    if policy is None:
        start: tr.Softening = tr.untuned_softening(drawn, fit.target, fit.views)
    else:
        start = guided = tr.GuidedSoftening(policy, drawn, fit.target, fit.views)
    assert start.lr is not None
    renderer = start.renderer(size_of(fit), near=NEAR, far=FAR, cull_backfaces=True)
    optimiser = tr.ImageSteps([unknowns], fit.geometry, start.lr)
    for i in range(steps):
        progress = i / max(steps - 1, 1)
        if guided is not None and i % max(steps // 8, 1) == 0:
            guided.look(sharp_alpha(fit, unknowns))
        optimiser.zero_grad()
        loss = loss_of(fit, renderer, unknowns, progress)
        if guided is not None:
            guided.see(loss.detach(), fit.geometry(unknowns.detach()))
        loss.sum().backward()
        optimiser.step(progress)
    return done(fit, unknowns, begin)


def annealed(fit: Fit, steps: int, first: float | None, rate: float) -> Done:
    """By Adam, whose rate falls tenfold at the end; without a scale the renderer is sharp."""
    begin = time.process_time()
    size = size_of(fit)
    unknowns = fit.start().requires_grad_()
    if first is None:
        renderer: nn.Module = tr.SharpRasterizer(size, near=NEAR, far=FAR, cull_backfaces=True)
    else:
        edge = tr.Distribution("gaussian", tr.Knots([first, 0.5 / min(size)]))  # a quarter pixel
        renderer = tr.SoftRasterizer(
            size, edge, None, tr.TConorm("yager", 1.0), near=NEAR, far=FAR, cull_backfaces=True
        )
    adam = torch.optim.Adam([unknowns], betas=tr.ImageSteps.BETAS)
    for i in range(steps):
        progress = i / max(steps - 1, 1)
        adam.param_groups[0]["lr"] = rate * 0.1 ** (max(progress - 0.85, 0.0) / 0.15)
        adam.zero_grad()
        loss_of(fit, renderer, unknowns, progress).sum().backward()
        adam.step()
    return done(fit, unknowns, begin)


def done(fit: Fit, unknowns: Tensor, begin: float) -> Done:
    """The end of a descent; its loss is that of the sharp picture."""
    seconds = time.process_time() - begin
    drawn, wanted = sharp_alpha(fit, unknowns), fit.target
    loss = tr.coverage_iou_loss(drawn, wanted).unflatten(0, (-1, fit.views)).mean(dim=1)
    return Done(unknowns.detach(), loss, seconds)


def all_methods(
    fit: Fit, steps: int, judge: Callable[[Done], float], tuning: Fit | None = None
) -> dict[str, Done]:
    """Each by its name; `judge` (less is better) chooses among the tuned, on `tuning` if given."""
    untuned(fit, WARM, tr.universal_policy())  # compiles
    annealed(fit, WARM, FIRST[0], RATES[0])
    found = {
        "universal": untuned(fit, steps, tr.universal_policy()),
        "by hand": untuned(fit, steps, None),
    }
    for kind, firsts in (("annealed", FIRST), ("sharp", (None,))):
        tried: list[tuple[float, Any, float]] = []
        for first, rate in itertools.product(firsts, RATES):
            tried.append((judge(annealed(tuning or fit, steps, first, rate)), first, rate))
        _, first, rate = min(tried, key=lambda each: each[0])
        text = "" if first is None else f"Gaussian from {first:g}, "
        found[f"{kind}: {text}rate {rate:g}, best of {len(tried)}"] = annealed(
            fit, steps, first, rate
        )
    return found


# dino ---------------------------------------------------------------------------------------------


class Dino:
    """A ball, of the size that the cameras are turned towards."""

    def __init__(self, folder: Path, longest: int) -> None:
        capture = tr.load_capture(folder, masks=str(folder / "masks"))
        photos = list(capture)
        kept = [i for i in range(len(photos)) if i not in HELD_OUT]
        masks = [photo.mask() for photo in photos]
        shrink = longest / max(masks[0].shape)
        size = tuple(max(1, round(side * shrink)) for side in masks[0].shape)
        judged = tuple(4 * side for side in size)
        hull = tr.visual_hull(capture, cells=32)
        radius = 0.6 * float((hull.vertices - hull.vertices.mean(0)).norm(dim=1).max())
        ball = tr.icosphere(3, radius)
        mesh = tr.Mesh(ball.vertices + hull.vertices.mean(0).float(), ball.faces)
        self.local = LocalMesh.of(mesh, [photos[i].camera for i in kept])
        self.held_out = [photos[i].camera for i in HELD_OUT]
        self.views = len(kept)
        self.target = torch.stack([tr.area_average(masks[i][None], size)[0] for i in kept])
        self.unseen = torch.stack([tr.area_average(masks[i][None], judged)[0] for i in HELD_OUT])
        self.surface = tr.SmoothOffsets(self.local.mesh, SMOOTHING)
        self.laplacian = tr.LaplacianLoss(mesh.faces, len(mesh.vertices))

    def start(self) -> Tensor:
        return torch.zeros(1, *self.local.mesh.vertices.shape)

    def vertices(self, unknowns: Tensor) -> Tensor:
        return self.local.mesh.vertices + self.surface.smooth(unknowns)[0]

    def seen(self, unknowns: Tensor, cameras: list[tr.Camera]) -> Tensor:
        world = self.local.world(self.vertices(unknowns))
        rows = []
        for camera in cameras:
            points = camera.project(world[None])[0]
            unit = float(camera.project(self.local.centre[None, None].double())[0, 0, 2])
            rows.append(torch.cat([points[:, :2], points[:, 2:] / unit], dim=1).float())
        return tr.gather_faces(torch.stack(rows), self.local.mesh.faces)

    def geometry(self, unknowns: Tensor) -> Tensor:
        return self.seen(unknowns, self.local.cameras)

    def prior(self, unknowns: Tensor) -> Tensor:
        return LAPLACIAN * self.laplacian(self.vertices(unknowns)[None]).sum()[None]

    def iou(self, unknowns: Tensor) -> float:
        """Of the silhouettes that are held out."""
        size = int(self.unseen.shape[1]), int(self.unseen.shape[2])
        faces = self.seen(unknowns, self.held_out)
        drawn = tr.sampled_picture(faces, None, size, near=NEAR, far=FAR)[..., 0]
        both, either = (f(drawn, self.unseen).sum((1, 2)) for f in (torch.minimum, torch.maximum))
        return float((both / either).mean())


def dino(options: Options) -> Table:
    fit = Dino(options.folder, options.longest or 90)
    table = Table("softening", "held-out IoU", "IoU", "processor, s", title="dino, from a ball")
    table.add_row("the ball", f"{fit.iou(fit.start()):.3f}", "", "")
    for name, end in all_methods(fit, options.steps, lambda end: float(end.loss.mean())).items():
        cells = (f"{fit.iou(end.unknowns):.3f}", f"{1 - float(end.loss.mean()):.3f}")
        table.add_row(name, *cells, f"{end.seconds:.0f}")
    return table


# box ----------------------------------------------------------------------------------------------


class Box:
    """The box's pose from many starts side by side."""

    views = 1

    def __init__(self, folder: Path, longest: int, starts: int, seed: int) -> None:
        self.mesh = tr.load_mesh(folder / "box.ply")
        told = json.loads((folder / "truth.json").read_text())
        lens = told["intrinsics"]
        size = box_data.picture(folder / "mask.png").shape[:2]
        pose = told["pose_opencv"]
        self.truth = tr.Pose.from_rotation_vector(
            torch.tensor([pose["rotation_vector"]]).double(),
            torch.tensor([pose["translation"]]).double(),
        )
        self.camera = box_data.pinhole(size, lens)
        corners = box_data.pixels(self.mesh.vertices.numpy(), self.truth, lens)
        mask = box_data.polygon(corners, size)
        shrink = longest / max(size)
        small = tuple(max(1, round(side * shrink)) for side in size)
        mask = tr.area_average(mask[None].float(), small)
        self.target = mask.expand(starts, -1, -1).contiguous()
        self.centre, self.extent = tr.centre_and_size(self.mesh.vertices.double())
        generator = torch.Generator().manual_seed(seed)
        axes = torch.nn.functional.normalize(torch.randn(starts, 3, generator=generator), dim=1)
        turned = torch.cat([math.radians(30) * axes, torch.zeros(starts, 3)], dim=1).double()
        one = torch.zeros(starts, 1, 1, dtype=torch.float64)
        truth = tr.Pose(self.truth.rotation + one, self.truth.translation + one[..., 0])
        self.first = truth.moved(turned, self.centre, self.extent)
        self.unit = float((self.truth.rotation[0] @ self.centre[0] + self.truth.translation[0])[2])

    def start(self) -> Tensor:
        return torch.zeros(len(self.target), 6)

    def pose(self, unknowns: Tensor) -> tr.Pose:
        return self.first.moved(unknowns.double(), self.centre, self.extent)

    def geometry(self, unknowns: Tensor) -> Tensor:
        pose = self.pose(unknowns)
        points = self.mesh.vertices.double() @ pose.rotation.mT + pose.translation[:, None]
        points = points * points.new_tensor([1.0, -1.0, 1.0])  # OpenCV's y is down
        seen = self.camera.to_image(points)
        seen = torch.cat([seen[..., :2], seen[..., 2:] / self.unit], dim=-1).float()
        return tr.gather_faces(seen, self.outward)

    @property
    def outward(self) -> Tensor:
        """The faces, all wound outwards: half of the file's are not."""
        corners = self.mesh.vertices[self.mesh.faces]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        inward = (normal * (corners.mean(1) - self.centre.float())).sum(1) < 0
        return torch.where(inward[:, None], self.mesh.faces.flip(1), self.mesh.faces)

    def prior(self, unknowns: Tensor) -> Tensor:
        return torch.zeros(len(unknowns))

    def degrees(self, unknowns: Tensor) -> np.ndarray:
        """From the truth, the box's symmetries counted."""
        pose = self.pose(unknowns)
        found = []
        for i in range(len(unknowns)):
            one = tr.Pose(pose.rotation[i : i + 1], pose.translation[i : i + 1])
            near = box_data.nearest(one, self.truth, self.mesh)
            found.append(float(near.angle_to(self.truth)))
        return np.array(found)


def box(options: Options) -> Table:
    longest = options.longest or 180
    fit, tuning = Box(options.folder, longest, 20, 0), Box(options.folder, longest, 20, 1)

    def judge(end: Done) -> float:
        return float(np.log(tuning.degrees(end.unknowns) + 0.01).mean())

    table = Table("softening", "solved", "median off", "processor, s", title="box, from 30 degrees")
    for name, end in all_methods(fit, options.steps, judge, tuning).items():
        off = fit.degrees(end.unknowns)
        cells = f"{(off < 1).sum()} of {len(off)}", f"{np.median(off):.3f}°", f"{end.seconds:.1f}"
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main(tyro.cli(Options))
