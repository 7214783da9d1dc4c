"""The pose of an object through a video: each frame from the last, lost and found again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.fitting.agreement import agreement_of, correlation, with_texels
from taichi_raster.fitting.photometric import Aligned, aligned
from taichi_raster.fitting.pose import fit_pose
from taichi_raster.fitting.pose_inputs import check_start, has_colours
from taichi_raster.fitting.pose_problem import Problem
from taichi_raster.fitting.window import window_about
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose

DETAIL = 128
"""The shorter side of the window about the object, in pixels."""

STEPS = 3
"""At each size, at most: 128 pixels, half of them, and a quarter where the guess is rough."""

COARSE = 32
"""The same, where an object that was lost is looked for."""

AGREES = 0.4
"""The share of the surface's blocks that have to agree."""

DOUBTFUL, CLEAR = 0.2, 0.8
"""The same, between which it is worth while to go on with the blocks that agree."""

AGAIN = 3
"""Times, at most, that the blocks that do not agree are left out."""

LESS = 0.1
"""By how much the share may fall then: of what is hidden, blocks agree by chance."""

KEPT = 6
"""Places that are followed where a lost object is looked for."""

OUT, BLANK, OTHER, MASKLESS = (
    "the object is out of the picture, or too small",
    "the picture is blank",
    "the picture does not agree with the mesh",
    "the mask is empty",
)


@dataclass(frozen=True, eq=False)
class TrackedPose:
    """One frame of `track_pose`.

    Attributes:
        frame: its number, from 0.
        pose: object to camera. Where it has not converged, the last one that has, or the start.
        converged: whether the pose was found in this frame.
        reason: why not; empty if it was.
        covariance: (6, 6) as of `PoseFit`; NaN if it has not converged.
        agreement: the share of the surface, in blocks of 8 x 8 pixels, where photo and texture are
            alike, in [0, 1]; NaN by masks alone, or if nothing could be compared.
        mismatch: of the silhouette, as of `PoseFit`; NaN without masks.
    """

    frame: int
    pose: Pose
    converged: bool
    reason: str
    covariance: Float[Tensor, "6 6"]
    agreement: float
    mismatch: float


def track_pose(
    mesh: Mesh,
    frames: Iterable[Any],
    camera: Camera,
    start: Pose,
    masks: Iterable[Any] | None = None,
    tries: int = 100,
    seed: int = 0,
) -> Iterator[TrackedPose]:
    """Follow an object through a video, by its texture, by masks, or both.

    Each frame is compared with the mesh alone, never with the frame before, so that errors do not
    add up. It starts at the last pose, moved on as from the frame before. Only a window about the
    object is looked at: time depends little on the frame's size.

    **Lost and found.** A pose counts only where most of the surface agrees with the texture, block
    by block; a hand may hide the rest. Otherwise the last pose is held, the frame says so, and the
    object is looked for about there: farther, and in more directions, from frame to frame.

    Args:
        mesh: the object, with a texture or colours; without, give masks.
        frames: (H, W, 3) each, all of one size: arrays or tensors, uint8 or floats in [0, 1]. They
            are taken one by one, so that a video of any length or a camera may be behind them.
        camera: lens and intrinsics; its view does not count.
        start: about where the object is in the first frame.
        masks: one for each frame, (H, W), where it shows the object: floats in [0, 1], bool, or
            uint8 of 0 and 1 or of 0 to 255. Each frame is then
            fitted by `fit_pose`, from the last pose: slower, and without jumps where two poses
            have one silhouette.
        tries: poses that are looked at in each frame in which the object is lost.
        seed: of these.

    Returns:
        An iterator, of one `TrackedPose` a frame. What `frames` raises comes through.

    Raises:
        TypeError, ValueError: naming the argument, at once; for a frame of another size, when its
            turn comes.

    Example:
        >>> for found in tr.track_pose(mesh, tr.read_video("box.mp4"), camera, start):
        ...     print(found.frame, found.converged, found.pose.translation)
    """
    mesh = inputs.mesh("mesh", mesh)
    camera = inputs.detached(checks.instance("camera", camera, Camera))
    check_start(start, mesh)
    checks.count("tries", tries)
    inputs.seed(seed)
    textured = has_colours(mesh)
    if masks is None and not textured:
        raise ValueError("mesh: needs a texture or colours; or give masks")
    for name, values in (("frames", frames), ("masks", masks)):
        if values is not None and not isinstance(values, Iterable):
            raise TypeError(f"{name}: expected something to iterate over, got {type(values)}")
    tracker = _Tracker(mesh, camera, start, tries, seed, textured)
    return _tracked(tracker, frames, repeat(None) if masks is None else masks)


def _tracked(
    tracker: _Tracker, frames: Iterable[Any], masks: Iterable[Any]
) -> Iterator[TrackedPose]:
    size: tuple[int, int] | None = None
    for number, (frame, mask) in enumerate(zip(frames, masks, strict=False)):
        picture = _picture(f"frames[{number}]", frame, 3)
        if size is not None and picture.shape[:2] != size:
            raise ValueError(
                f"frames[{number}]: must be {size}, as the first, got {tuple(picture.shape[:2])}"
            )
        size = picture.shape[0], picture.shape[1]
        cover = None if mask is None else _picture(f"masks[{number}]", mask, 2)
        if cover is not None and cover.shape != size:
            raise ValueError(f"masks[{number}]: must be {size}, got {tuple(cover.shape)}")
        yield tracker.next(number, picture, cover)


def _picture(name: str, values: Any, dimensions: int) -> Tensor:
    try:
        found = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array or a tensor, got {type(values)}") from error
    shape = "(H, W, 3)" if dimensions == 3 else "(H, W)"
    if found.ndim != dimensions or (dimensions == 3 and found.shape[2] != 3):
        raise ValueError(f"{name}: must be {shape}, got {tuple(found.shape)}")
    if min(found.shape[:2]) < 24:
        raise ValueError(f"{name}: must be 24 x 24 pixels or more, got {tuple(found.shape)}")
    if dimensions == 2 and not found.is_floating_point() and int(found.max()) <= 1:
        found = found.float()  # a mask of 0 and 1
    if found.dtype == torch.uint8:
        return found.float() / 255
    if not found.is_floating_point():
        raise TypeError(f"{name}: must be uint8, or floats in [0, 1], got {found.dtype}")
    return inputs.picture(name, found).float()


@dataclass(frozen=True, eq=False)
class _Found:
    """A pose in units of the problem, and how well the picture agrees with it there."""

    pose: Pose
    covariance: Tensor
    agreement: float
    mismatch: float = math.nan


class _Tracker:
    """What is known after some frames. Poses are those of the problem: see there."""

    def __init__(
        self, mesh: Mesh, camera: Camera, start: Pose, tries: int, seed: int, textured: bool
    ) -> None:
        self.given, self.camera, self.tries, self.textured = mesh, camera, tries, textured
        self.problem = Problem.of(mesh, camera, torch.ones(1, 1))
        local = replace(mesh, vertices=self.problem.mesh.vertices)
        self.mesh, self.coarse = (with_texels(local, texels) for texels in (4 * DETAIL, 4 * COARSE))
        self.last = self.problem.local(
            Pose(start.rotation.detach().double(), start.translation.detach().double())
        )
        self.motion: Tensor | None = None
        self.lost = 0
        self.hope: Pose | None = None  # where it may be, though too little agrees there
        self.generator = torch.Generator().manual_seed(seed)

    def next(self, number: int, frame: Tensor, mask: Tensor | None) -> TrackedPose:
        """Of the next frame."""
        guesses = [self.last] if self.motion is None else [self.last.moved(self.motion), self.last]
        if self.hope is not None:
            guesses.insert(0, self.hope)
        reason, agreement, mismatch = OTHER, math.nan, math.nan
        found: _Found | None = None
        if float(frame.std()) < 1e-3:
            reason = BLANK
        elif mask is not None:
            if int((mask > 0.5).sum()) < 9:
                reason = MASKLESS
            else:
                found, mismatch = self._by_mask(frame, mask, guesses[0])
        else:
            for guess in guesses:
                found = self._aligned(frame, guess, guess is self.last or guess is self.hope)
                if found is not None:
                    agreement = found.agreement
                    if agreement >= AGREES:
                        break
                    found = None
            if found is None:
                if math.isnan(agreement) and window_about(*self._at(frame, guesses[-1])) is None:
                    reason = OUT
                found = self._searched(frame)
        if found is None:
            self.lost, self.motion = self.lost + 1, None
            nothing = torch.full((6, 6), torch.nan, dtype=torch.float64)
            pose = self._pose(self.last)
            return TrackedPose(number, pose, False, reason, nothing, agreement, mismatch)
        self.motion = self.last.unknowns_to(found.pose) if self.lost == 0 and number > 0 else None
        self.last, self.lost, self.hope = found.pose, 0, None
        return TrackedPose(
            number,
            self._pose(found.pose),
            True,
            "",
            found.covariance,
            found.agreement,
            found.mismatch,
        )

    def _pose(self, local: Pose) -> Pose:
        given = self.problem.given(local)
        return Pose(given.rotation, given.translation)

    def _at(self, frame: Tensor, pose: Pose) -> tuple[Problem, Tensor, Pose, int]:
        return self.problem, frame, pose, DETAIL

    def _aligned(self, frame: Tensor, guess: Pose, rough: bool) -> _Found | None:
        """From a guess, in the window about it; None if nothing can be compared there."""
        window = window_about(*self._at(frame, guess))
        if window is None:
            return None
        short = min(window.picture.shape[:2])
        sizes = [short // 4, short // 2] if rough else [short // 2]
        sizes = [size for size in sizes if size >= 16]
        parts = window.problem, self.mesh, window.picture
        found = aligned(*parts, guess, None, [*sizes, short], STEPS)
        agreement, known = agreement_of(window, self.mesh, found.pose)
        for _ in range(AGAIN):
            if not DOUBTFUL < agreement < CLEAR:
                break
            # What is hidden, or looks otherwise than the texture, is left out.
            other = aligned(*parts, found.pose, known, [short], STEPS)
            more, known = agreement_of(window, self.mesh, other.pose)
            if not more > agreement - LESS:
                break
            settled = abs(more - agreement) < 0.01
            found, agreement = other, more
            if settled:
                break
        if math.isnan(agreement) or not bool(torch.linalg.eigvalsh(found.hessian)[0] > 0):
            return None
        return _Found(found.pose, self._covariance(found), agreement)

    def _covariance(self, found: Aligned) -> Tensor:
        """From the unknowns of `Pose.moved` to radians and the object's units."""
        size = self.problem.size
        change = torch.diag(torch.tensor([1.0, 1.0, 1.0, size, size, 0.0], dtype=torch.float64))
        change[3:, 5] = size * found.pose.translation[0].double()
        inverse = found.variance * torch.linalg.inv(found.hessian)
        return product(product(change, (inverse + inverse.mT) / 2), change.mT)

    def _by_mask(self, frame: Tensor, mask: Tensor, guess: Pose) -> tuple[_Found | None, float]:
        photo = frame if self.textured else None
        start = self._pose(guess)
        fit = fit_pose(self.given, self.camera, mask, start, 1, photo=photo)
        if not fit.converged:
            fit = fit_pose(self.given, self.camera, mask, start, photo=photo)
        if not fit.converged:
            return None, fit.mismatch
        local = self.problem.local(fit.pose)
        return _Found(local, fit.covariance, math.nan, fit.mismatch), fit.mismatch

    def _searched(self, frame: Tensor) -> _Found | None:
        """Look for the object about where it was last; farther, the longer it is lost."""
        reach = min(0.15 * (1 + self.lost), 1.0)
        count = self.tries
        turns = torch.randn(count, 3, generator=self.generator, dtype=torch.float64)
        turns = torch.nn.functional.normalize(turns, dim=1)
        shifts = 2 * torch.rand(count, 3, generator=self.generator, dtype=torch.float64) - 1
        shifts = shifts * torch.tensor([2.0, 2.0, 0.3])
        far = torch.rand(count, 1, generator=self.generator, dtype=torch.float64) * reach
        moves = far * torch.cat([turns, shifts], dim=1)
        places = [self.last.moved(move[None]) for move in moves]
        scored = []
        for place in places:
            window = window_about(self.problem, frame, place, COARSE)
            if window is not None:
                score = correlation(window, self.coarse, place)
                scored.append((-math.inf if math.isnan(score) else score, place))
        scored.sort(key=lambda one: -one[0])
        best: _Found | None = None
        for _, place in scored[:KEPT]:
            found = self._aligned(frame, place, True)
            if found is not None and (best is None or found.agreement > best.agreement):
                best = found
        self.hope = best.pose if best is not None and best.agreement > DOUBTFUL else None
        return best if best is not None and best.agreement >= AGREES else None
