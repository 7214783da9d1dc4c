"""Evaluate reconstructions: voxel IoU, silhouettes from other views, and mean-shape baselines.

The literature reports the voxel IoU at 32^3: of every object from each of its 24 views, averaged
within a class, and then over classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import taichi_raster as tr
from taichi_raster.fitting.metrics import voxel_iou
from tasks.reconstruction.nmr import NMRDataset
from tasks.reconstruction.views import VIEWS, cameras
from tasks.reconstruction.voxels import Rule, voxelise
from tasks.silhouettes import coverage, mean_iou

HELD_OUT = (3, 9, 15, 21)
"""Offsets from the input's view to those whose silhouettes are compared: 45, 135, ... degrees."""

THRESHOLDS = tuple(np.arange(1, 20) / 20)
"""Candidate thresholds of a mean shape: the share of objects that a voxel must belong to."""

Report = Callable[[str, int, int], None]
"""Called with a class, the number of its images done, and the number of all."""


@dataclass(frozen=True)
class ClassScores:
    """Mean scores of a class.

    Attributes:
        voxel_iou: of the 32^3 voxels.
        silhouette_iou: of sharp silhouettes from views other than the input; NaN if not measured.
        images: number of images reconstructed.
    """

    voxel_iou: float
    silhouette_iou: float
    images: int


@dataclass(frozen=True)
class Scores:
    """Scores by class id."""

    classes: dict[str, ClassScores]

    def mean(self, figure: str) -> float:
        """The mean over classes of "voxel_iou" or "silhouette_iou"."""
        values = [getattr(scores, figure) for scores in self.classes.values()]
        return sum(values) / len(values)


def evaluate(
    model: nn.Module,
    data: NMRDataset,
    rule: Rule = "inside",
    views: Sequence[int] = tuple(range(VIEWS)),
    held_out: Sequence[int] = HELD_OUT,
    objects: int | None = None,
    batch: int = 64,
    device: str | torch.device = "cpu",
    report: Report | None = None,
) -> Scores:
    """Reconstruct every object of a data set from each of the views.

    Args:
        model: images (B, 4, H, W) to vertices (B, V, 3), with the attribute `faces`.
        data: the objects, with images of the model's input size.
        rule: how meshes are voxelised; the same as for the data (see `voxels`).
        views: the input views, each in turn.
        held_out: offsets from the input view to those whose silhouettes are compared.
        objects: objects of each class, spread evenly; all by default.
        batch: images at a time.
        device: of the model.
        report: called with the progress.
    """
    model.eval()
    faces = model.faces
    assert isinstance(faces, Tensor)
    faces = faces.cpu()
    found = {}
    for class_id in data.classes:
        voxel_ious, silhouette_ious = [], []
        count = min(data.counts[class_id], objects or data.counts[class_id]) * len(views)
        for index, seen in data.each(class_id, views, batch, objects):
            with torch.no_grad():
                vertices = model(data.images(class_id, index, seen).to(device)).cpu()
            solid = voxelise(vertices, faces, rule)
            voxel_ious.append(voxel_iou(solid, data.voxels(class_id, index)))
            if held_out:
                others = (torch.from_numpy(seen)[:, None] + torch.tensor(held_out)) % VIEWS
                truth = torch.stack(
                    [data.images(class_id, index, column.numpy())[:, 3] for column in others.T], 1
                )
                shown = silhouettes(vertices, faces, others, data.image_size)
                silhouette_ious.append(mean_iou(shown, truth))
            if report is not None:
                report(class_id, sum(map(len, voxel_ious)), count)
        found[class_id] = ClassScores(
            float(torch.cat(voxel_ious).double().mean()),
            float(torch.cat(silhouette_ious).double().mean()) if silhouette_ious else math.nan,
            count,
        )
    return Scores(found)


def silhouettes(
    vertices: Float[Tensor, "B V 3"], faces: Tensor, views: Tensor, size: int
) -> Float[Tensor, "B K H W"]:
    """Sharp silhouettes of meshes, each in its views (B, K): the share of each pixel they cover."""
    count = views.shape[1]
    vertices = vertices.to(tr.runtime().dtype).repeat_interleave(count, dim=0)
    camera = cameras(views.flatten(), vertices)
    with torch.no_grad():
        seen = coverage(tr.gather_faces(camera.project(vertices), faces), size)
    return seen.unflatten(0, (-1, count)).float()


@dataclass(frozen=True)
class MeanShapes:
    """Scores of baselines that ignore the image: thresholded means of the training objects.

    Attributes:
        overall: of one shape for all classes.
        by_class: of one shape for each class, which assumes that the class is known.
    """

    overall: Scores
    by_class: Scores


def mean_shapes(train: NMRDataset, data: NMRDataset, objects: int | None = None) -> MeanShapes:
    """The scores on `data` of mean shapes of `train`.

    A voxel belongs to a mean shape if it belongs to more than a threshold of the training objects.
    The threshold is the one with the highest mean IoU on these. Silhouettes are treated in the same
    way, for each view. `objects` limits the objects of each class.

    Raises:
        ValueError: if `train` lacks a class of `data`.
    """
    missing = [class_id for class_id in data.classes if class_id not in train.classes]
    if missing:
        raise ValueError(f"train: lacks the classes {', '.join(missing)}")
    guesses: dict[str, dict[str, Tensor]] = {}
    for name, read in (("voxel_iou", _all_voxels), ("silhouette_iou", _all_silhouettes)):
        seen = {class_id: read(train, class_id, objects) for class_id in data.classes}
        overall = _best_cut(list(seen.values()))
        own = {class_id: _best_cut([shapes]) for class_id, shapes in seen.items()}
        truth = {class_id: read(data, class_id, objects) for class_id in data.classes}
        guesses[name] = {
            f"{kind} {class_id}": _ious(truth[class_id], shape[None])[0].mean()
            for class_id in data.classes
            for kind, shape in (("overall", overall), ("own", own[class_id]))
        }

    def scores(kind: str) -> Scores:
        return Scores(
            {
                class_id: ClassScores(
                    float(guesses["voxel_iou"][f"{kind} {class_id}"]),
                    float(guesses["silhouette_iou"][f"{kind} {class_id}"]),
                    0,
                )
                for class_id in data.classes
            }
        )

    return MeanShapes(scores("overall"), scores("own"))


def _all_voxels(data: NMRDataset, class_id: str, objects: int | None) -> Float[Tensor, "N 1 D"]:
    """The voxels of a class's objects, flat."""
    parts = [data.voxels(class_id, i) for i, _ in data.each(class_id, (0,), 256, objects)]
    return torch.cat(parts).flatten(1)[:, None].float()


def _all_silhouettes(
    data: NMRDataset, class_id: str, objects: int | None
) -> Float[Tensor, "N 24 D"]:
    parts = [
        data.images(class_id, i, v)[:, 3]
        for i, v in data.each(class_id, tuple(range(VIEWS)), 24 * 64, objects)
    ]
    return torch.cat(parts).unflatten(0, (-1, VIEWS)).flatten(2)


def _best_cut(classes: Sequence[Float[Tensor, "N K D"]]) -> Bool[Tensor, "K D"]:
    """The mean of the classes' means, at the threshold with the best mean IoU over all of them."""
    mean = torch.stack([shapes.mean(dim=0) for shapes in classes]).mean(dim=0)
    cuts = torch.stack([mean > t for t in THRESHOLDS])
    ious = torch.stack([_ious(shapes, cuts).mean(dim=(1, 2)) for shapes in classes])
    return cuts[int(ious.mean(dim=0).argmax())]


def _ious(shapes: Float[Tensor, "N K D"], masks: Bool[Tensor, "T K D"]) -> Float[Tensor, "T N K"]:
    """IoU of coverages with masks: for these, the minimum is the product."""
    cut = masks.float()
    both = torch.einsum("nkd,tkd->tnk", shapes, cut)
    either = shapes.sum(dim=2) + cut.sum(dim=2)[:, None] - both
    return torch.where(either > 0, both / either.clamp(min=1e-9), 1.0)


def scores_markdown(
    groups: Mapping[str, Sequence[Scores]], baselines: Mapping[str, Scores], data: NMRDataset
) -> str:
    """A table of percentages: each class and the mean, of groups of runs and of baselines.

    A group of several runs, such as one for each seed, gives the mean and the standard deviation.
    """
    columns = {**groups, **{name: [scores] for name, scores in baselines.items()}}
    lines = []
    for title, figure in (("Voxel IoU", "voxel_iou"), ("Silhouette IoU", "silhouette_iou")):
        means = [[run.mean(figure) for run in runs] for runs in columns.values()]
        if any(math.isnan(value) for values in means for value in values):
            continue
        lines += [f"| {title}, % | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
        for class_id in data.classes:
            cells = [
                _spread([getattr(run.classes[class_id], figure) for run in runs])
                for runs in columns.values()
            ]
            lines.append(f"| {data.name(class_id)} | {' | '.join(cells)} |")
        lines += [f"| **mean** | {' | '.join(map(_spread, means))} |", ""]
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"
