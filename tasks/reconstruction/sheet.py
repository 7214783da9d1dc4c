"""Draw contact sheets: the input, the predicted mesh, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

import taichi_raster as tr
from tasks.reconstruction.nmr import NMRDataset
from tasks.reconstruction.views import FAR, NEAR, VIEWS, cameras

TURNS = (0, 5, 14)
"""Offsets from the input's view to those in which meshes are shown: 0, 75 and 210 degrees."""

LIGHTS = (tr.AmbientLight(0.35), tr.DirectionalLight((0.3, 1.0, 0.4), 0.65))
CLAY = (0.55, 0.7, 0.92)


def picture(
    vertices: Float[Tensor, "V 3"], faces: Tensor, views: Sequence[int], size: int = 96
) -> Float[Tensor, "K H W 3"]:
    """Sharp pictures of a mesh, shaded in one colour on white, in K views."""
    dtype = tr.runtime().dtype
    count = len(views)
    places = vertices.detach().cpu().to(dtype)[None].expand(count, -1, -1)
    camera = cameras(torch.tensor(views), places)
    paint = torch.tensor(CLAY, dtype=dtype).expand(count, len(faces), 3, 3)
    material = tr.Material(two_sided=True)
    colours = tr.shade_gouraud(places, faces, paint, LIGHTS, camera.eye, material)
    renderer = tr.SoftRasterizer(
        size,
        tr.Distribution("heaviside"),
        tr.HardDepth(),
        tr.TConorm("hard"),
        background=1.0,
        near=NEAR,
        far=FAR,
        antialias=3,
    )
    with torch.no_grad():
        seen = renderer(tr.gather_faces(camera.project(places), faces), colours.contiguous())
    return seen[..., :3].clamp(0, 1).cpu()


def over_white(images: Float[Tensor, "B 4 H W"]) -> Float[Tensor, "B H W 3"]:
    """RGBA over black (as in the data set) as RGB over white."""
    return (images[:, :3] + 1 - images[:, 3:]).clamp(0, 1).permute(0, 2, 3, 1)


def draw_sheet(
    path: Path,
    model: nn.Module,
    data: NMRDataset,
    rows: int = 12,
    view: int = 2,
    device: str | torch.device = "cpu",
) -> None:
    """One object a row, classes in turn: input, mesh in three views, truth in the same views."""
    model.eval()
    faces = model.faces
    assert isinstance(faces, Tensor)
    views = [(view + turn) % VIEWS for turn in TURNS]
    cells, names = [], []
    for row in range(rows):
        class_id = data.classes[row % len(data.classes)]
        number = (row // len(data.classes)) * 7 % data.counts[class_id]
        index = np.array([number])
        image = data.images(class_id, index, np.array([view]))
        with torch.no_grad():
            vertices = model(image.to(device))[0]
        shown = picture(vertices, faces.cpu(), views)
        truth = data.full_images(class_id, np.repeat(index, len(views)), np.array(views))
        cells.append([over_white(image)[0], *shown, *over_white(truth)])
        names.append(data.name(class_id))
    _draw(path, cells, names, len(views))


def draw_prediction(path: Path, image: Float[Tensor, "4 H W"], model: nn.Module) -> Tensor:
    """Draw the input and its mesh in three views; returns the mesh's vertices, (V, 3)."""
    model.eval()
    faces = model.faces
    assert isinstance(faces, Tensor)
    with torch.no_grad():
        vertices = model(image[None])[0]
    shown = picture(vertices, faces, TURNS, 192)
    _draw(path, [[over_white(image[None])[0], *shown]], [""], len(TURNS), truth=False)
    return vertices


def _draw(
    path: Path, cells: list[list[Tensor]], names: list[str], views: int, truth: bool = True
) -> None:
    titles = ["input", "reconstruction", *[""] * (views - 1), *(["truth"] if truth else [])]
    columns = len(cells[0])
    figure = Figure(figsize=(1.15 * columns + 0.5, 1.15 * len(cells) + 0.3), layout="constrained")
    axes = figure.subplots(len(cells), columns, squeeze=False)
    for row, (images, name) in enumerate(zip(cells, names, strict=True)):
        for column, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image.float().numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(column == 0)
                spine.set_color("0.7")
            if row == 0 and column < len(titles):
                axis.set_title(titles[column], fontsize=9, loc="left")
        axes[row, 0].set_ylabel(name, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
