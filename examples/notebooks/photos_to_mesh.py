# %% [markdown]
# # From photos to a mesh
#
# A folder of photos with masks and cameras becomes a mesh with its texture, which you can turn.
# A machine without a GPU will do.

# %% tags=["install"]
# %pip install -q "taichi-raster[photos]" ipywidgets

# %% tags=["parameters"]
folder = None  # your folder; without one, photos are made below
count, size, steps, face_count, cells = 24, 240, 120, 6000, 96

# %%
import html
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from IPython.display import HTML, display
from PIL import Image

import taichi_raster as tr

tr.init(arch="cpu")
torch.set_num_threads(1)


def as_image(picture: torch.Tensor) -> Image.Image:
    """A picture (H, W, 3), for display."""
    return Image.fromarray(picture.detach().clamp(0, 1).mul(255).byte().numpy())


def drawn(body: tr.Mesh, camera: tr.PinholeCamera, shown: object) -> torch.Tensor:
    """A picture (H, W, 4) by samples, which share nothing with the fit."""
    corners = tr.gather_faces(camera.project(body.vertices[None].double()).float(), body.faces)
    return tr.sampled_picture(corners, shown, size, 4, 0.3, near=1.0, far=9.0)[0]


# %% [markdown]
# ## Photos
#
# Without photos of yours, a painted knot is drawn from three heights all round. The folder is what
# nerfstudio writes; those of COLMAP, BOP and OpenCV are read as well.

# %%
if folder is None:
    folder = "knot_photos"
    shutil.rmtree(folder, ignore_errors=True)
    knot = tr.torus_knot()
    paint = 0.55 + 0.45 * torch.sin(5 * knot.vertices + torch.tensor([0.0, 2.0, 4.0]))
    lights = (tr.AmbientLight(0.5), tr.DirectionalLight((0.5, 1.0, 0.6), 0.5))
    colours = tr.shade_gouraud(
        knot.vertices[None], knot.faces, tr.gather_faces(paint[None], knot.faces), lights
    )
    made = []
    for i in range(count):
        view = tr.orbit(4.0, elevation=(10.0, 45.0, -30.0)[i % 3], azimuth=360.0 * i / count)
        camera = tr.PinholeCamera(view.double(), focal=(3.6, 3.6))
        photo = drawn(knot, camera, colours).clamp(0, 1)
        made.append(tr.Photo(f"{i:02d}.png", camera, (size, size), photo[..., :3], photo[..., 3]))
    tr.save_capture(folder, tr.Capture(made))

capture = tr.load_capture(folder)
display(as_image(torch.cat([photo.image(size // 2) for photo in capture.photos[:4]], dim=1)))

# %% [markdown]
# ## Shape
#
# It starts at the visual hull, the largest shape that all masks allow. Then the surface moves until
# its silhouettes are the masks.

# %%
line = display(HTML(""), display_id=True)


def tell(step: int, total: int, loss: float) -> None:
    """One line, which changes."""
    line.update(HTML(f"step {step} of {total}, loss {loss:.4f}"))


shape = tr.fit_mesh(capture, face_count, steps, cells, done=tell)
print(f"{len(shape.mesh.faces)} faces; masks and silhouettes agree to {shape.ious.mean():.3f}")

# %% [markdown]
# ## Texture

# %%
textured = tr.fit_texture(shape.mesh, capture).mesh
tr.save_mesh("mesh.glb", capture.given_world(textured))  # for Blender, for engines

# %% [markdown]
# ## Look at it
#
# Drag the mesh to turn it. Drag across the pictures to go from the photo to the result.

# %%
views = []
for photo in capture.photos[:4]:
    small = replace(photo.camera, view=photo.camera.view.double())
    result = drawn(textured, small, textured.uv_texture())[..., :3]
    views.append(tr.ReportView(photo.name, photo.image(), result))
tr.write_report("report.html", "A mesh from photos", views, textured)
page = html.escape(Path("report.html").read_text())
frame = f'<iframe srcdoc="{page}" width="100%" height="700" frameborder="0"></iframe>'
display(HTML(f"<div>{frame}</div>"))
