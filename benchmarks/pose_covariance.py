"""Whether the covariance of a fitted pose holds the true one as often as it says.

    python benchmarks/pose_covariance.py
    python benchmarks/pose_covariance.py --poses 400 --only "mask, outline" --out coverage.png

Two boxes in random poses, with waves of colour, are drawn by `tr.sampled_picture`, and the pictures
are spoiled. Each pose is fitted from a start a few degrees and hundredths of the size away, and its
distance from the truth measured in the fit's 6 x 6 covariance (Mahalanobis). By a right covariance,
the square of that is distributed as chi-squared with 6 degrees of freedom. The shares of poses
within its regions of 50, 90 and 99% are printed; the plot has all others. What is done is in
`--done`, a file of lines, so that a run that ended goes on, and several can share the work.

    mask, pixels    Gaussian noise of 0.15 in every pixel of the coverage
    mask, outline   the outline wobbles by 0.7 pixels, alike over about 6, as a segmentation's does
    mask, binary    as `outline`, and each pixel is 0 or 1
    photo, pixels   Gaussian noise of 0.03, and another exposure
    photo, JPEG     blurred by 0.7 pixels, noise that neighbours share, JPEG of quality 75
    depth, pixels   Gaussian noise of 1% of the size
    depth, smooth   the same, alike over about 4 pixels; something hides a part of it
    mixed           `mask, binary`, `photo, JPEG` and `depth, smooth` together
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
import tyro
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.stats import chi2
from torch import Tensor

import taichi_raster as tr

SIZE = (120, 160)
REGIONS = (0.5, 0.9, 0.99)
KINDS = (
    "mask, pixels",
    "mask, outline",
    "mask, binary",
    "photo, pixels",
    "photo, JPEG",
    "depth, pixels",
    "depth, smooth",
    "mixed",
)


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        poses: of each kind.
        only: some of the kinds.
        seed: of poses and noise.
        out: where the plot goes.
        done: a line for each pose that was fitted.
    """

    poses: int = 200
    only: tuple[str, ...] = KINDS
    seed: int = 0
    out: Path = Path("pose_covariance.png")
    done: Path = Path("pose_covariance.jsonl")


def thing() -> tr.Mesh:
    """Two boxes of different sizes, with waves of colour."""
    one, two = tr.box(0.8, 0.5, 0.35), tr.box(0.3, 0.25, 0.5)
    corner = torch.tensor([0.35, 0.3, 0.2])
    faces = torch.cat([one.faces, two.faces + len(one.vertices)])
    mesh = tr.Mesh(torch.cat([one.vertices, two.vertices + corner]), faces)
    for _ in range(2):
        mesh = tr.subdivide(mesh)
    p = mesh.vertices
    waves = [torch.sin(9 * p[:, i] + 5 * p[:, (i + 1) % 3]) for i in range(3)]
    return tr.Mesh(p, mesh.faces, colours=0.5 + 0.4 * torch.stack(waves, dim=1))


def camera() -> tr.PinholeCamera:
    flipped = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0])).double()[None]
    return tr.PinholeCamera(flipped, focal=(2.6, 2.5), principal=(0.1, -0.05))


@dataclass(frozen=True)
class Clean:
    """What a perfect camera sees: (H, W, 3), (H, W) at four times the size, (H, W)."""

    photo: Tensor
    large: Tensor
    depth: Tensor


def clean(mesh: tr.Mesh, pose: tr.Pose) -> Clean:
    seen = product(pose, mesh.vertices)
    points = camera().project(seen[None]).float()
    assert mesh.colours is not None
    faces, colours = (tr.gather_faces(x, mesh.faces) for x in (points, mesh.colours[None]))
    photo = tr.sampled_picture(faces, colours, SIZE, 8, 0.3)[0, ..., :3]
    large = tr.sampled_picture(faces, None, (4 * SIZE[0], 4 * SIZE[1]), 4)[0, ..., 0]
    buffers = tr.hard_buffers(faces, SIZE)
    one_over = (1 / points[0, :, 2])[mesh.faces[buffers.face[0].clamp(min=0)]]
    depth = 1 / (buffers.barycentrics[0] * one_over).sum(-1)
    return Clean(photo, large, torch.where(buffers.face[0] >= 0, depth, 0.0))


def product(pose: tr.Pose, points: Tensor) -> Tensor:
    return points.double() @ pose.rotation[0].double().T + pose.translation[0].double()


def spoiled(kind: str, seen: Clean, rng: np.random.Generator) -> dict[str, Tensor]:
    """The arguments of `fit_pose`."""
    given: dict[str, Tensor] = {}
    mixed = kind == "mixed"
    if kind == "mask, pixels":
        mask = tr.area_average(seen.large[None], SIZE)[0]
        given["mask"] = mask + 0.15 * torch.from_numpy(rng.normal(size=SIZE)).float()
    elif kind.startswith("mask") or mixed:
        given["mask"] = wobbled(seen.large, rng)
        if kind != "mask, outline":
            given["mask"] = (given["mask"] > 0.5).float()
    if kind == "photo, pixels":
        noise = torch.from_numpy(rng.normal(size=(*SIZE, 3))).float()
        given["photo"] = 0.1 + 0.7 * seen.photo + 0.03 * noise
    elif kind.startswith("photo") or mixed:
        given["photo"] = compressed(0.1 + 0.7 * seen.photo, rng)
    if kind.startswith("depth") or mixed:
        noise = rng.normal(size=SIZE)
        if kind != "depth, pixels":
            noise = gaussian_filter(noise, 2.0) * 2 * 2.0 * math.sqrt(math.pi)
        found = seen.depth + 0.005 * torch.from_numpy(noise).float() * (seen.depth > 0)
        if kind != "depth, pixels":
            row, column = (int(rng.uniform(0, 0.7 * n)) for n in SIZE)
            found[row : row + 38, column : column + 50] = 1.5
        given["depth"] = found
    return given


def wobbled(large: Tensor, rng: np.random.Generator) -> Tensor:
    """The coverage with its outline moved by a smooth random field, from four times the size."""
    shape, width = large.shape, 4 * 3.0
    scale = 4 * 0.7 * 2 * width * math.sqrt(math.pi)
    moves = [scale * gaussian_filter(rng.normal(size=shape), width) for _ in range(2)]
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    found = map_coordinates(large.numpy(), [rows + moves[0], columns + moves[1]], order=1)
    return tr.area_average(torch.from_numpy(found)[None], SIZE)[0]


def compressed(photo: Tensor, rng: np.random.Generator) -> Tensor:
    noise = gaussian_filter(rng.normal(size=photo.shape), (0.7, 0.7, 0)) * 2 * 0.7 * 1.77
    blurred = gaussian_filter(photo.numpy(), (0.7, 0.7, 0)) + 0.03 * noise
    file = io.BytesIO()
    Image.fromarray((255 * blurred.clip(0, 1)).round().astype(np.uint8)).save(
        file, "JPEG", quality=75, subsampling=0
    )
    return torch.from_numpy(np.asarray(Image.open(file)).copy()).float() / 255


def random_pose(rng: np.random.Generator) -> tr.Pose:
    turn = torch.from_numpy(rng.normal(size=4))
    place = torch.from_numpy(np.array([0.0, 0.0, 2.1]) + 0.1 * rng.uniform(-1, 1, 3))
    return tr.Pose.from_quaternion(turn, place, order="xyzw")


def distance(fit: tr.PoseFit, truth: tr.Pose, centre: Tensor) -> float:
    """The square of Mahalanobis' distance of the truth."""
    turn = roma.rotmat_to_rotvec(fit.pose.rotation[0] @ truth.rotation[0].double().T)
    shift = (product(fit.pose, centre[None]) - product(truth, centre[None]))[0]
    off = torch.cat([turn, shift])
    return float(off @ torch.linalg.solve(fit.covariance, off))


def main(options: Options) -> None:
    tr.init("cpu")
    torch.set_num_threads(1)
    mesh = thing()
    centre, size = tr.centre_and_size(mesh.vertices.double())
    before = read(options.done, options.seed)
    found: dict[str, list[float]] = {kind: [] for kind in options.only}
    for kind in options.only:
        ended: list[bool] = []
        for i in range(options.poses):
            if (kind, i) not in before:
                rng = np.random.default_rng([options.seed, KINDS.index(kind), i])
                truth = random_pose(rng)
                given = spoiled(kind, clean(mesh, truth), rng)
                away = 0.03 * torch.from_numpy(rng.uniform(-1, 1, 6))[None]
                start = truth.moved(away, centre, size)
                fit = tr.fit_pose(mesh, camera(), start=start, starts=1, **given)
                before[kind, i] = distance(fit, truth, centre[0]), fit.converged
                with options.done.open("a") as file:
                    line = [options.seed, kind, i, *before[kind, i]]
                    file.write(json.dumps(line) + "\n")
            square, converged = before[kind, i]
            found[kind].append(square)
            ended.append(converged)
            if i + 1 == options.poses or (i + 1) % 50 == 0:
                report(kind, np.array(found[kind]), np.array(ended))
    plot(found, options.out)


def read(path: Path, seed: int) -> dict[tuple[str, int], tuple[float, bool]]:
    """What an earlier run has done."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {
        (kind, i): (square, converged)
        for its, kind, i, square, converged in map(json.loads, lines)
        if its == seed
    }


def report(kind: str, squares: np.ndarray, ended: np.ndarray) -> None:
    """Of all poses, and of those that are called converged."""

    def shares(some: np.ndarray) -> str:
        within = [float((some <= chi2.ppf(p, 6)).mean()) for p in REGIONS] if len(some) else []
        return ", ".join(f"{s:.1%} within {p:.0%}" for p, s in zip(REGIONS, within, strict=False))

    print(f"{kind}: {shares(squares)}; median {np.median(squares):.2f} (5.35)")
    print(f"    {ended.sum()} of {len(ended)} converged: {shares(squares[ended])}", flush=True)


def plot(found: dict[str, list[float]], path: Path) -> None:
    nominal = np.linspace(0.01, 0.99, 99)
    figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    axes.plot([0.9, 0.9], [0.85, 0.95], color="0.3", linewidth=4, alpha=0.5)
    for kind, squares in found.items():
        inside = np.array(squares)[:, None] <= chi2.ppf(nominal, 6)
        axes.plot(nominal, inside.mean(0), label=kind)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="region of the covariance",
        ylabel="share of true poses within",
        title="Poses within the regions of their covariance",
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options))
