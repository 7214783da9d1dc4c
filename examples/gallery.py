"""Every softening that the renderer knows, on one scene, as labelled contact sheets.

    python examples/gallery.py                   # in a minute or so
    python examples/gallery.py --size 160 --arch vulkan

Into `out/gallery/` go:

    distributions.png   three triangles under each edge softness
    conorms.png         how their coverages combine into alpha
    depths.png          which of them is seen
    surfaces.png        textures, shading, cameras
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import torch
import tyro
from rich.progress import track
from torch import Tensor

import taichi_raster as tr

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Panel = tuple[str, Callable[[], Tensor]]
NEAR, FAR = 1.0, 5.0


@dataclass(frozen=True)
class Options:
    """Draw every softening; see the top of the file.

    Args:
        out: folder for the pictures.
        arch: cpu, cuda, vulkan or auto.
        size: pixels on a side of each panel.
    """

    out: Path = Path("out/gallery")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    size: int = 96

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("--size: must be at least 1")


def main(options: Options) -> None:
    torch.set_num_threads(1)
    tr.init(arch=options.arch)
    options.out.mkdir(parents=True, exist_ok=True)
    sheets = {
        "distributions": distributions(options.size),
        "conorms": conorms(options.size),
        "depths": depths(options.size),
        "surfaces": surfaces(options.size),
    }
    for name, panels in sheets.items():
        images = [(label, draw()) for label, draw in track(panels, description=name)]
        path = options.out / f"{name}.png"
        contact_sheet(images, path)
        print(f"wrote {path}")


def triangles() -> tuple[Tensor, Tensor]:
    """Three overlapping triangles, of which red and green pass through each other."""
    xy = torch.tensor(
        [
            [[-0.75, -0.55], [0.45, -0.65], [-0.15, 0.65]],
            [[-0.35, 0.55], [-0.25, -0.35], [0.8, 0.35]],
            [[-0.6, 0.15], [0.65, -0.15], [0.35, 0.8]],
        ]
    )
    z = torch.tensor([[2.0, 3.4, 2.6], [3.2, 2.9, 1.9], [3.6, 3.6, 3.6]])
    colours = torch.tensor([[0.86, 0.22, 0.2], [0.2, 0.6, 0.3], [0.2, 0.35, 0.8]])
    faces = torch.cat([xy, z[..., None]], dim=-1)[None]
    return faces, colours[None, :, None].expand(1, 3, 3, 3).contiguous()


def show(
    renderer: tr.SoftRasterizer,
    faces: Tensor,
    attributes: Tensor | tr.SurfaceTexture | tr.UVTexture,
) -> Tensor:
    """(H, W, 3): the colour, by alpha over white."""
    image: Tensor = renderer(faces, attributes)[0]
    colour, alpha = image[..., :3], image[..., 3:]
    if not isinstance(renderer.depth, tr.OverDepth):  # whose colour is laid over black by alpha
        colour = colour * alpha
    return (colour + 1 - alpha).clamp(0, 1)


def soft(size: int, edge: tr.Distribution, **options: object) -> tr.SoftRasterizer:
    settings = {"depth": tr.SoftmaxDepth(0.02, 0.0), "near": NEAR, "far": FAR, **options}
    return tr.SoftRasterizer(size, edge, **settings)  # type: ignore[arg-type]


def distributions(size: int) -> list[Panel]:
    """Scales chosen for like widths: long tails and finite supports cannot share one."""
    scales = {
        "heaviside": 0.1,
        "uniform": 0.2,
        "cubic_hermite": 0.25,
        "wigner_semicircle": 0.22,
        "gaussian": 0.1,
        "laplace": 0.08,
        "logistic": 0.06,
        "gudermannian": 0.07,
        "cauchy": 0.03,
        "reciprocal": 0.03,
        "gumbel_max": 0.08,
        "gumbel_min": 0.08,
        "exponential": 0.1,
        "exponential_rev": 0.1,
        "gamma": 0.06,
        "gamma_rev": 0.06,
        "levy": 0.03,
        "levy_rev": 0.01,
    }
    faces, colours = triangles()

    def panel(name: str, squared: bool) -> Panel:
        scale = scales[name] ** 2 if squared else scales[name]
        shape = 2.0 if name.startswith("gamma") else None
        edge = tr.Distribution(name, scale, squared, shape)
        label = f"{name}{', squared' if squared else ''}\nscale {scale:.2g}"
        return label, lambda: show(soft(size, edge), faces, colours)

    panels = [panel(name, False) for name in scales]
    panels += [panel(name, True) for name in ("logistic", "gaussian", "laplace")]
    network = tr.MLPSoftness(scale=0.06, init="cauchy")
    learned = tr.SoftRasterizer(size, network, tr.SoftmaxDepth(0.02, 0.0), near=NEAR, far=FAR)
    return [*panels, ("network, started\nas cauchy", lambda: show(learned, faces, colours))]


def conorms(size: int) -> list[Panel]:
    """Alpha alone, dark where it is 1."""
    faces, _ = triangles()
    cases: list[tuple[str, float | None]] = [
        ("hard", None),
        ("max", None),
        ("probabilistic", None),
        ("einstein", None),
        ("hamacher", 0.0),
        ("hamacher", 5.0),
        ("frank", 0.01),
        ("frank", 1000.0),
        ("yager", 1.0),
        ("yager", 3.0),
        ("aczel_alsina", 0.5),
        ("aczel_alsina", 3.0),
        ("dombi", 0.5),
        ("dombi", 3.0),
        ("schweizer_sklar", -0.5),
        ("schweizer_sklar", -5.0),
    ]

    def panel(name: str, p: float | None) -> Panel:
        renderer = soft(size, tr.Distribution("logistic", 0.15), alpha=tr.TConorm(name, p))
        label = name if p is None else f"{name}\np = {p:g}"
        return label, lambda: 1 - renderer.silhouette(faces)[0][..., None].expand(-1, -1, 3)

    return [panel(*case) for case in cases]


def depths(size: int) -> list[Panel]:
    faces, colours = triangles()
    middle = {"gamma": 0.05, "shift": -10.0}
    cases: list[tuple[str, tr.DepthSoftness]] = [
        ("hard", tr.HardDepth()),
        ("softmax\nγ = 0.003", tr.SoftmaxDepth(0.003, 0.0)),
        ("softmax\nγ = 0.03", tr.SoftmaxDepth(0.03, 0.0)),
        ("softmax\nγ = 0.3", tr.SoftmaxDepth(0.3, 0.0)),
        ("logistic", tr.DistributionDepth("logistic", **middle)),
        ("gaussian", tr.DistributionDepth("gaussian", **middle)),
        ("cauchy", tr.DistributionDepth("cauchy", **middle)),
        ("exponential_rev", tr.DistributionDepth("exponential_rev", 0.05, shift=20.0)),
        ("gamma, shape 3", tr.DistributionDepth("gamma", 0.1, shape=3.0)),
        ("network, as made", tr.MLPDepth(gamma=0.03, background_z=0.0)),
        ("over", tr.OverDepth()),
        ("over\nγ = 0.1", tr.OverDepth(0.1)),
    ]

    def panel(label: str, depth: tr.DepthSoftness) -> Panel:
        return label, lambda: show(
            soft(size, tr.Distribution("logistic", 0.01), depth=depth), faces, colours
        )

    return [panel(*case) for case in cases]


def surfaces(size: int) -> list[Panel]:
    """A torus, by texture, light and camera."""
    mesh = tr.torus(0.62, 0.28, 12, 24)
    view = tr.orbit(3.0, 35.0, 20.0)
    camera = tr.PerspectiveCamera(view, 42.0)
    vertices = mesh.vertices[None]
    faces = tr.gather_faces(camera.project(vertices), mesh.faces)
    edge = tr.Distribution("logistic", 0.006)
    renderer = soft(size, edge, depth=tr.SoftmaxDepth(1e-3, 0.0), antialias=2)
    squares = (torch.arange(8)[:, None] + torch.arange(16)) % 2
    light, dark = torch.tensor([0.95, 0.85, 0.6]), torch.tensor([0.5, 0.15, 0.25])
    picture = torch.where(squares[..., None] == 1, light, dark)[None]
    texture = tr.UVTexture(mesh.corner_uv(), picture, "repeat")
    generator = torch.Generator().manual_seed(0)
    texels = tr.SurfaceTexture(torch.rand(1, len(mesh.faces), 2, 2, 3, generator=generator))
    plain = torch.full((1, len(mesh.faces), 3, 3), 0.75) * torch.tensor([0.55, 0.75, 0.9])
    lights = (
        tr.AmbientLight(0.25),
        tr.DirectionalLight((0.3, 1.0, 0.6), 0.7),
        tr.PointLight((-1.5, 1.5, 2.0), (0.4, 0.3, 0.2)),
    )
    eye, shiny = camera.eye[0], tr.Material(specular=0.5, shininess=40.0)
    arguments = (vertices, mesh.faces, plain, lights, eye, shiny)

    def phong() -> Tensor:
        drawn = renderer(faces, tr.surface_attributes(vertices, mesh.faces, plain))
        return tr.shade_image(drawn, lights, eye, shiny, background=1.0)[0, ..., :3].clamp(0, 1)

    def lit_texture() -> Tensor:
        surface = tr.surface_attributes(vertices, mesh.faces)
        drawn = renderer(faces, tr.UVTexture(mesh.corner_uv(), picture, "repeat", surface))
        return tr.shade_image(drawn, lights, eye, shiny, background=1.0)[0, ..., :3].clamp(0, 1)

    def orthographic() -> Tensor:
        flat = tr.OrthographicCamera(view, 1.1)
        shown = tr.gather_faces(flat.project(vertices), mesh.faces)
        drawn = soft(size, edge, depth=tr.SoftmaxDepth(1e-3, 0.0), antialias=2, orthographic=True)
        return show(drawn, shown, tr.shade_gouraud(*arguments))

    def inside() -> Tensor:
        close = tr.PerspectiveCamera(tr.look_at([0.62, 0.0, 0.0], [0.0, 0.0, 0.62]), 100.0)
        cut = close.project_faces(vertices, mesh.faces, tr.shade_gouraud(*arguments), near=0.02)
        drawn = tr.SoftRasterizer(
            size, edge, tr.HardDepth(), tr.TConorm("hard"), near=0.0199, far=FAR, antialias=2
        )
        assert cut.attributes is not None
        return show(drawn, cut.vertices, cut.attributes)

    def hard(value: Callable[[tr.HardBuffers], Tensor]) -> Callable[[], Tensor]:
        return lambda: value(tr.hard_buffers(faces, size, NEAR, FAR)).clamp(0, 1)

    normals = tr.face_normals(tr.gather_faces(vertices, mesh.faces))[:, :, None] / 2 + 0.5
    return [
        ("image texture", lambda: show(renderer, faces, texture)),
        ("flat texels", lambda: show(renderer, faces, texels)),
        ("flat shading", lambda: show(renderer, faces, tr.shade_flat(*arguments))),
        ("Gouraud shading", lambda: show(renderer, faces, tr.shade_gouraud(*arguments))),
        ("Phong shading", phong),
        ("image texture,\nPhong shading", lit_texture),
        ("orthographic", orthographic),
        ("inside the tube,\ncut at the near plane", inside),
        ("normals", lambda: show(renderer, faces, normals.expand(-1, -1, 3, -1).contiguous())),
        ("depth", hard(lambda b: ((3.8 - b.depth) / 1.6)[0, ..., None].expand(-1, -1, 3))),
        ("barycentrics", hard(lambda b: b.barycentrics[0])),
        (
            "face index",
            hard(
                lambda b: (
                    ((b.face[0, ..., None] * torch.tensor([37, 61, 97])) % 256)
                    / 255
                    * (b.face[0, ..., None] >= 0)
                )
            ),
        ),
    ]


def contact_sheet(images: list[tuple[str, Tensor]], path: Path, columns: int = 6) -> None:
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 1.7, rows * 2.05), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (label, image) in zip(axes.flat, images, strict=False):
        axis.imshow(image.detach().numpy(), interpolation="nearest")
        axis.set_title(label, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"gallery: {error}") from error
