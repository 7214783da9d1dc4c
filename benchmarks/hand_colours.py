"""A hand fitted to a photo: DEODR's own example, and the same with this package, in one run.

    OMP_NUM_THREADS=1 python benchmarks/hand_colours.py FOLDER

FOLDER has hand.obj and hand.png, of DEODR's data.

It needs deodr (pip install 'taichi-raster[peers]'). DEODR's example, `rgb_image_hand_fitting`,
descends by momentum, 100 steps: the sum of squares of the colours' differences, plus a thousand
times the squared change of the Laplacian. Unknown are pose, vertices, one colour, and a light's
direction and ambient part. Shading is Gouraud's. The mesh is subdivided once, as its `main` does.

Ours minimises the same energy, by Gauss-Newton steps from coarse to fine. Values and gradients are
those of `SharpRasterizer`; the matrix is put together in `shaded_surface.py`. All steps but the
last few move the vertices of the mesh before it is subdivided.

Both results are judged by DEODR's renderer. Its antialiasing draws up to a pixel beyond the
outline, so errors and the silhouettes' intersection over union are those without. The photo's hand
is where it is more red than blue. Times are taken in turn, the least of `repeats`; what either
needs before (neighbours of vertices, the photo in fewer pixels) is made once.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import tyro
from elastic_surface import RIGIDITY, Surface, in_turn
from PIL import Image
from shaded_surface import Hand, Level, ShadedSurface
from tyro.conf import Positional

import taichi_raster as tr

COLOUR, LIGHT, AMBIENT = (0.4, 0.3, 0.25), (-0.1, -0.5, -0.4), 0.6
BACKGROUND = (0.5, 0.6, 0.7)
DISTORTION = (-1.0, 0.0, 0.0, 0.0, 0.0)
RED = 0.05  # more red than blue: a hand

LEVELS = (
    (25, 0.7, 5, "coarse"),
    (50, 0.5, 2, "coarse"),
    (100, 0.0, 2, "coarse"),
    (200, 0.0, 1, "fine"),
)
"""Pixels on a side; the Gaussian, in these, that the differences are blurred by; Gauss-Newton
matrices; of which mesh: before it is subdivided, or after."""

RIGID, STEPS, LITTLE = 3, 4, 0.002
"""The first so many matrices are for the pose alone. For a later one, there are so many steps at
most, which end with one that gains less than this share of the energy."""

REACH, DAMPING = 2.0, 0.01
"""The outline is taken to be blurred over so many pixels; a matrix whose first step does not help
is followed by one with half of that, and three times as much damping."""


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        folder: of the data.
        subdivisions: of the mesh.
        steps: of DEODR's.
        repeats: runs of each.
        out: a picture: the photo, DEODR's, ours.
    """

    folder: Positional[Path]
    subdivisions: int = 1
    steps: int = 100
    repeats: int = 3
    out: Path = Path("out/hand_colours.png")


def main(options: Options) -> None:
    tr.init("cpu")
    torch.set_num_threads(1)
    photo = np.asarray(Image.open(options.folder / "hand.png").convert("RGB")) / 255.0
    mesh = tr.load_mesh(options.folder / "hand.obj", merge=False)
    problem = Problem(photo, mesh, options)
    problem.fit()  # compiles
    methods: dict[str, Callable[[], Hand]] = {
        f"DEODR, {options.steps} steps": problem.deodr,
        "ours": problem.fit,
    }
    shown = [photo]
    for name, (hand, wall, processor) in in_turn(methods, options.repeats).items():
        text, drawn = problem.judged(hand)
        shown.append(drawn)
        print(f"{name}: {wall:.2f} s, {processor:.2f} s of processor; {text}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray((255 * np.clip(np.hstack(shown), 0, 1)).astype(np.uint8))
    picture.resize((3 * picture.width, 3 * picture.height)).save(options.out)


class Problem:
    """The photo, the hand, and DEODR's camera."""

    def __init__(self, photo: np.ndarray, mesh: tr.Mesh, options: Options) -> None:
        from deodr import ColoredTriMesh

        self.photo, self.steps = photo, options.steps
        coarse = ColoredTriMesh(
            mesh.faces.numpy(), vertices=mesh.vertices.double().numpy(), nb_colors=3
        )
        fine = coarse.subdivise(options.subdivisions)
        self.middle = fine.vertices.mean(axis=0)
        self.rest, self.faces = fine.vertices - self.middle, np.asarray(fine.faces)
        self.example = fitter = self.fitter()
        turn = np.diag([1.0, -1.0, -1.0])
        pose = tr.Pose(torch.from_numpy(turn), torch.from_numpy(-turn @ fitter.camera_center))
        height, width = photo.shape[:2]
        self.camera = tr.PinholeCamera(  # its pixels have their centres at whole numbers
            pose.view,
            (4.0, 4.0),
            (1 / width, 1 - (height + 1) / width),  # in a square that the photo is at the top of
            lens=tr.BrownConradyLens.from_opencv(list(DISTORTION)),
        )
        self.subdivided = subdivision(coarse, options.subdivisions)
        softer = 0.25**options.subdivisions  # Laplacians are of neighbours that are nearer
        self.shaded = {
            "fine": ShadedSurface(Surface.of(fine), self.camera),
            "coarse": ShadedSurface(Surface.of(coarse, rigidity=RIGIDITY * softer), self.camera),
        }
        self.levels = [Level.of(photo, side, blur, BACKGROUND) for side, blur, *_ in LEVELS]

    # DEODR ---------------------------------------------------------------------------------------

    def fitter(self) -> Any:
        from deodr.mesh_fitter import MeshRGBFitterWithPose

        fitter = MeshRGBFitterWithPose(
            self.rest.copy(),
            self.faces.astype(np.uint32),
            euler_init=np.zeros(3),
            translation_init=self.middle,
            default_color=np.array(COLOUR),
            default_light_directional=np.array(LIGHT),
            default_light_ambient=AMBIENT,
            cregu=RIGIDITY,
        )
        fitter.set_image(self.photo, distortion=np.array(DISTORTION))
        fitter.set_background_color(np.array(BACKGROUND))
        return fitter

    def deodr(self) -> Hand:
        """DEODR's example."""
        from deodr.tools import qrot

        fitter = self.example
        fitter.reset()
        with contextlib.redirect_stdout(io.StringIO()):
            for _ in range(self.steps):
                fitter.step()
        centred = fitter.vertices - fitter.vertices.mean(axis=0)  # as its next step would
        vertices = qrot(fitter.transform_quaternion, centred)
        look = [*fitter.mesh_color, *fitter.light_directional, fitter.light_ambient]
        return Hand(vertices + fitter.transform_translation, np.array(look))

    def judged(self, hand: Hand) -> tuple[str, np.ndarray]:
        """By DEODR's renderer: as its example draws, and without antialiasing."""
        fitter = self.fitter()
        fitter.transform_translation = np.zeros(3)
        fitter.vertices = hand.vertices
        fitter.mesh_color, fitter.light_directional = hand.look[:3], hand.look[3:6]
        fitter.light_ambient = hand.look[6]
        drawn = np.asarray(fitter.render())
        fitter.scene.sigma = 0.0
        sharp = np.asarray(fitter.render())
        rigid = self.shaded["fine"].surface.rigid(hand.vertices)[0]
        smooth, hard = (float(((p - self.photo) ** 2).sum()) for p in (drawn, sharp))
        theirs = self.photo[..., 0] > self.photo[..., 2] + RED
        ours = np.abs(sharp - BACKGROUND).max(axis=2) > 1e-6
        iou = (ours & theirs).sum() / (ours | theirs).sum()
        error = np.abs(sharp - self.photo).mean(axis=2)
        return (
            f"energy {smooth + rigid:.0f} ({smooth:.0f} of colours, {rigid:.0f} of deformation); "
            f"without antialiasing {hard + rigid:.0f}, colour error in the hand "
            f"{error[theirs].mean():.4f}, where both are {error[ours & theirs].mean():.4f}, "
            f"silhouette IoU {iou:.4f}"
        ), drawn

    # Ours ----------------------------------------------------------------------------------------

    def fit(self) -> Hand:
        """Gauss-Newton steps of the world's vertices; at first of the pose alone."""
        rest = self.shaded["coarse"].surface.rest
        hand, before = Hand(rest, np.array([*COLOUR, *LIGHT, AMBIENT])), "coarse"
        rigid = RIGID
        for level, (*_, matrices, which) in zip(self.levels, LEVELS, strict=True):
            if which != before:
                hand = Hand(self.subdivided @ hand.vertices, hand.look)
            hand = self.descended(hand, level, self.shaded[which], matrices, rigid)
            before, rigid = which, 0
        return hand

    def descended(
        self, hand: Hand, level: Level, shaded: ShadedSurface, matrices: int, rigid: int
    ) -> Hand:
        """Several steps by each matrix, as long as they help: a step costs little beside it."""
        value, reach, damping = shaded.evaluated(hand, level), REACH, DAMPING
        curvature = None
        for i in range(matrices):
            if curvature is None:
                curvature = shaded.curvature(hand, value, level)
            data = curvature.inner + curvature.outline / reach
            if i < rigid:
                steps = shaded.surface.pose_steps(hand.vertices, data, curvature.others)
            else:
                steps = shaded.surface.steps(hand.vertices, data, curvature.others, damping)
            for j in range(STEPS if i >= rigid else 1):
                step, look = steps(value.slope, value.slope_of_look)
                moved = Hand(hand.vertices + step, hand.look + look)
                new = shaded.evaluated(moved, level)
                gain = value.energy - new.energy
                if gain > 0:
                    hand, value, curvature = moved, new, None
                elif j == 0:
                    reach, damping = reach / 2, 3 * damping
                if gain < LITTLE * value.energy:
                    break
        return hand


def subdivision(mesh: Any, times: int) -> Any:
    """(V, v): the vertices of a closed mesh after Loop's subdivision, of those before."""
    total: Any = sp.eye_array(mesh.nb_vertices)
    for _ in range(times):
        beside = mesh.adjacencies
        ends = beside.edges_vertices_ones / 2  # each edge is listed by both of its faces
        opposite = beside.edges_faces_ones @ beside._vertices_faces.T
        moved = sp.diags(3 / 8 / beside.degree_v_e) @ beside.adjacency_vertices
        moved = moved + 5 / 8 * sp.eye(mesh.nb_vertices)
        total = sp.vstack([moved, (opposite + ends) / 8]) @ total
        mesh = mesh.subdivise(1)
    return total.tocsr()


if __name__ == "__main__":
    main(tyro.cli(Options))
