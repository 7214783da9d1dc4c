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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import tyro
from PIL import Image
from scipy.sparse.linalg import splu
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

RIGIDITY = 1000.0
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
    image = np.fromfile(options.folder / "depth.bin", dtype=np.float32).reshape(240, 320)
    image = np.fliplr(image)[20:-20, 60:-60].astype(np.float64)
    image = np.where(image == 0, MILLIMETRES, image) / MILLIMETRES
    mesh = tr.load_mesh(options.folder / "hand.obj", merge=False)
    problem = Problem(image, mesh)
    problem.fit()  # compiles
    methods: dict[str, Callable[[], np.ndarray]] = {
        "DEODR, 300 steps": problem.deodr,
        "ours": problem.fit,
    }
    times: dict[str, tuple[float, float]] = {}
    found: dict[str, np.ndarray] = {}
    for _ in range(options.repeats):
        for name, run in methods.items():
            begin = time.perf_counter(), time.process_time()
            found[name] = run()
            taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
            least = times.get(name, taken)
            times[name] = min(taken[0], least[0]), min(taken[1], least[1])
    maps = [image]
    for name, vertices in found.items():
        text, drawn = problem.judged(vertices)
        maps.append(drawn)
        wall, processor = times[name]
        print(f"{name}: {wall:.2f} s, {processor:.2f} s of processor; {text}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shown = (255 * np.clip((np.concatenate(maps, axis=1) - 0.4) / 0.6, 0, 1)).astype(np.uint8)
    Image.fromarray(shown).resize((3 * shown.shape[1], 3 * shown.shape[0])).save(options.out)


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
        places = torch.arange(side)
        band = torch.exp(-((places[:, None] - places) ** 2) / (2 * max(blur, 0.1) ** 2))
        renderer = tr.SharpRasterizer(
            side, background=1.0, perspective_correct=False, cull_backfaces=True
        )
        return Level(
            side,
            steps,
            target,
            renderer,
            band / band.sum(1).max() if blur > 0 else None,
            4 * max(blur, 1.0),
            (len(image) / side) ** 2,
        )


class Problem:
    """The depth map, the hand, and DEODR's camera."""

    def __init__(self, image: np.ndarray, mesh: tr.Mesh) -> None:
        self.image = image
        self.rest, self.faces = mesh.vertices.double().numpy(), mesh.faces
        fitter = self.fitter()
        self.laplacian: Any = fitter.mesh.adjacencies.laplacian.tocsc()
        self.stiff = sp.kron(RIGIDITY * (self.laplacian.T @ self.laplacian), sp.eye(3))
        turn = np.diag([1.0, -1.0, -1.0])
        pose = tr.Pose(torch.from_numpy(turn), torch.from_numpy(-turn @ fitter.camera_center))
        lens = tr.BrownConradyLens.from_opencv([1.0, 0.0, 0.0, 0.0, 0.0])
        # Its pixels have their centres at whole numbers.
        focal, middle = 2 * 241 / len(image), 1 / len(image)
        self.camera = tr.PinholeCamera(pose.view, (focal, focal), (middle, -middle), lens=lens)
        self.levels = [Level.of(image, *level) for level in LEVELS]
        edges = np.sort(self.faces.numpy()[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        self.edges, which = np.unique(edges, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        first = np.searchsorted(which.ravel()[order], np.arange(len(self.edges)))
        count = np.bincount(which.ravel())
        self.sides = np.stack(  # of each edge, one face and the other: the same at a border
            [order[first] // 3, order[first + np.minimum(count, 2) - 1] // 3], axis=1
        )

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
        return np.asarray(turn.apply(fitter.vertices) + fitter.transform_translation)

    def judged(self, vertices: np.ndarray) -> tuple[str, np.ndarray]:
        """By DEODR's renderer."""
        fitter = self.fitter()
        fitter.transform_quaternion = np.array([0.0, 0.0, 0.0, 1.0])
        fitter.vertices = vertices
        drawn = fitter.render()[:, :, 0]
        error = np.abs(drawn - self.image)
        ours, theirs = drawn < 1, self.image < 1
        rigid = self.rigid(vertices)[0]
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
                step = self.rigid_step(vertices, gradient, matrix)
            else:
                step = self.step(vertices, gradient, matrix)
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
        rigid, slope, _ = self.rigid(vertices)
        assert moved.grad is not None
        return float(data.detach()) + rigid, moved.grad.numpy() + slope, drawn.detach().numpy()

    def seen(self, vertices: Tensor) -> Tensor:
        return tr.gather_faces(self.camera.project(vertices[None]), self.faces).float()

    def rigid(self, vertices: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(DEODR's rigid energy in the best pose, its gradient, the turned rest's Laplacian)."""
        now, before = self.laplacian @ vertices, self.laplacian @ self.rest
        turn = Rotation.align_vectors(now, before)[0]
        turned = turn.apply(before)
        rest = now - turned
        energy = 0.5 * RIGIDITY * float((rest**2).sum())
        return energy, RIGIDITY * (self.laplacian.T @ rest), turned

    def rigid_step(self, vertices: np.ndarray, gradient: np.ndarray, matrix: Any) -> np.ndarray:
        """The Gauss-Newton step of the pose alone."""
        away = vertices - vertices.mean(0)
        turns = [np.cross(axis, away).ravel() for axis in np.eye(3)]
        shifts = [np.tile(axis, len(vertices)) for axis in np.eye(3)]
        basis = np.stack(turns + shifts, axis=1)
        small = basis.T @ (matrix @ basis)
        small += 1e-3 * np.diag(small.diagonal())
        found = np.linalg.solve(small, -basis.T @ gradient.ravel())
        turn = Rotation.from_rotvec(found[:3])
        return np.asarray(turn.apply(away) - away + found[3:])

    def step(self, vertices: np.ndarray, gradient: np.ndarray, data: Any) -> np.ndarray:
        """The Gauss-Newton step of all vertices; how the hand turns is eliminated (Woodbury)."""
        count = len(vertices)
        matrix = (self.stiff + data).tocsc()
        lift = sp.diags(1e-3 * (data.diagonal() + 1.0))
        factor = splu(
            (matrix + lift).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        turned = self.rigid(vertices)[2]
        cross = np.zeros((count, 3, 3))  # how the residual moves as the rest turns: [a]x
        cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -turned[:, 2], turned[:, 1], -turned[:, 0]
        cross -= cross.transpose(0, 2, 1)
        beside = RIGIDITY * (self.laplacian.T @ cross.reshape(count, 9)).reshape(3 * count, 3)
        own = RIGIDITY * np.einsum("nij,nik->jk", cross, cross) * (1 + 1e-6)
        solved = factor.solve(np.column_stack([-gradient.ravel(), beside]))
        inner = own - beside.T @ solved[:, 1:]
        found = solved[:, 0] + solved[:, 1:] @ np.linalg.solve(inner, beside.T @ solved[:, 0])
        return np.asarray(found.reshape(count, 3))

    def curvature(self, vertices: np.ndarray, drawn: np.ndarray, level: Level, reach: float) -> Any:
        """The data's Gauss-Newton matrix, (3 V, 3 V), of pixels within faces and of the outline.

        The outline's part is that of a picture that is blurred over so many pixels.
        """
        world = torch.from_numpy(vertices)
        small = 1e-5
        axes = torch.cat([torch.zeros(1, 3), small * torch.eye(3)])[:, None].double()
        seen, *moved = self.camera.project(world + axes)
        # (V, 3 of NDC, 3 of the world)
        chain = torch.stack([(place - seen) / small for place in moved], dim=-1).numpy()
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
        parts = [(faces[used], inner)]
        outline, normal, jump, length = self.outline(place, area, drawn)
        push = np.einsum("ea,eiab->eib", normal, chain[outline][:, :, :2])
        pixel = 2 / level.side
        strength = 2 * level.weight * jump**2 * length / (reach * pixel**3)
        share = strength[:, None, None] * (np.eye(2) / 6 + 1 / 6)
        edges = share[:, :, None, :, None] * np.einsum("eia,ejb->eiajb", push, push)
        parts.append((outline, edges))
        total: Any = sp.csc_array((3 * len(vertices), 3 * len(vertices)))
        for index, blocks in parts:
            at = (3 * index[..., None] + np.arange(3)).reshape(len(index), -1)
            size = at.shape[1]
            i, j = np.repeat(at, size, axis=1).ravel(), np.tile(at, (1, size)).ravel()
            total = total + sp.coo_array((blocks.ravel(), (i, j)), shape=total.shape).tocsc()
        return total

    def outline(
        self, place: np.ndarray, area: np.ndarray, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Edges (n, 2) where the depth jumps: normals outwards, jumps and lengths in NDC."""
        front = area > 0
        sides, border = self.sides, self.sides[:, 0] == self.sides[:, 1]
        one, two = front[sides[:, 0]], front[sides[:, 1]]
        chosen = np.where(border, one, one != two)
        edges = self.edges[chosen]
        shown = np.where(one, sides[:, 0], sides[:, 1])[chosen]
        a, b = place[edges[:, 0], :2], place[edges[:, 1], :2]
        length = np.linalg.norm(b - a, axis=1)
        normal = np.stack([b[:, 1] - a[:, 1], a[:, 0] - b[:, 0]], axis=1)
        normal /= np.maximum(length, 1e-12)[:, None]
        middle = (a + b) / 2
        within = place[self.faces.numpy()[shown], :2].mean(axis=1) - middle
        normal *= np.where((normal * within).sum(1) > 0, -1, 1)[:, None]
        inner, outer = (self.at(drawn, middle + k * 3 / len(drawn) * normal) for k in (-1, 1))
        depth = SCALE * place[edges, 2].mean(axis=1)
        visible = (np.abs(inner - depth) < 0.05) & (outer - inner > 0.01)
        return edges[visible], normal[visible], (outer - inner)[visible], length[visible]

    def at(self, drawn: np.ndarray, place: np.ndarray) -> np.ndarray:
        side = len(drawn)
        column = np.clip(np.round((place[:, 0] * side + side - 1) / 2), 0, side - 1).astype(int)
        row = np.clip(np.round((side - 1 - place[:, 1] * side) / 2), 0, side - 1).astype(int)
        return np.asarray(drawn[row, column])


if __name__ == "__main__":
    main(tyro.cli(Options))
