"""Steps that are measured in the picture, not in the units of the unknowns.

A learning rate is in radians, metres or whatever the unknowns are in, so that one found for a
problem says nothing about the next. Here an optimiser gives a direction d alone. With s(x) what
the renderer is given, the step is

    x <- x + alpha d,    alpha = eta / rms(ds/dx d)

so that the scene moves by eta in the picture, whatever the unknowns are. ds/dx d is one product in
forward mode through the projection; nothing is rendered for it.

    rotation, translation = torch.zeros(B, 3), torch.zeros(B, 3)  # radians, metres
    unknowns = [rotation.requires_grad_(), translation.requires_grad_()]

    def geometry(rotation, translation):
        return tr.gather_faces(camera.project(posed(rotation, translation)), faces)

    steps = tr.ImageSteps(unknowns, geometry)
    for i in range(100):
        image = renderer(geometry(*unknowns), colours, progress=i / 100)
        steps.zero_grad()
        tr.mse(image, target).sum().backward()
        steps.step(i / 100)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from taichi_raster import checks
from taichi_raster.runtime import transforms
from taichi_raster.softness.schedule import Knots, Schedule, as_progress, as_schedule

Seen: TypeAlias = "Tensor | tuple[Tensor, Tensor | None]"
Geometry: TypeAlias = Callable[..., Seen]
Eta: TypeAlias = "float | Tensor | Schedule"

_NOISE = 64  # roundings: an apparent motion below this many is taken for none
_FLAT = 1e-3  # of its distance: the depth that a flat scene is taken to have


def image_steps(
    geometry: Geometry,
    unknowns: Sequence[Float[Tensor, "B ..."]],
    directions: Sequence[Float[Tensor, "B ..."]],
    eta: float | Float[Tensor, "*B"],
    appearance_eta: float | Float[Tensor, "*B"] | None = None,
    *,
    depth_unit: float | None = None,
    per_item: bool = True,
) -> tuple[Float[Tensor, "B ..."], ...]:
    """Directions, scaled so that the scene moves by `eta` in the picture.

    The length of a direction does not matter, nor do the units of the unknowns: multiplying a
    tensor of unknowns by c multiplies its step by c. Each of the n tensors that move corners moves
    them by eta / sqrt(n); likewise the attributes. A tensor that moves both takes a step for which
    neither motion is larger than that. One that moves nothing gets a step of zero.

    Differentiable in all tensors, twice. Nothing is checked that would make a GPU's host wait:
    values that are not finite give steps that are not.

    Args:
        geometry: a function of all unknowns, ``geometry(*unknowns)``, that forward mode can
            differentiate. It returns corners (R, ..., 3), or (R, ..., 2) for x and y alone, in NDC,
            or a tuple of those and attributes (R, ...). Rows of one batch item (its views) are next
            to each other: R is a multiple of B. Corners with z <= 0, which are not drawn, do not
            count.
        unknowns: tensors (B, ...), of float32 or float64.
        directions: where each goes, of the same shapes.
        eta: root mean square of the corners' displacements in NDC, positive: a number, 0-d or (B,).
        appearance_eta: root mean square of the attributes' change, in their own units; as `eta` by
            default.
        depth_unit: what counts as much as 1 NDC in z, as far - near of the renderer. By default
            motion in depth does not count.
        per_item: False if the unknowns have no batch dimension, and belong to one problem: all rows
            of the geometry count together.

    Returns:
        Steps to add to the unknowns, of their shapes and dtypes.

    Raises:
        TypeError, ValueError: naming the argument, for other shapes or types, or for a number that
            is not positive.
    """
    unknowns = tuple(unknowns)
    directions = tuple(directions)
    batch = _check_unknowns(unknowns, per_item)
    if len(directions) != len(unknowns):
        raise ValueError(f"directions: expected {len(unknowns)}, got {len(directions)}")
    for i, (x, d) in enumerate(zip(unknowns, directions, strict=True)):
        if checks.floats(f"directions[{i}]", d).shape != x.shape:
            raise ValueError(
                f"directions[{i}]: must have the shape of unknowns[{i}], {tuple(x.shape)}, "
                f"got {tuple(d.shape)}"
            )
    rates = [
        _check_eta(name, value, batch)
        for name, value in (
            ("eta", eta),
            ("appearance_eta", eta if appearance_eta is None else appearance_eta),
        )
    ]
    unit = None if depth_unit is None else checks.positive("depth_unit", depth_unit)
    every = range(len(unknowns))
    return _group_steps(geometry, unknowns, directions, every, batch, rates, unit)


class ImageSteps:
    """Lets an optimiser of torch choose directions, and measures its steps in the picture.

    See `image_steps` for what a step is. The optimiser's learning rate has no effect: how far the
    scene moves is up to `eta`. Each batch item's step depends on that item alone if the optimiser
    treats each number by itself, as SGD, with momentum or without, Adam and their kin do.

    Multiplying a tensor of unknowns by a constant changes no trajectory beyond rounding. So that
    constants of the optimiser do not spoil this (Adam's `eps`), it sees gradients in units of
    the largest entry of each batch item's first one that is not zero.

    Args:
        optimiser: any optimiser whose `step` needs no closure, without weight decay, which would be
            in the units of the unknowns; or the unknowns themselves, a list of tensors, for an Adam
            with `BETAS`. Much momentum does harm: a step is as long as any other, so that it goes
            on where it should turn round.
        geometry: as for `image_steps`, a function of the optimiser's parameters, group by group.
        eta: displacement in NDC: a number, a tensor (B,), or a schedule; or a list of them, one for
            each parameter group. By default 0.02, which falls to 0.002 over the last 15% of the
            progress.
        appearance_eta: change of attributes, in their own units; as `eta` by default.
        depth_unit: as for `image_steps`.
        per_item: False where the parameters of a group have no batch dimension; one value, or one
            for each parameter group.

    Raises:
        TypeError, ValueError: naming the argument, for another optimiser, parameters that are there
            twice or require no gradient, or values out of range.

    Example:
        >>> steps = ImageSteps([pose], lambda pose: camera(pose).project(vertices))
        >>> loss.sum().backward()
        >>> steps.step(progress=0.3)
    """

    BETAS: ClassVar[tuple[float, float]] = (0.3, 0.9)
    """Of an Adam whose steps are measured in the picture."""

    def __init__(
        self,
        optimiser: torch.optim.Optimizer | Sequence[Tensor],
        geometry: Geometry,
        eta: Eta | Sequence[Eta] | None = None,
        appearance_eta: Eta | Sequence[Eta] | None = None,
        *,
        depth_unit: float | None = None,
        per_item: bool | Sequence[bool] = True,
    ) -> None:
        if isinstance(optimiser, list | tuple):
            unknowns = [checks.floats(f"optimiser[{i}]", x) for i, x in enumerate(optimiser)]
            optimiser = torch.optim.Adam(unknowns, betas=self.BETAS)
        chosen: torch.optim.Optimizer = checks.instance(
            "optimiser", optimiser, torch.optim.Optimizer
        )
        if isinstance(chosen, torch.optim.LBFGS):
            raise TypeError("optimiser: LBFGS searches along its own lines; take another one")
        if not callable(geometry):
            raise TypeError(f"geometry: expected a function, got {type(geometry).__name__}")
        _check_leaves([x for group in chosen.param_groups for x in group["params"]])
        self.optimiser: torch.optim.Optimizer = chosen
        self.geometry = geometry
        count = len(chosen.param_groups)
        default = Knots([0.02, 0.02, 0.002], [0.0, 0.85, 1.0]) if eta is None else eta
        self.eta = _for_groups("eta", default, count)
        self.appearance_eta = (
            self.eta
            if appearance_eta is None
            else _for_groups("appearance_eta", appearance_eta, count)
        )
        self.depth_unit = None if depth_unit is None else checks.positive("depth_unit", depth_unit)
        flags = per_item if isinstance(per_item, list | tuple) else [per_item] * count
        if len(flags) != count:
            raise ValueError(f"per_item: expected one for each of {count} groups, got {len(flags)}")
        self.per_item = [checks.flag("per_item", flag) for flag in flags]
        self._check_groups()
        self._batches = [
            _check_unknowns(tuple(group), flag, f"optimiser: group {j}, parameters")
            for j, (group, flag) in enumerate(zip(self._groups(), self.per_item, strict=True))
        ]
        # Of gradients: (B,) for each parameter, 0 before its first gradient.
        self._units = [
            x.new_zeros(batch)
            for group, batch in zip(self._groups(), self._batches, strict=True)
            for x in group
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the optimiser's."""
        self.optimiser.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, progress: float | Float[Tensor, "*B"]) -> None:
        """Move all parameters along the optimiser's direction.

        Args:
            progress: in [0, 1], a number, 0-d or (B,); `eta` may depend on it.

        Raises:
            ValueError: if no parameter has a gradient, if one is not finite, or if what `geometry`
                returns is not or has another shape than it should.
            NotImplementedError: if forward mode cannot differentiate `geometry`.
        """
        self._check_groups()
        groups = self._groups()
        parameters = tuple(x for group in groups for x in group)
        if len(parameters) != len(self._units):
            raise ValueError("optimiser: has other parameters than when its steps were made")
        rates = [
            [eta(as_progress(progress, batch)) for eta in pair]
            for *pair, batch in zip(self.eta, self.appearance_eta, self._batches, strict=True)
        ]
        values = tuple(x.detach().clone() for x in parameters)
        directions = self._directions(parameters)
        steps: list[Tensor] = []
        for j, (group, batch) in enumerate(zip(groups, self._batches, strict=True)):
            first = len(steps)
            members = range(first, first + len(group))
            found = _group_steps(
                self.geometry, values, directions, members, batch, rates[j], self.depth_unit
            )
            for i, step in zip(members, found, strict=True):
                _check_finite(f"geometry: the motion by parameter {i}", step, batch)
            steps += found
        for x, step in zip(parameters, steps, strict=True):
            x.add_(step)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, and the units of its gradients: what a resumed run needs."""
        return {"optimiser": self.optimiser.state_dict(), "units": list(self._units)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave for parameters of the same shapes.

        Raises:
            ValueError: if it is that of other parameters.
        """
        units = state["units"]
        if [u.shape for u in units] != [u.shape for u in self._units]:
            raise ValueError("state: is that of other parameters")
        self.optimiser.load_state_dict(state["optimiser"])
        self._units = [new.to(old) for new, old in zip(units, self._units, strict=True)]

    def _groups(self) -> list[list[Tensor]]:
        return [group["params"] for group in self.optimiser.param_groups]

    def _check_groups(self) -> None:
        for j, group in enumerate(self.optimiser.param_groups):
            if group.get("weight_decay"):
                raise ValueError(
                    f"optimiser: group {j} has a weight decay, which is in the units of the "
                    "unknowns; add a term to the loss instead"
                )
            if not float(group.get("lr", 1.0)) > 0:
                raise ValueError(
                    f"optimiser: group {j} has a learning rate of {group['lr']}: it has no effect "
                    "on how far a step goes, but must be positive"
                )

    def _directions(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the optimiser would add to the parameters, by its own learning rate."""
        if all(x.grad is None for x in parameters):
            raise ValueError("optimiser: no parameter has a gradient; call backward() first")
        scaled: list[Tensor | None] = []
        for i, (x, units) in enumerate(zip(parameters, self._units, strict=True)):
            if x.grad is None:
                scaled.append(None)
                continue
            if x.grad.layout != torch.strided:
                raise ValueError(f"optimiser: the gradient of parameter {i} is not dense")
            _check_finite(f"optimiser: the gradient of parameter {i}", x.grad, len(units))
            rows = x.grad.detach().reshape(len(units), -1)
            self._units[i] = gradient_units(rows, units)
            scaled.append(in_units(rows, self._units[i]).view_as(x))
        with _replaced(parameters, scaled):
            self.optimiser.step()
            return tuple(x.detach().clone() for x in parameters)


def _check_leaves(parameters: Sequence[Tensor]) -> None:
    """Each is there once, and gets a gradient."""
    for i, x in enumerate(parameters):
        if any(x is other for other in parameters[:i]):
            raise ValueError(f"optimiser: parameter {i} is there twice")
        if not x.requires_grad:
            raise ValueError(
                f"optimiser: parameter {i} does not require a gradient; call requires_grad_() on it"
            )


def gradient_units(rows: Float[Tensor, "B N"], before: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The largest entry of each row, kept as it was in `before` where that is not 0."""
    return torch.where(before > 0, before, rows.abs().amax(dim=1))


def in_units(rows: Float[Tensor, "B N"], units: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
    """Rows over their units; a row whose unit is 0 is one of zeros."""
    return rows / torch.where(units > 0, units, 1.0)[:, None]


@contextmanager
def _replaced(parameters: tuple[Tensor, ...], gradients: list[Tensor | None]) -> Iterator[None]:
    """Within it, parameters are zero and have these gradients.

    At zero, what an optimiser adds is not rounded to the precision of the parameter's own value.
    """
    kept = [(x.detach().clone(), x.grad) for x in parameters]
    try:
        for x, gradient in zip(parameters, gradients, strict=True):
            x.zero_()
            x.grad = gradient
        yield
    finally:
        for x, (value, gradient) in zip(parameters, kept, strict=True):
            x.copy_(value)
            x.grad = gradient


def _group_steps(
    geometry: Geometry,
    unknowns: tuple[Tensor, ...],
    directions: tuple[Tensor, ...],
    members: Sequence[int],
    batch: int,
    rates: Sequence[float | Tensor],
    depth_unit: float | None,
) -> tuple[Tensor, ...]:
    """Steps of those unknowns that are `members`, which share `rates` among them."""
    units, motions = [], []
    for i in members:
        rows = directions[i].reshape(batch, -1)
        unit = _unit(rows)
        units.append(unit)
        motions.append(
            _motions(geometry, unknowns, i, unit.view_as(unknowns[i]), batch, depth_unit)
        )
    shares = [torch.zeros_like(motions[0][0])] * len(members)
    for kind, rate in enumerate(rates):
        moved = torch.stack([motion[kind] for motion in motions])
        count = (moved.detach() > 0).sum(dim=0).to(moved)
        relative = moved * count.sqrt() / (rate.to(moved) if isinstance(rate, Tensor) else rate)
        shares = [_hypot(a, b) for a, b in zip(shares, relative, strict=True)]
    steps = []
    for i, unit, share in zip(members, units, shares, strict=True):
        still = share == 0
        size = torch.where(still, 0.0, 1 / torch.where(still, 1.0, share))
        steps.append((size.to(unit)[:, None] * unit).view_as(unknowns[i]))
    return tuple(steps)


def _motions(
    geometry: Geometry,
    unknowns: tuple[Tensor, ...],
    which: int,
    direction: Tensor,
    batch: int,
    depth_unit: float | None,
) -> tuple[Tensor, Tensor]:
    """Root mean square of the corners' motion and of the attributes' change, (B,) each."""

    def seen(x: Tensor) -> tuple[Tensor, ...]:
        return _parts(geometry(*unknowns[:which], x, *unknowns[which + 1 :]), batch)

    try:
        values, tangents = _pushed(seen, unknowns[which], direction.to(unknowns[which]))
    except NotImplementedError as error:
        raise NotImplementedError(
            f"geometry: forward mode cannot differentiate it, and steps are measured so: {error}"
        ) from error
    corners, moves = (part.reshape(batch, -1, part.shape[-1]) for part in (values[0], tangents[0]))
    counted = torch.ones_like(corners[..., 0], dtype=torch.bool)
    floor = moves.new_zeros(batch)
    if corners.shape[-1] == 3:
        counted = corners[..., 2].detach() > 0
        if depth_unit is None:
            floor = _noise(corners.detach(), moves.detach(), counted)
            moves = moves[..., :2]
        else:
            moves = torch.cat([moves[..., :2], moves[..., 2:] / depth_unit], dim=-1)
    moved = _root_mean_square(moves, counted, floor)
    if len(tangents) == 1:
        return moved, torch.zeros_like(moved)
    changes = tangents[1].reshape(batch, -1, 1)
    everywhere = torch.ones_like(changes[..., 0], dtype=torch.bool)
    return moved, _root_mean_square(changes, everywhere, changes.new_zeros(batch)).to(moved)


def _pushed(
    function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, direction: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Values and tangents of a function's results; as `torch.func.jvp`, which takes far longer.

    Below its transforms, operations and custom functions are interpreted in Python.
    """
    if transforms.is_active():  # whose levels do not nest with the others
        values, tangents = torch.func.jvp(function, (x,), (direction,))[:2]
        return values, tangents
    # Within a custom function's forward and backward, forward mode is switched off.
    with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
        duals = [forward_ad.unpack_dual(y) for y in function(forward_ad.make_dual(x, direction))]
    return (
        tuple(dual.primal for dual in duals),
        tuple(
            torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent
            for dual in duals
        ),
    )


def _parts(found: Any, batch: int) -> tuple[Tensor, ...]:
    """What `geometry` returned, checked: corners, and attributes where there are any."""
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) == 2 and parts[1] is None:
        parts = parts[:1]
    if len(parts) not in (1, 2) or not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(
            "geometry: must return corners, or a tuple of corners and attributes, all tensors; "
            f"got {type(found).__name__} of {[type(part).__name__ for part in parts]}"
        )
    for name, part in zip(("corners", "attributes"), parts, strict=False):
        if not part.is_floating_point() or part.ndim < 1 or part.numel() == 0:
            raise ValueError(f"geometry: {name} must hold numbers, got {tuple(part.shape)}")
        if name == "corners" and (part.ndim < 2 or part.shape[-1] not in (2, 3)):
            raise ValueError(
                f"geometry: corners must be (R, ..., 3) or (R, ..., 2), got {tuple(part.shape)}"
            )
        if len(part) % batch:
            raise ValueError(
                f"geometry: {name} must have a multiple of {batch} rows, as the unknowns have "
                f"{batch} batch items, got {tuple(part.shape)}; per_item=False is for unknowns "
                "without a batch dimension"
            )
    return parts


def _unit(rows: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Rows over their largest entry, so that no square of theirs leaves the range of floats."""
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    return rows / torch.where(largest == 0, 1.0, largest)


def _root_mean_square(
    moves: Float[Tensor, "B N D"], counted: Tensor, floor: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Of the lengths of those moves that count; 0 where the largest entry is not above `floor`."""
    moves = torch.where(counted[..., None], moves, 0.0)
    largest = moves.detach().abs().amax(dim=(1, 2))
    still = largest <= floor
    scale = torch.where(still, 1.0, largest)
    squares = (moves / scale[:, None, None]).square().sum(dim=(1, 2))
    mean = torch.where(still, 1.0, squares / counted.sum(dim=1).clamp(min=1))
    return torch.where(still, 0.0, scale * mean.sqrt())


def _noise(corners: Tensor, moves: Tensor, counted: Tensor) -> Float[Tensor, " B"]:
    """What a motion in depth alone may seem to move x and y by: so much is rounding.

    Depths are in units of the scene, so that they are brought to NDC by how large it is in both.
    """
    number = counted.sum(dim=1).clamp(min=1)

    def size(values: Tensor) -> Tensor:
        kept = torch.where(counted[..., None], values, 0.0)
        return (kept.square().sum(dim=(1, 2)) / number).sqrt()

    kept = torch.where(counted[..., None], corners, 0.0)
    centred = corners - kept.sum(dim=1, keepdim=True) / number[:, None, None]
    depth = size(centred[..., 2:]) + _FLAT * size(corners[..., 2:])
    scale = size(centred[..., :2]) / torch.where(depth > 0, depth, 1.0)
    return _NOISE * torch.finfo(moves.dtype).eps * scale * size(moves[..., 2:])


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a^2 + b^2), with a finite slope where one of them or both are zero."""
    both = (a.detach() > 0) & (b.detach() > 0)
    return torch.where(
        both, torch.hypot(torch.where(both, a, 1.0), torch.where(both, b, 1.0)), a + b
    )


def _check_unknowns(unknowns: tuple[Tensor, ...], per_item: bool, name: str = "unknowns") -> int:
    """B, or 1 for unknowns without a batch dimension."""
    if not unknowns:
        raise ValueError(f"{name}: expected at least one tensor")
    for i, x in enumerate(unknowns):
        checks.floats(f"{name}[{i}]", x)
        if x.numel() == 0:
            raise ValueError(f"{name}[{i}]: holds no numbers, got {tuple(x.shape)}")
        if per_item and (x.ndim == 0 or len(x) != len(unknowns[0])):
            raise ValueError(
                f"{name}[{i}]: must be (B, ...), with the B of the first, got {tuple(x.shape)}; "
                "per_item=False is for unknowns without a batch dimension"
            )
    return len(unknowns[0]) if per_item else 1


def _check_eta(name: str, value: float | Tensor, batch: int) -> float | Tensor:
    if not isinstance(value, Tensor):
        return checks.positive(name, value)
    if not value.is_floating_point() or value.shape not in ((), (batch,)):
        raise ValueError(
            f"{name}: expected a positive number, 0-d or ({batch},), got {value.dtype} of shape "
            f"{tuple(value.shape)}"
        )
    return value


def _check_finite(what: str, values: Tensor, batch: int) -> None:
    finite = torch.isfinite(values).reshape(batch, -1).all(dim=1)
    if not bool(finite.all()):
        items = torch.nonzero(~finite).flatten().tolist()
        raise ValueError(f"{what} is not finite in batch item {', '.join(map(str, items[:8]))}")


def _for_groups(name: str, value: Eta | Sequence[Eta], count: int) -> list[Schedule]:
    """A schedule for each parameter group."""
    each: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(each) != count:
        raise ValueError(f"{name}: expected one for each of {count} groups, got {len(each)}")
    return [as_schedule(name, one) for one in each]
