"""A report of a fit: one page that any browser opens, without a network."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import trimesh
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from trimesh.viewer.notebook import scene_to_html

from taichi_raster import checks
from taichi_raster.fitting.report_page import FIGURE, PAGE, ROW, SECTION, VIEWER
from taichi_raster.scene.files import images
from taichi_raster.scene.files.writing import write_together
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.mesh_files import save_mesh


@dataclass(frozen=True, eq=False)
class ReportView:
    """A photo and a render of the same view, for `write_report`.

    Attributes:
        name: shown below the pictures.
        photo, render: (H, W, 1, 3 or 4) in [0, 1]; values beyond are clipped. They may differ in
            size; both are shown as large as the photo.
        note: a line of text, such as the error of this view.

    Raises:
        TypeError: if a picture is not a tensor of floats.
        ValueError: for another shape, or values that are not finite.
    """

    name: str
    photo: Float[Tensor, "H W C"]
    render: Float[Tensor, "h w c"]
    note: str = ""

    def __post_init__(self) -> None:
        for name, picture in (("photo", self.photo), ("render", self.render)):
            checks.floats(name, picture)
            if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or picture.numel() == 0:
                raise ValueError(
                    f"{name}: must be (H, W, 1, 3 or 4), got {tuple(picture.shape)} ({self.name!r})"
                )
            if not bool(torch.isfinite(picture).all()):
                raise ValueError(f"{name}: must be finite ({self.name!r})")


def write_report(
    path: str | os.PathLike[str],
    title: str,
    views: Sequence[ReportView] = (),
    mesh: Mesh | None = None,
    numbers: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    text: str = "",
    quality: int = 88,
) -> None:
    """Write a fit's report as one HTML file, with everything in it.

    It shows each photo over its render, with a slider between them, the mesh in a viewer that can
    be turned, the numbers and every setting. The page loads nothing from elsewhere.

    Args:
        path: the file, ``.html``; it appears whole or not at all.
        title: the page's heading.
        views: photos beside renders.
        mesh: shown in three dimensions, with its texture or colours.
        numbers: results by name: numbers are shown with four digits, others as text.
        settings: the same, folded away.
        text: a paragraph below the heading.
        quality: of the pictures, as JPEG, 1 to 95. Pictures with alpha are PNG.

    Raises:
        TypeError, ValueError: for other arguments; the message names the argument.
        FileNotFoundError: if there is no such folder.

    Example:
        >>> views = [ReportView("photo 4", photo, image, "IoU 0.97")]
        >>> write_report("report.html", "A dinosaur", views, mesh, {"held-out IoU": 0.97})
    """
    target = checks.path("path", path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path: must end in .html, got {target.name!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: there is no such folder")
    if not 1 <= quality <= 95:
        raise ValueError(f"quality: expected 1 to 95, got {quality}")
    for view in views:
        checks.instance("views", view, ReportView)
    parts = []
    if views:
        figures = "\n".join(_figure(view, quality) for view in views)
        parts.append(SECTION.substitute(name="Photos and renders", body=f"<div>{figures}</div>"))
    if mesh is not None:
        checks.instance("mesh", mesh, Mesh)
        parts.append(SECTION.substitute(name="The result, to turn", body=_viewer(mesh)))
    if numbers:
        parts.append(SECTION.substitute(name="Numbers", body=_table(numbers)))
    if settings:
        folded = f"<details><summary>Every setting</summary>{_table(settings)}</details>"
        parts.append(SECTION.substitute(name="Settings", body=folded))
    page = PAGE.substitute(
        title=html.escape(title),
        text=f"<p>{html.escape(text)}</p>" if text else "",
        body="\n".join(parts),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_together({target: page.encode()})


def _figure(view: ReportView, quality: int) -> str:
    height, width = view.photo.shape[:2]
    return FIGURE.substitute(
        photo=_embedded(view.photo, quality),
        render=_embedded(view.render, quality),
        width=width,
        height=height,
        name=html.escape(view.name),
        note=html.escape(view.note),
    )


def _embedded(picture: Tensor, quality: int) -> str:
    """A picture as the address of an image that holds its own data."""
    values = images.as_bytes(picture)
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    out = io.BytesIO()
    if values.shape[-1] == 4:
        image.save(out, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(out, "JPEG", quality=quality, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def _viewer(mesh: Mesh) -> str:
    """The mesh in trimesh's viewer, a page of its own within this one."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.glb"
        save_mesh(path, mesh)
        page = scene_to_html(trimesh.load(path, force="scene"))
    return VIEWER.substitute(page=html.escape(page, quote=True))


def _table(values: Mapping[str, Any]) -> str:
    rows = (
        ROW.substitute(name=html.escape(str(name)), value=html.escape(_shown(value)))
        for name, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _shown(value: Any) -> str:
    """A number with four digits; anything else as text."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, float):
        whole = math.isfinite(value) and value == round(value) and abs(value) < 1e6
        return f"{value:.0f}" if whole else f"{value:.4g}"
    return str(value)
