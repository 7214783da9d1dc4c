"""A report of a fit: one page that any browser opens, without a network."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting.report_page import FIGURE, PAGE, ROW, SECTION, VIEWER
from taichi_raster.runtime.precision import product
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
    up: Float[Tensor, " 3"] | None = None,
    eye: Float[Tensor, " 3"] | None = None,
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
        up, eye: (3,) what is up in the mesh's world, +y by default, and from where it is seen at
            first, +z.

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
    if not checks.is_whole(quality) or not 1 <= quality <= 95:
        raise ValueError(f"quality: expected 1 to 95, got {quality}")
    for view in views:
        checks.instance("views", view, ReportView)
    parts = []
    if views:
        figures = "\n".join(_figure(view, quality) for view in views)
        parts.append(SECTION.substitute(name="Photos and renders", body=f"<div>{figures}</div>"))
    if mesh is not None:
        checks.instance("mesh", mesh, Mesh)
        above, seen_from = _direction("up", up, 1), _direction("eye", eye, 2)
        parts.append(
            SECTION.substitute(name="The result, to turn", body=_viewer(mesh, above, seen_from))
        )
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


def _direction(name: str, value: Tensor | None, axis: int) -> Float[Tensor, " 3"]:
    if value is None:
        return torch.eye(3, dtype=torch.float64)[axis]
    found = checks.floats(name, value)
    if found.shape != (3,) or not bool(torch.isfinite(found).all()) or not bool(found.any()):
        raise ValueError(f"{name}: must be three finite numbers, not all 0, got {value}")
    return found.detach().cpu()


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


def _viewer(mesh: Mesh, up: Float[Tensor, " 3"], eye: Float[Tensor, " 3"]) -> str:
    """The mesh in trimesh's viewer, a page of its own within this one."""
    from trimesh.viewer.notebook import scene_to_html  # here, as trimesh takes a while to import

    model = _Model(_standing(mesh, up, eye))
    return VIEWER.substitute(page=html.escape(scene_to_html(model), quote=True))


def _standing(mesh: Mesh, up: Float[Tensor, " 3"], eye: Float[Tensor, " 3"]) -> Mesh:
    """The mesh about the origin, half as large as 1, `up` along y, seen from `eye` along z."""
    y = torch.nn.functional.normalize(up.double(), dim=0)
    x = torch.linalg.cross(y, eye.double())
    if float(x.norm()) < 1e-6 * float(eye.double().norm()):  # seen from above
        x = torch.linalg.cross(y, torch.eye(3, dtype=torch.float64)[int(y.abs().argmin())])
    x = torch.nn.functional.normalize(x, dim=0)
    axes = torch.stack([x, y, torch.linalg.cross(x, y)])
    corners = mesh.vertices.detach().cpu().double()
    low, high = corners.amin(0), corners.amax(0)
    local = (corners - (low + high) / 2) / (float((high - low).norm()) or 1.0)
    return replace(mesh, vertices=product(local, axes.mT).to(mesh.vertices))


class _Model:
    """A mesh as a file of glTF with a camera: what `scene_to_html` asks a scene for.

    A texture that came from photos holds their light, so that the viewer adds none. It also shows
    linear light as it is, so that the texture is lightened for it.
    """

    camera = None

    def __init__(self, mesh: Mesh) -> None:
        lightened = mesh.texture
        if lightened is not None:
            lightened = ((lightened.clamp(0, 1) ** (1 / 2.2)) * 255).round() / 255
        self._mesh = replace(mesh, texture=lightened)

    def export(self, file_type: str) -> bytes:
        """The bytes of the .glb."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "mesh.glb"
            save_mesh(path, self._mesh)
            data = path.read_bytes()
        length = int.from_bytes(data[12:16], "little")
        top, rest = json.loads(data[20 : 20 + length]), data[20 + length :]
        lens = {"yfov": 0.7, "znear": 0.01, "zfar": 100.0, "aspectRatio": 1.5}
        top["cameras"] = [{"type": "perspective", "perspective": lens}]
        tilt = 0.12  # radians; the camera looks down a little
        turn = [-math.sin(tilt / 2), 0.0, 0.0, math.cos(tilt / 2)]
        place = [0.0, 1.7 * math.sin(tilt), 1.7 * math.cos(tilt)]
        top["nodes"].append({"camera": 0, "translation": place, "rotation": turn})
        top["scenes"][0]["nodes"].append(len(top["nodes"]) - 1)
        if self._mesh.texture is not None and "materials" in top:
            top["extensionsUsed"] = ["KHR_materials_unlit"]
            for material in top["materials"]:
                material["extensions"] = {"KHR_materials_unlit": {}}
        head = json.dumps(top).encode()
        head += b" " * (-len(head) % 4)
        chunks = len(head).to_bytes(4, "little") + b"JSON" + head + rest
        return data[:8] + (12 + len(chunks)).to_bytes(4, "little") + chunks


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
