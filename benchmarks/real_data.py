"""Real photos: the softening for all problems, beside the best of some annealed ones.

    python benchmarks/real_data.py dino shared/data/dino
    python benchmarks/real_data.py box shared/data/box
    python benchmarks/real_data.py chess shared/data/chess
    python benchmarks/real_data.py hand shared/data/hand

dino: a ball becomes the toy dinosaur by the silhouettes of 32 photos (90 x 72 pixels), so that
limbs have to grow. Judged by the four photos that are held out, at four times the size.

box: the pose of the printed box by its mask, 180 pixels wide, from starts that are 30 degrees off.
The mask is drawn from the pose that comes with the data, see `box.py`; solved is within a degree.

chess: the pose of OpenCV's chessboard in 13 photos, 96 pixels wide, by its squares and its
outline, which is drawn from OpenCV's calibration. Each start is 20 degrees off and a square beside;
solved is within a degree of the calibration.

hand: DEODR's hand deforms until its depths are those of its depth map, in 100 x 100 pixels. Judged
in 200 x 200: by the depth's error where both see the hand, and by the silhouettes.

All take the same number of steps with the same loss. The annealed Gaussians are tuned: the best of
eight, scale and learning rate, by the loss that is left (dino, hand) or by other starts (box,
chess). They stand beside the start by hand, and the policy, `tr.universal_policy()`, which nothing
tunes. "sharp" is no softness at all, with its learning rate tuned the same way. Seconds are those
of the processor, of the one run that is reported, once kernels are compiled.

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
import hand as hand_data
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation
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
DEFORMATION = 0.03
SQUARE = 0.025  # metres


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        what: which data.
        folder: of the data.
        steps: of each descent.
        longest: side of the pictures in pixels, at most; by default 90 for dino, 180 for box, 96
            for chess and 100 for hand.
    """

    what: Positional[Literal["dino", "box", "chess", "hand"]]
    folder: Positional[Path]
    steps: int = STEPS
    longest: int | None = None


class Fit(Protocol):
    """A problem: B descents side by side, of R = views times B pictures."""

    views: int
    background: float
    target: Tensor
    """(R, H, W): coverage."""

    def shown(self, faces: Tensor) -> Tensor | None:
        """(R, F, 3, C) colours of the faces' corners, if it goes by them."""
        ...

    def mismatch(self, images: Tensor) -> Tensor:
        """(R,), of pictures (R, H, W, C + 1)."""
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
    runs = {"dino": dino, "box": box, "chess": chess, "hand": hand}
    console.print(runs[options.what](options))


# Descents -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """Where a descent came to, its last loss (B,), and seconds of the processor."""

    unknowns: Tensor
    loss: Tensor
    seconds: float


def loss_of(fit: Fit, renderer: nn.Module, unknowns: Tensor, progress: float) -> Tensor:
    """(B,) the mismatch, averaged over views, and the prior."""
    faces = fit.geometry(unknowns)
    each = fit.mismatch(renderer(faces, fit.shown(faces), progress, fit.views))
    return each.unflatten(0, (-1, fit.views)).mean(dim=1) + fit.prior(unknowns)


def options_of(fit: Fit) -> dict[str, Any]:
    """Of a renderer."""
    return {
        "image_size": size_of(fit),
        "background": fit.background,
        "near": NEAR,
        "far": FAR,
        "cull_backfaces": True,
    }


def size_of(fit: Fit) -> tuple[int, int]:
    return int(fit.target.shape[1]), int(fit.target.shape[2])


def sharp_alpha(fit: Fit, unknowns: Tensor) -> Tensor:
    with torch.no_grad():
        return tr.SharpRasterizer(**options_of(fit))(fit.geometry(unknowns), None)[..., 0]


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
    renderer = start.renderer(**options_of(fit))
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
    unknowns = fit.start().requires_grad_()
    if first is None:
        renderer: nn.Module = tr.SharpRasterizer(**options_of(fit))
    else:
        last = 0.5 / min(size_of(fit))  # a quarter pixel
        edge = tr.Distribution("gaussian", tr.Knots([first, last]))
        renderer = tr.SoftRasterizer(edge=edge, alpha=tr.TConorm("yager", 1.0), **options_of(fit))
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
    with torch.no_grad():
        loss = loss_of(fit, tr.SharpRasterizer(**options_of(fit)), unknowns, 1.0)
        loss -= fit.prior(unknowns)
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


class Outlines:
    """A fit that goes by coverage alone."""

    background = 0.0
    target: Tensor

    def shown(self, faces: Tensor) -> Tensor | None:
        return None

    def mismatch(self, images: Tensor) -> Tensor:
        return tr.coverage_iou_loss(images[..., 0], self.target)


# dino ---------------------------------------------------------------------------------------------


class Dino(Outlines):
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


class Posed:
    """Poses of a mesh before a camera, from starts that are off, side by side."""

    views = 1
    mesh: tr.Mesh
    camera: tr.PinholeCamera
    truth: tr.Pose
    first: tr.Pose

    def place(self, starts: tr.Pose, degrees: float, seed: int) -> None:
        """Set the starts: so many degrees from poses, in random directions."""
        count = len(starts.rotation)
        generator = torch.Generator().manual_seed(seed)
        axes = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
        turned = torch.cat([math.radians(degrees) * axes, torch.zeros(count, 3)], dim=1).double()
        self.centre, self.extent = tr.centre_and_size(self.mesh.vertices.double())
        self.first = starts.moved(turned, self.centre, self.extent)
        middle = starts.rotation @ self.centre[0] + starts.translation
        self.unit = float(middle[:, 2].mean())

    def start(self) -> Tensor:
        return torch.zeros(len(self.first.rotation), 6)

    def pose(self, unknowns: Tensor) -> tr.Pose:
        return self.first.moved(unknowns.double(), self.centre, self.extent)

    def geometry(self, unknowns: Tensor) -> Tensor:
        return self.seen(self.pose(unknowns))

    def seen(self, pose: tr.Pose) -> Tensor:
        points = self.mesh.vertices.double() @ pose.rotation.mT + pose.translation[:, None]
        points = points * points.new_tensor([1.0, -1.0, 1.0])  # OpenCV's y is down
        seen = self.camera.to_image(points)
        seen = torch.cat([seen[..., :2], seen[..., 2:] / self.unit], dim=-1).float()
        return tr.gather_faces(seen, self.faces)

    @property
    def faces(self) -> Tensor:
        return self.mesh.faces

    def prior(self, unknowns: Tensor) -> Tensor:
        return torch.zeros(len(unknowns))


def copies(pose: tr.Pose, count: int) -> tr.Pose:
    rotation, translation = pose.rotation, pose.translation
    return tr.Pose(rotation.expand(count, -1, -1), translation.expand(count, -1))


class Box(Posed, Outlines):
    """The box's pose from many starts side by side."""

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
        self.place(copies(self.truth, starts), 30.0, seed)

    @property
    def faces(self) -> Tensor:
        """All wound outwards: half of the file's are not."""
        corners = self.mesh.vertices[self.mesh.faces]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        inward = (normal * (corners.mean(1) - self.centre.float())).sum(1) < 0
        return torch.where(inward[:, None], self.mesh.faces.flip(1), self.mesh.faces)

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
    return poses(fit, tuning, options.steps, "box, from 30 degrees")


def poses(fit: Box | Chess, tuning: Box | Chess, steps: int, title: str) -> Table:
    def judge(end: Done) -> float:
        return float(np.log(tuning.degrees(end.unknowns) + 0.01).mean())

    table = Table("softening", "solved", "median off", "processor, s", title=title)
    for name, end in all_methods(fit, steps, judge, tuning).items():
        off = fit.degrees(end.unknowns)
        cells = f"{(off < 1).sum()} of {len(off)}", f"{np.median(off):.3f}°", f"{end.seconds:.1f}"
        table.add_row(name, *cells)
    return table


# chess --------------------------------------------------------------------------------------------


def board() -> tuple[tr.Mesh, Tensor]:
    """OpenCV's board of 10 x 7 squares, its first inner corner at the origin, with a margin of half
    a square: two faces for each, and their colours.
    """
    x = torch.tensor([-1.5, *range(-1, 10), 9.5])
    y = torch.tensor([-1.5, *range(-1, 7), 6.5])
    at = torch.stack(torch.meshgrid(x, y, indexing="ij"), dim=-1).reshape(-1, 2)
    columns, rows = len(x) - 1, len(y) - 1
    first = (torch.arange(columns)[:, None] * len(y) + torch.arange(rows)).reshape(-1, 1)
    corners = torch.tensor([0, len(y), len(y) + 1]), torch.tensor([0, len(y) + 1, 1])
    colours = torch.ones(columns, rows)
    dark = (torch.arange(columns - 2)[:, None] + torch.arange(rows - 2)) % 2 == 0
    colours[1:-1, 1:-1][dark] = 0.05
    mesh = tr.Mesh(
        SQUARE * torch.nn.functional.pad(at, (0, 1)), torch.cat([first + c for c in corners])
    )
    return mesh, colours.reshape(-1).repeat(2)


class Chess(Posed):
    """The chessboard's pose in each photo, by the colours of its squares and by its outline."""

    background = 0.0

    def __init__(self, folder: Path, longest: int, seed: int) -> None:
        shots = list(tr.load_capture(folder))
        (self.mesh, self.colours), self.camera = board(), shots[0].camera
        self.truth = tr.Pose(
            torch.cat([shot.pose.rotation for shot in shots]),
            torch.cat([shot.pose.translation for shot in shots]),
        )
        generator = torch.Generator().manual_seed(100 + seed)
        beside = torch.randn(len(shots), 3, generator=generator).double()
        beside = SQUARE * torch.nn.functional.normalize(beside, dim=1)
        self.place(tr.Pose(self.truth.rotation, self.truth.translation + beside), 20.0, seed)
        photos = torch.stack([shot.image().mean(-1) for shot in shots])
        size = tuple(photos.shape[1:])
        shrink = longest / max(size)
        small = tuple(max(1, round(side * shrink)) for side in size)
        faces = self.seen(self.truth)
        self.target = tr.SharpRasterizer(small, near=NEAR, far=FAR)(faces, None)[..., 0]
        within = tr.SharpRasterizer(size, near=NEAR, far=FAR)(faces, None)[..., 0]
        for photo, inside in zip(photos, within, strict=True):
            dark, bright = photo[inside > 0.99].quantile(torch.tensor([0.1, 0.9]))
            photo -= dark
            photo /= bright - dark
        self.photos = tr.area_average(photos.clamp(0, 1) * within, small)

    @property
    def faces(self) -> Tensor:
        """Wound so that the board's printed side is the front."""
        return self.mesh.faces.flip(1)

    def shown(self, faces: Tensor) -> Tensor:
        return self.colours[None, :, None, None].expand(len(faces), -1, 3, 1)

    def mismatch(self, images: Tensor) -> Tensor:
        squared = (images[..., 0] - self.photos).square().sum((1, 2)) / self.target.sum((1, 2))
        return tr.coverage_iou_loss(images[..., 1], self.target) + squared

    def degrees(self, unknowns: Tensor) -> np.ndarray:
        """From the calibration."""
        return self.pose(unknowns).angle_to(self.truth).numpy()


def chess(options: Options) -> Table:
    longest = options.longest or 96
    fit, tuning = Chess(options.folder, longest, 0), Chess(options.folder, longest, 1)
    return poses(fit, tuning, options.steps, "chess, from 20 degrees and a square beside")


# hand ---------------------------------------------------------------------------------------------


class Hand:
    """DEODR's hand, at its start, and the depth map: 1 is the background."""

    views = 1
    background = 1.0

    def __init__(self, folder: Path, side: int) -> None:
        image = hand_data.depth_map(folder)
        self.judged = torch.from_numpy(image).float()[None]
        self.depths = tr.area_average(self.judged, side)
        self.target = tr.area_average((self.judged < 1).float(), side)
        mesh = tr.load_mesh(folder / "hand.obj", merge=False)
        rest = mesh.vertices.double().numpy()
        # Where DEODR's example has its camera.
        eye = rest.mean(0) + rest.std(0).max() * np.array([-0.5, 0.0, 5.0])
        self.camera = hand_data.camera_at(eye, len(image))
        turned = Rotation.from_euler("zyx", hand_data.EULER).apply(rest - rest.mean(0))
        self.mesh = tr.Mesh(torch.from_numpy(turned).float(), mesh.faces)
        self.unit = 1 / hand_data.SCALE
        self.surface = tr.SmoothOffsets(self.mesh, SMOOTHING)
        self.laplacian = tr.LaplacianLoss(mesh.faces, len(rest))

    def start(self) -> Tensor:
        return torch.zeros(1, *self.mesh.vertices.shape)

    def geometry(self, unknowns: Tensor) -> Tensor:
        vertices = self.mesh.vertices + self.surface.smooth(unknowns)
        seen = self.camera.project(vertices.double())
        seen = torch.cat([seen[..., :2], seen[..., 2:] / self.unit], dim=-1).float()
        return tr.gather_faces(seen, self.mesh.faces)

    def prior(self, unknowns: Tensor) -> Tensor:
        moved = self.surface.smooth(unknowns)  # of the change alone: the hand has its own shape
        return DEFORMATION * self.laplacian(moved).sum(-1).reshape(1)

    def shown(self, faces: Tensor) -> Tensor:
        return faces[..., 2:]

    def mismatch(self, images: Tensor) -> Tensor:
        error = images[..., 0].clamp(max=1) - self.depths
        return error.square().sum((1, 2)) / self.target.sum((1, 2))

    def errors(self, unknowns: Tensor) -> tuple[float, float]:
        """(millimetres where both see the hand, IoU of the silhouettes)."""
        size = int(self.judged.shape[1]), int(self.judged.shape[2])
        faces = self.geometry(unknowns)
        hard = tr.hard_buffers(faces, size, near=NEAR, far=FAR, cull_backfaces=True)
        ours, theirs = hard.face >= 0, self.judged < 1
        error = hand_data.MILLIMETRES * (hard.depth - self.judged).abs()[ours & theirs].mean()
        return float(error), float((ours & theirs).sum() / (ours | theirs).sum())


def hand(options: Options) -> Table:
    fit = Hand(options.folder, options.longest or 100)
    columns = "softening", "depths off, mm", "IoU", "processor, s"
    table = Table(*columns, title="hand, by its depths")

    def cells(unknowns: Tensor) -> tuple[str, str]:
        off, iou = fit.errors(unknowns)
        return f"{off:.2f}", f"{iou:.3f}"

    table.add_row("the start", *cells(fit.start()), "")
    for name, end in all_methods(fit, options.steps, lambda end: float(end.loss.mean())).items():
        table.add_row(name, *cells(end.unknowns), f"{end.seconds:.1f}")
    return table


if __name__ == "__main__":
    main(tyro.cli(Options))
