"""What is known of several objects in several photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs, pose_inputs
from taichi_raster.fitting.pose import photo_term
from taichi_raster.fitting.pose_problem import FINE, mismatches, smaller
from taichi_raster.fitting.pose_scene import PoseScene
from taichi_raster.fitting.pose_terms import DepthTerm, MaskTerm, PhotoTerm, Term
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose


@dataclass(frozen=True, eq=False)
class Given:
    """All that is known, photo by photo, with what says so."""

    meshes: list[Mesh]
    cameras: list[Camera]
    masks: list[Tensor | None]
    known: list[Tensor]
    sizes: list[tuple[int, int]]
    mask_terms: list[MaskTerm]
    photo_terms: list[PhotoTerm]
    depth_terms: list[DepthTerm]

    @property
    def terms(self) -> list[Term]:
        """All of them."""
        return [*self.mask_terms, *self.photo_terms, *self.depth_terms]

    @staticmethod
    def of(
        meshes: list[Mesh],
        cameras: list[Camera],
        masks: Sequence[Tensor | None] | None,
        photos: Sequence[Tensor | None] | None,
        depths: Sequence[Tensor | None] | None,
        unknown: Sequence[Tensor | None] | None,
    ) -> Given:
        """As given to `fit_poses`, checked."""
        for name, kind, found in (("meshes", Mesh, meshes), ("cameras", Camera, cameras)):
            if not found:
                raise ValueError(f"{name}: expected at least one")
            for one in found:
                checks.instance(name, one, kind)
        for i, camera in enumerate(cameras):
            if len(camera.view) != 1:
                raise ValueError(f"cameras: camera {i} must have one view, got {len(camera.view)}")
        meshes = [inputs.mesh("meshes", mesh) for mesh in meshes]
        cameras = [inputs.detached(camera) for camera in cameras]
        lists = {
            name: _listed(name, x, len(cameras))
            for name, x in (
                ("masks", masks),
                ("photos", photos),
                ("depths", depths),
                ("unknown", unknown),
            )
        }
        given = Given(meshes, cameras, [], [], [], [], [], [])
        for i, (mask, photo, depth, hidden) in enumerate(zip(*lists.values(), strict=True)):
            given._add(i, mask, photo, depth, hidden)
        return given

    def _add(
        self,
        i: int,
        mask: Tensor | None,
        photo: Tensor | None,
        depth: Tensor | None,
        hidden: Tensor | None,
    ) -> None:
        if mask is None and photo is None and depth is None:
            raise ValueError(f"masks, photos, depths: photo {i} has none of them")
        labels = mask is not None and not checks.tensor(f"mask {i}", mask).is_floating_point()
        if labels:
            assert mask is not None
            if (
                mask.ndim != 2
                or mask.dtype == torch.bool
                or not 0 <= int(mask.min()) <= int(mask.max()) <= len(self.meshes)
            ):
                raise ValueError(
                    f"masks: of photo {i}, labels must be (H, W) integers from 0 to "
                    f"{len(self.meshes)}, the number of meshes"
                )
        covered = (mask > 0).float() if labels and mask is not None else mask
        size = pose_inputs.check(covered, photo, depth, hidden, self.meshes, f" {i}")
        known = torch.ones(size, dtype=torch.bool) if hidden is None else ~hidden.detach().cpu()
        self.sizes.append(size)
        self.known.append(known)
        self.masks.append(None if mask is None else mask.detach().cpu())
        if mask is not None:
            shown = [smaller(one, known, FINE) for one in self.coverage(i)]
            target = torch.cat([one for one, _ in shown])
            self.mask_terms.append(MaskTerm(i, target, shown[0][1][0]))
        if photo is not None:
            self.photo_terms.append(photo_term(i, photo, known))
        if depth is not None:
            self.depth_terms.append(DepthTerm(i, depth.detach().cpu().nan_to_num(0.0), known))

    def labelled(self, photo: int) -> bool:
        """Whether a photo's mask tells several objects apart."""
        mask = self.masks[photo]
        return mask is not None and not mask.is_floating_point() and len(self.meshes) > 1

    def coverage(self, photo: int) -> list[Tensor]:
        """(H, W) of all objects together, or of each, if labels tell them apart."""
        mask = self.masks[photo]
        assert mask is not None
        if self.labelled(photo):
            return [(mask == k + 1).float() for k in range(len(self.meshes))]
        covered = mask if mask.is_floating_point() else (mask > 0).float()
        return [torch.where(self.known[photo], covered, 0.0)]

    def mismatch(self, scene: PoseScene, local: Pose, photo: int) -> tuple[float, float]:
        """As of `Problem`, the largest of a photo's objects; NaN without a mask."""
        terms = [term for term in self.mask_terms if term.photo == photo]
        if not terms:
            return math.nan, math.nan
        target, known = terms[0].target, terms[0].known
        drawn = terms[0].drawn(scene, local) * known
        each = [mismatches(*pictures, known) for pictures in zip(drawn, target, strict=True)]
        return max(one for one, _ in each), max(other for _, other in each)


def _listed(name: str, given: Sequence[Tensor | None] | None, count: int) -> list[Tensor | None]:
    if given is None:
        return [None] * count
    if isinstance(given, Tensor):
        raise TypeError(f"{name}: expected a list, one for each camera")
    if len(given) != count:
        raise ValueError(f"{name}: expected {count}, one for each camera, got {len(given)}")
    return list(given)
