# %% [markdown]
# # Quickstart
#
# In five minutes: draw a mesh, move it by gradient descent, and look at what softness does.
# A machine without a GPU will do.

# %% tags=["install"]
# %pip install -q "taichi-raster[photos]" ipywidgets

# %% tags=["parameters"]
size, steps = 96, 80

# %% [markdown]
# ## A picture
#
# A mesh has vertices and faces. A camera puts the vertices into the picture. A renderer draws the
# faces. The first picture takes some seconds, since kernels are compiled.

# %%
import matplotlib.pyplot as plt
import torch
from IPython.display import display
from PIL import Image

import taichi_raster as tr

tr.init(arch="cpu")
torch.set_num_threads(1)

mesh = tr.torus_knot()
camera = tr.PerspectiveCamera(tr.orbit(3.0, elevation=40.0, azimuth=30.0), fov=42.0)
faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)  # (1, F, 3, 3)
lights = (tr.AmbientLight(0.35), tr.DirectionalLight((0.5, 1.0, 0.6), 0.75))
blue = torch.tensor([0.45, 0.68, 0.9]).expand(faces.shape)
colours = tr.shade_gouraud(mesh.vertices[None], mesh.faces, blue, lights)


def as_image(picture: torch.Tensor) -> Image.Image:
    """A picture (H, W, 3 or 4), or a mask (H, W), for display."""
    return Image.fromarray(picture.detach().clamp(0, 1).mul(255).byte().numpy())


sharp = tr.SharpRasterizer(2 * size)
display(as_image(sharp(faces, colours)[0]))

# %% [markdown]
# ## Softness
#
# A soft renderer spreads each edge over some distance, its scale. A pixel near an edge then knows
# which way the edge would have to move.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
for axis, scale in zip(axes, (0.005, 0.02, 0.08), strict=True):
    soft = tr.SoftRasterizer(size, tr.Distribution("logistic", scale), near=1.5, far=4.5)
    axis.imshow(soft.silhouette(faces)[0].detach(), cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"scale {scale}")
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Descent
#
# Where is the ball? One silhouette tells. Start elsewhere, and go down the gradient of the
# difference. The softness is wide at first, to feel the target from afar, and sharp at the end.

# %%
ball = tr.icosphere(2, radius=0.5)
eye = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 3.0)), fov=40.0)


def drawn(place: torch.Tensor) -> torch.Tensor:
    """The ball's faces at a place (1, 3)."""
    return tr.gather_faces(eye.project(ball.vertices + place[:, None]), ball.faces)


exact = tr.SharpRasterizer(size)
target = exact(drawn(torch.tensor([[0.5, -0.3, 0.0]])), None)[..., 0]
place = torch.zeros(1, 3, requires_grad=True)
edge = tr.Distribution("gaussian", scale=tr.Geometric(0.1, 0.01))
soft = tr.SoftRasterizer(size, edge, near=1.0, far=5.0, cull_backfaces=True)
losses, path = [], []
for step in tr.Descent(torch.optim.Adam([place], lr=0.03), steps, title="descent"):
    image = soft.silhouette(drawn(place), progress=step.progress)
    loss = (image - target).square().mean()
    losses.append(float(loss.detach()))
    path.append(place.detach()[0, :2].clone())
    step.descend(loss)
print("found:", [round(x, 2) for x in place.tolist()[0]], "hidden: [0.5, -0.3, 0.0]")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
axes[0].imshow(target[0].detach(), cmap="gray")
axes[0].set_title("target")
axes[1].imshow(exact(drawn(place), None)[0, ..., 0].detach(), cmap="gray")
axes[1].set_title("found")
for axis in axes[:2]:
    axis.axis("off")
axes[2].plot(*torch.stack(path).T, ".-", markersize=3)
axes[2].plot(0.5, -0.3, "r*", label="hidden")
axes[2].set_aspect("equal")
axes[2].legend()
plt.show()

# %% [markdown]
# ## Second derivatives
#
# They are exact, and plain autograd. Here is the Hessian of the loss with respect to the place.

# %%
hessian = torch.autograd.functional.hessian(
    lambda p: (soft.silhouette(drawn(p), progress=0.5) - target).square().sum(), place.detach()
)
print(hessian.reshape(3, 3))

# %% [markdown]
# Next: `photos_to_mesh` for a mesh from photos, `learn_your_own` to learn a softness.
