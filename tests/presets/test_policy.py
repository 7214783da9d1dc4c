"""A policy begins as the softening found by hand, means the same in every picture, and is kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


DISTANCE = torch.tensor([0.0, 0.05, 0.2, 2.0], dtype=torch.float64)
PIXEL = torch.full((4,), 1 / 16, dtype=torch.float64)


def masks() -> tuple[Tensor, Tensor]:
    drawn, target = torch.zeros(4, 64, 64), torch.zeros(4, 64, 64)
    drawn[:, 8:24, 8:24] = 1.0
    for k in range(4):
        target[k, 8:24, 8 + 10 * k : 24 + 10 * k] = 1.0
    return drawn, target


def all_of(softening: tr.Softening, u: float) -> list[Tensor]:
    parts = (softening.edge.scale, softening.depth.get_submodule("gamma"), softening.alpha.p)
    assert softening.lr is not None
    return [schedule(number(u)).expand(4).detach() for schedule in (*parts, softening.lr)]


@pytest.mark.parametrize("backs", [False, True])
def test_all_zeros_are_the_softening_found_by_hand(backs: bool) -> None:
    ours = tr.GuidedSoftening(tr.SofteningPolicy(), *masks(), backs=backs)
    theirs = tr.untuned_softening(*masks(), backs=backs)
    assert ours.edge.describe() == theirs.edge.describe()
    assert ours.depth.describe().split(",")[0] == theirs.depth.describe().split(",")[0]
    assert ours.alpha.name == theirs.alpha.name
    for u in (0.0, 0.1, 0.37, 0.5, 0.8, 0.85, 0.9, 1.0):
        for own, other in zip(all_of(ours, u), all_of(theirs, u), strict=True):
            torch.testing.assert_close(own, other.to(own), rtol=1e-12, atol=0)


def test_feedback_is_nothing_at_first_whatever_it_is_shown() -> None:
    signals = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for u in (0.0, 0.4, 1.0):
        shown = tr.SofteningPolicy(feedback=True).at(number(u), DISTANCE, PIXEL, signals)
        plain = tr.SofteningPolicy().at(number(u), DISTANCE, PIXEL)
        for name in ("scale", "gamma", "p", "eta"):
            assert torch.equal(getattr(shown, name), getattr(plain, name))


def test_each_parameter_does_what_its_name_says() -> None:
    policy, base = tr.SofteningPolicy(), tr.SofteningPolicy()
    with torch.no_grad():
        policy.start.copy_(torch.tensor([2.0, 3.0, 0.5, 4.0, 1.0]).log())
    first, last = policy.at(number(0.0), DISTANCE, PIXEL), policy.at(number(1.0), DISTANCE, PIXEL)
    # Twice 0.3 of the distance, between three pixels and half of 0.12 NDC, where these cross three.
    torch.testing.assert_close(first.scale, torch.full((4,), 3 / 16, dtype=torch.float64))
    torch.testing.assert_close(last.scale, torch.full((4,), 4 * 0.15 / 16, dtype=torch.float64))
    with torch.no_grad():
        policy.start.zero_()
        policy.start[4] = 1.0
        policy.steps[3] = math.log(2.0)
        policy.order[1] = math.log(2.0)
        policy.join.copy_(torch.tensor([2.0, 4.0]).log())
    middle, other = (p.at(number(0.6), DISTANCE, PIXEL) for p in (policy, base))
    by_first = base.at(number(0.0), DISTANCE, PIXEL).scale / 0.05
    torch.testing.assert_close(middle.eta, 2 * by_first * other.eta)
    torch.testing.assert_close(
        policy.at(number(0.5), DISTANCE, PIXEL).gamma,
        2 * base.at(number(0.5), DISTANCE, PIXEL).gamma,
    )
    torch.testing.assert_close(middle.p, 2 * 2**0.6 * other.p)


def test_the_scale_falls_all_the_way_whatever_the_course_is() -> None:
    policy = tr.SofteningPolicy()
    with torch.no_grad():
        policy.course.copy_(torch.tensor([3.0, -2.0, 0.0, 1.0, -4.0]))
    scales = torch.stack(
        [policy.at(number(u / 40), DISTANCE, PIXEL).scale for u in range(41)]
    ).detach()
    assert bool((scales.diff(dim=0) < 0).all())
    ends = [tr.SofteningPolicy().at(number(u), DISTANCE, PIXEL).scale for u in (0.0, 1.0)]
    torch.testing.assert_close(scales[[0, -1]], torch.stack(ends).detach())


def test_an_item_may_have_a_policy_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = tr.SofteningPolicy(feedback=True)
    own = {
        name: torch.randn(4, *value.shape, generator=generator, dtype=torch.float64) / 3
        for name, value in policy.named_parameters()
    }
    signals = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    inputs = (number(0.3), DISTANCE, PIXEL, signals)
    together = _called(policy, own, inputs)
    for i in range(4):
        alone = _called(
            policy,
            {name: value[i] for name, value in own.items()},
            (inputs[0], *(x[i : i + 1] for x in inputs[1:])),
        )
        torch.testing.assert_close(together[:, i : i + 1], alone)


def _called(
    policy: tr.SofteningPolicy, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...]
) -> Tensor:
    class At(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, *args: Tensor) -> Tensor:
            found = self.policy.at(*args)
            return torch.stack([found.scale, found.gamma, found.p, found.eta])

    named = {f"policy.{name}": value for name, value in parameters.items()}
    return torch.func.functional_call(At(), named, inputs)


def test_feedback_depends_on_each_signal_and_stays_within_bounds() -> None:
    policy = tr.SofteningPolicy(feedback=True)
    with torch.no_grad():
        policy.gains.fill_(10.0)
    signals = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    found = policy.at(number(0.5), DISTANCE, PIXEL, signals)
    plain = policy.at(number(0.5), DISTANCE, PIXEL)
    for name in ("scale", "gamma", "eta"):
        factor = (getattr(found, name) / getattr(plain, name)).log().abs()
        assert bool((factor <= 3.0 + 1e-9).all())
    with torch.no_grad():
        policy.gains.fill_(0.1)
    policy.at(number(0.5), DISTANCE, PIXEL, signals).scale.sum().backward()
    assert signals.grad is not None
    assert bool((signals.grad != 0).all())


def test_a_policy_survives_its_file_bit_for_bit(tmp_path: Path) -> None:
    policy = tr.SofteningPolicy(feedback=True)
    with torch.no_grad():
        for value in policy.parameters():
            value.add_(0.1)
    policy.card = {"command": "none"}
    tr.save_policy(tmp_path / "p.safetensors", policy)
    found = tr.load_policy(tmp_path / "p.safetensors")
    assert found.card == {"command": "none"}
    assert found.has_feedback
    for (name, value), (other, kept) in zip(
        policy.named_parameters(), found.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(value, kept)
        assert not kept.requires_grad


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, tr.Distribution("gaussian"))
    with pytest.raises(ValueError, match=r"edge\.safetensors is not a usable policy file"):
        tr.load_policy(path)
    with pytest.raises(FileNotFoundError, match="no policy file at"):
        tr.load_policy(tmp_path / "none.safetensors")
    with pytest.raises(TypeError, match=r"^feedback: "):
        tr.SofteningPolicy(feedback=1)  # type: ignore[arg-type]
