"""The kernels' memory is scratch of one call: renders and their derivatives come in any order."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from programs import run_program
from scenes import (
    Inputs,
    assert_same,
    grad,
    gradients,
    leaves,
    like,
    questions,
    relative,
)


def test_two_renders_before_one_backward(dtype: torch.dtype) -> None:
    (case_a, a), (case_b, b) = questions(dtype)[:2]
    alone = [gradients(case_a.ours, a), gradients(case_b.ours, b)]
    a, b = leaves(a), leaves(b)
    image_a, image_b = case_a.ours(a), case_b.ours(b)
    ((image_a * like(image_a)).sum() + (image_b * like(image_b)).sum()).backward()
    assert_same({k: grad(v) for k, v in a.items()}, alone[0])
    assert_same({k: grad(v) for k, v in b.items()}, alone[1])


def test_backwards_in_any_order(dtype: torch.dtype) -> None:
    cases = questions(dtype)
    alone = [gradients(case.ours, x) for case, x in cases]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        together = [leaves(x) for _, x in cases]
        images = [case.ours(x) for (case, _), x in zip(cases, together, strict=True)]
        for i in order:
            (images[i] * like(images[i])).sum().backward()
        for x, expected in zip(together, alone, strict=True):
            assert_same({k: grad(v) for k, v in x.items()}, expected)


def test_a_render_between_first_and_second_backward(dtype: torch.dtype) -> None:
    (case, start), (other, y) = questions(dtype)[:2]

    def product(disturb: bool) -> Tensor:
        x = leaves(start)
        image = case.ours(x)
        if disturb:
            other.ours(y)
        (first,) = torch.autograd.grad(image.square().sum(), x["vertices"], create_graph=True)
        if disturb:
            gradients(other.ours, y)
        return torch.autograd.grad((first * like(first)).sum(), x["vertices"])[0]

    assert relative(product(True), product(False)) < 1e-5


def test_backward_twice_over_a_kept_graph(dtype: torch.dtype) -> None:
    case, x = questions(dtype)[1]
    x = leaves(x)
    loss = case.ours(x).square().sum()
    values = list(x.values())
    once = torch.autograd.grad(loss, values, retain_graph=True)
    twice = torch.autograd.grad(loss, values)
    for a, b in zip(once, twice, strict=True):
        assert relative(a, b) < 1e-5


def test_an_input_changed_in_place_after_the_render_does_no_harm(dtype: torch.dtype) -> None:
    """Its gradient is taken where the render took its value."""
    case, x = questions(dtype)[0]
    expected = gradients(case.ours, x)
    x = leaves(x)
    image = case.ours(x)
    with torch.no_grad():
        x["vertices"].add_(0.3)
    (image * like(image)).sum().backward()
    assert_same({k: grad(v) for k, v in x.items()}, expected)


def test_the_gradient_of_one_image_in_another(dtype: torch.dtype) -> None:
    """A render whose inputs come from the gradient of an earlier one."""
    case, start = questions(dtype)[0]

    def outer(render: Callable[[Inputs], Tensor], dtype: torch.dtype) -> Tensor:
        x = leaves(start, dtype)
        (g,) = torch.autograd.grad(
            render(x).square().sum(),
            x["vertices"],
            create_graph=True,
        )
        moved = {**x, "vertices": x["vertices"] - 1e-3 * g}
        return torch.autograd.grad(render(moved).square().sum(), x["scale"])[0]

    expected = outer(case.twin, torch.float64)
    assert relative(outer(case.ours, dtype), expected) < (1e-8 if dtype == torch.float64 else 1e-3)


OUTGROW = """
tr.init(ARCH, PRECISION)
case = Case("logistic").but(image_size=(9, 8), threshold=1e-6)
x = leaves(case.inputs(seed=80))
image = case.ours(x)
y = case.inputs(seed=89, batch=1, faces=2500, size=(0.02, 0.1))  # more numbers than fit at first
y["scale"] = torch.tensor(0.01, dtype=torch.float64)
for name, gradient in gradients(case.twin, y).items():
    assert relative(gradients(case.ours, y)[name], gradient) < 1e-9, name
(image * like(image)).sum().backward()
for name, gradient in gradients(case.twin, x).items():
    assert relative(x[name].grad, gradient) < 1e-9, name
"""


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_render_that_outgrows_the_memory_leaves_earlier_ones_usable() -> None:
    """Larger fields replace the smaller ones between a render and its backward.

    In a process of its own: afterwards every kernel that is differentiated compiles anew.
    """
    run_program(OUTGROW)
