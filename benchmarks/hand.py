"""A hand fitted to a depth map: DEODR's own example, and the same with this package, in one run.

    python benchmarks/hand.py FOLDER            # FOLDER has hand.obj and depth.bin, of DEODR's data

It needs deodr (pip install 'taichi-raster[peers]'). DEODR's example, `depth_image_hand_fitting`,
descends by momentum, 300 steps: the sum of squares of the depth's differences, each at most 1, plus
a thousand times the squared change of the Laplacian, which the hand's pose does not count in.

Ours minimises the same energy, by Gauss-Newton steps. Values and gradients are those of
`SharpRasterizer`; the matrix is put together here, of the pixels within faces and of the outline.
Both results are judged by DEODR's renderer: depth errors in millimetres, and the silhouettes'
intersection over union. Times are taken in turn, the least of `repeats`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from elastic_surface import RIGIDITY, Surface, band, in_turn, motions, outline_blocks, summed
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

MILLIMETRES = 450.0
"""What 1 in the depth map stands for: the background."""

SCALE = 110 / MILLIMETRES
"""From the mesh's units to those of the depth map."""

LEVELS = ((50, 2.5, 8), (100, 2.0, 4), (200, 0.0, 5))
"""Pixels on a side; the Gaussian, in these, that the differences are blurred by; steps."""

RIGID = 4
"""Steps of the pose alone, at first."""

LITTLE = 0.01
"""Of the energy: two steps that gain less end a level."""

EULER = (0.1, 0.1, 0.1)


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        folder: of the data.
        repeats: runs of each.
        out: a picture of the depth maps: given, DEODR's, ours.
    """

    folder: Positional[Path]
    repeats: int = 3
    out: Path = Path("out/hand.png")


def main(options: Options) -> None:
    tr.init("cpu")
    torch.set_num_threads(1)
    image = depth_map(options.folder)
    mesh = tr.load_mesh(options.folder / "hand.obj", merge=False)
    problem = Problem(image, mesh)
    problem.fit()  # compiles
    methods: dict[str, Callable[[], np.ndarray]] = {
        "DEODR, 300 steps": problem.deodr,
        "ours": problem.fit,
    }
    maps = [image]
    for name, (vertices, wall, processor) in in_turn(methods, options.repeats).items():
        text, drawn = problem.judged(vertices)
        maps.append(drawn)
        print(f"{name}: {wall:.2f} s, {processor:.2f} s of processor; {text}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shown = (255 * np.clip((np.concatenate(maps, axis=1) - 0.4) / 0.6, 0, 1)).astype(np.uint8)
    Image.fromarray(shown).resize((3 * shown.shape[1], 3 * shown.shape[0])).save(options.out)


def depth_map(folder: Path) -> np.ndarray:
    """(200, 200), as DEODR's example takes it: 1 is the background."""
    image = np.fromfile(folder / "depth.bin", dtype=np.float32).reshape(240, 320)
    image = np.fliplr(image)[20:-20, 60:-60].astype(np.float64)
    return np.where(image == 0, MILLIMETRES, image) / MILLIMETRES


def camera_at(eye: np.ndarray, side: int) -> tr.PinholeCamera:
    """DEODR's camera for the depth map, which has so many pixels on a side."""
    turn = np.diag([1.0, -1.0, -1.0])
    pose = tr.Pose(torch.from_numpy(turn), torch.from_numpy(-turn @ eye))
    lens = tr.BrownConradyLens.from_opencv([1.0, 0.0, 0.0, 0.0, 0.0])
    # Its pixels have their centres at whole numbers.
    focal, middle = 2 * 241 / side, 1 / side
    return tr.PinholeCamera(pose.view, (focal, focal), (middle, -middle), lens=lens)


@dataclass(frozen=True, eq=False)
class Level:
    """The depth map in fewer pixels, and what differences are multiplied by from both sides."""

    side: int
    steps: int
    target: Tensor
    renderer: tr.SharpRasterizer
    band: Tensor | None
    reach: float
    weight: float

    @staticmethod
    def of(image: np.ndarray, side: int, blur: float, steps: int) -> Level:
        target = tr.area_average(torch.from_numpy(image).float()[None], side)[0]
        renderer = tr.SharpRasterizer(
            side, background=1.0, perspective_correct=False, cull_backfaces=True
        )
        return Level(
            side,
            steps,
            target,
            renderer,
            band(side, blur) if blur > 0 else None,
            4 * max(blur, 1.0),
            (len(image) / side) ** 2,
        )


class Problem:
    """The depth map, the hand, and DEODR's camera."""

    def __init__(self, image: np.ndarray, mesh: tr.Mesh) -> None:
        self.image = image
        self.rest, self.faces = mesh.vertices.double().numpy(), mesh.faces
        fitter = self.fitter()
        self.surface = Surface(self.rest, mesh.faces.numpy(), fitter.mesh.adjacencies.laplacian)
        self.camera = camera_at(fitter.camera_center, len(image))
        self.levels = [Level.of(image, *level) for level in LEVELS]

    # DEODR ---------------------------------------------------------------------------------------

    def fitter(self) -> Any:
        from deodr.mesh_fitter import MeshDepthFitter

        vertices, faces = self.rest.copy(), self.faces.numpy().astype(np.uint32)
        fitter = MeshDepthFitter(vertices, faces, np.array(EULER), np.zeros(3), cregu=RIGIDITY)
        fitter.set_image(self.image, focal=241, distortion=np.array([1, 0, 0, 0, 0]))
        fitter.set_max_depth(1)
        fitter.set_depth_scale(SCALE)
        return fitter

    def deodr(self) -> np.ndarray:
        """The world's vertices after DEODR's example."""
        fitter = self.fitter()
        with contextlib.redirect_stdout(io.StringIO()):
            for _ in range(300):
                fitter.step()
        turn = Rotation.from_quat(fitter.transform_quaternion)
        centred = fitter.vertices - fitter.vertices.mean(axis=0)  # as its next step would
        return np.asarray(turn.apply(centred) + fitter.transform_translation)

    def judged(self, vertices: np.ndarray) -> tuple[str, np.ndarray]:
        """By DEODR's renderer."""
        fitter = self.fitter()
        fitter.transform_quaternion = np.array([0.0, 0.0, 0.0, 1.0])
        fitter.vertices = vertices
        drawn = fitter.render()[:, :, 0]
        error = np.abs(drawn - self.image)
        ours, theirs = drawn < 1, self.image < 1
        rigid = self.surface.rigid(vertices)[0]
        data = float((error**2).sum())
        iou = (ours & theirs).sum() / (ours | theirs).sum()
        return (
            f"energy {data + rigid:.1f} ({data:.1f} of depths, {rigid:.1f} of deformation); depth "
            f"error in the hand {MILLIMETRES * error[theirs].mean():.2f} mm, where both are "
            f"{MILLIMETRES * error[ours & theirs].mean():.2f} mm; silhouette IoU {iou:.4f}"
        ), drawn

    # Ours ----------------------------------------------------------------------------------------

    def fit(self) -> np.ndarray:
        """Gauss-Newton steps of the world's vertices; at first of the pose alone."""
        turn = Rotation.from_euler("zyx", EULER)
        vertices = turn.apply(self.rest - self.rest.mean(0))
        for level in self.levels:
            vertices = self.descended(vertices, level)
        return np.asarray(vertices)

    def descended(self, vertices: np.ndarray, level: Level) -> np.ndarray:
        energy, gradient, drawn = self.evaluated(vertices, level)
        reach, since = level.reach, 0
        for i in range(level.steps):
            matrix = self.curvature(vertices, drawn, level, reach)
            if level is self.levels[0] and i < RIGID:
                steps = self.surface.pose_steps(vertices, matrix)
            else:
                steps = self.surface.steps(vertices, matrix)
            step, _ = steps(gradient, np.zeros(0))
            new = self.evaluated(vertices + step, level)
            if new[0] < energy:
                since = since + 1 if energy - new[0] < LITTLE * energy else 0
                vertices, (energy, gradient, drawn) = vertices + step, new
                reach *= 1.4
                if since == 2:
                    break
            else:
                reach /= 3
                if reach < 0.1:
                    break
        return vertices

    def evaluated(self, vertices: np.ndarray, level: Level) -> tuple[float, np.ndarray, np.ndarray]:
        """(energy, gradient by the world's vertices, the depth map)."""
        moved = torch.from_numpy(vertices).requires_grad_()
        faces = self.seen(moved)
        drawn = level.renderer(faces, SCALE * faces[..., 2:])[0, ..., 0].clamp(max=1)
        error = drawn - level.target
        if level.band is not None:
            error = level.band @ error @ level.band
        data = level.weight * error.square().sum()
        data.backward()
        rigid, slope, _ = self.surface.rigid(vertices)
        assert moved.grad is not None
        return float(data.detach()) + rigid, moved.grad.numpy() + slope, drawn.detach().numpy()

    def seen(self, vertices: Tensor) -> Tensor:
        return tr.gather_faces(self.camera.project(vertices[None]), self.faces).float()

    def curvature(self, vertices: np.ndarray, drawn: np.ndarray, level: Level, reach: float) -> Any:
        """The data's Gauss-Newton matrix, (3 V, 3 V), of pixels within faces and of the outline.

        The outline's part is that of a picture that is blurred over so many pixels.
        """
        seen, chain = motions(self.camera, vertices)
        place, faces = seen.numpy(), self.faces.numpy()
        corners = place[faces]
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
        safe = np.where(np.abs(area) > 1e-12, area, 1e-12)
        across = (one[:, 2] * two[:, 1] - two[:, 2] * one[:, 1]) / safe  # slopes of the depth
        down = (two[:, 2] * one[:, 0] - one[:, 2] * two[:, 0]) / safe
        rows = SCALE * np.stack([-across, -down, np.ones(len(faces))], axis=1)
        rows = np.clip(rows, -1, 1)
        hard = tr.hard_buffers(seen[self.faces][None].float(), level.side, cull_backfaces=True)
        hit = (hard.face[0] >= 0) & (hard.depth[0] * SCALE < 1)
        face, weight = hard.face[0][hit].numpy(), hard.barycentrics[0][hit].double().numpy()
        mass = np.zeros((len(faces), 3, 3))
        np.add.at(mass, face, 2 * level.weight * weight[:, :, None] * weight[:, None])
        used = np.unique(face)
        slopes = np.einsum("fa,fiab->fib", rows[used], chain[faces[used]])  # (f, corner, world)
        inner = mass[used][:, :, None, :, None] * np.einsum("fia,fjb->fiajb", slopes, slopes)
        seen_depths = place * np.array([1.0, 1.0, SCALE])
        outline = self.surface.outline(seen_depths, drawn, near=0.05, gap=0.01)
        jump = level.weight * (drawn[outline.outer] - drawn[outline.inner]) ** 2
        edges = outline_blocks(outline, chain[:, :2], jump, 2 / level.side, reach)
        return summed([(faces[used], inner), (outline.edges, edges)], len(vertices))


if __name__ == "__main__":
    main(tyro.cli(Options))
