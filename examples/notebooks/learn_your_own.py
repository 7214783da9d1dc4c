# %% [markdown]
# # Learn your own softness
#
# You solve the same kind of problem again and again. Then the softness can be learned for it.
# Here: where is an octagon, seen in one small silhouette? It takes a few minutes on two cores.

# %% tags=["install"]
# %pip install -q "taichi-raster" ipywidgets

# %% tags=["parameters"]
steps, iterations, batch, judged = 40, 25, 16, 64

# %% [markdown]
# ## The problem, as a task
#
# A family draws problems. A batch of them says where a descent starts, what its loss is, and how
# far off a result is. Nothing is inherited or registered.

# %%
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

import meta
import taichi_raster as tr

tr.init(arch="cpu")
torch.set_num_threads(1)

SIZE = 16
SHARP = tr.SharpRasterizer(SIZE)
ANGLES = torch.arange(8) * math.pi / 4
RING = 0.3 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=-1)  # (8, 2)
FAN = torch.tensor([[0, i, i + 1] for i in range(1, 7)])


def octagons(centre: Tensor) -> Tensor:
    """Faces (B, 6, 3, 3) of octagons at (B, 2)."""
    corners = RING + centre[:, None]
    return tr.lift_triangles(corners[:, FAN], torch.ones(6))


@dataclass(frozen=True)
class Octagons:
    hidden: Tensor  # (B, 2)
    initial: Tensor  # (B, 2)

    @property
    def batch_size(self) -> int:
        return len(self.hidden)

    def start(self) -> Tensor:
        return self.initial

    def loss(self, params: Tensor, renderer: tr.SoftRasterizer, progress: object) -> Tensor:
        target = SHARP(octagons(self.hidden), None)[..., 0].detach()
        image = renderer.silhouette(octagons(params), progress=progress)
        return (image - target).square().mean((1, 2))

    def true_error(self, params: Tensor) -> Tensor:
        return ((params - self.hidden).square().sum(1) + 1e-24).sqrt()  # a finite slope at 0

    def image_error(self, params: Tensor) -> Tensor:
        difference = SHARP(octagons(params), None) - SHARP(octagons(self.hidden), None)
        return difference.square().mean((1, 2, 3))

    def metrics(self, params: Tensor) -> dict[str, Tensor]:
        return {"distance": self.true_error(params)}

    def repeat(self, copies: int) -> "Octagons":
        return self.select(list(range(self.batch_size)) * copies)

    def select(self, instances: list[int]) -> "Octagons":
        return Octagons(self.hidden[instances], self.initial[instances])


@dataclass(frozen=True)
class Family:
    def sample(self, batch_size: int, stream: str, index: int) -> Octagons:
        seed = {"tune": 0, "train": 1, "test": 2}[stream] * 1_000_003 + index
        g = torch.Generator().manual_seed(seed)
        return Octagons(*(1.4 * torch.rand(2, batch_size, 2, generator=g) - 0.7))


# %% [markdown]
# ## The start
#
# A method is all that decides how a problem is solved. Learning starts at one that was tuned by
# hand: an annealed logistic softness, and a learning rate that falls.

# %%


def tuned() -> meta.Method:
    """A network that starts as a logistic; its scale and the learning rate are knots."""
    edge = tr.MLPSoftness((4, 4), scale=tr.Knots([0.15, 0.08, 0.03]))
    return meta.Method(
        tr.SoftRasterizer(SIZE, edge), meta.Adam(), tr.Knots([0.06, 0.04, 0.01]), steps
    )


start, method = tuned(), tuned()
before = meta.evaluate(start, Family(), count=judged, batch_size=judged)

# %% [markdown]
# ## Learning
#
# Evolution strategies try neighbours of the softness on many problems, and follow what helps.

# %%
settings = meta.TrainerSettings(
    iterations=iterations,
    batch_size=batch,
    validate_every=max(iterations // 5, 1),
    validation_batches=1,
    validation_batch_size=judged,
)
search = {"pairs": 4, "sigma": 0.1, "directions": "per_task"}
trainer = meta.OuterTrainer(
    method, Family(), meta.OuterLoss("true"), meta.es_gradient, search, settings
)
result = trainer.run()
print(
    f"validation: {result.start_score:.3f} before, {result.best.score:.3f} after; lower is better"
)

# %% [markdown]
# ## Was it worth it?
#
# On problems that neither has seen: the ratio of errors, learned to start, with its 95% interval.
# Below 1, learning has helped. A fair comparison also tunes the start, as
# `examples/learn_softness.py` does.

# %%
after = meta.evaluate(method, Family(), count=judged, batch_size=judged)
pair = meta.compare("learned", after.errors, "start", before.errors)
print("error, learned / start:", pair.ratio.format(digits=3))

# %%
d = torch.linspace(-0.3, 0.3, 200)
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, solved in (("start", start), ("learned", method)):
    for progress, line in ((0.0, "-"), (1.0, "--")):
        curve = solved.renderer.edge.value(d, progress).detach()
        axes[0].plot(d, curve, line, label=f"{name}, progress {progress:.0f}")
axes[0].set_xlabel("signed distance, NDC")
axes[0].set_ylabel("coverage")
axes[0].legend()
axes[1].boxplot([np.log10(before.errors), np.log10(after.errors)])
axes[1].set_xticks([1, 2], ["start", "learned"])
axes[1].set_ylabel("log10(distance to the truth)")
plt.show()

# %% [markdown]
# ## Keep it

# %%
softening = tr.Softening(
    method.renderer.edge,
    method.renderer.depth,
    method.renderer.alpha,
    method.lr,
    method.steps,
    card={"task": "an octagon's place", "units": "NDC", "optimiser": {"name": "Adam"}},
)
tr.save_softening("octagon.safetensors", softening)
print(tr.load_softening("octagon.safetensors").describe())
