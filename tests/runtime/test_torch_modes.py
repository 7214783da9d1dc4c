"""A first render under one of torch's modes does no harm to what is rendered afterwards."""

import pytest

from programs import run_program


@pytest.mark.runs_on(precision="f32")  # on CPU, Vulkan and CUDA
@pytest.mark.parametrize(
    "mode",
    [
        "torch.inference_mode()",
        "torch.no_grad()",
        "torch.autocast('cpu', dtype=torch.bfloat16)",
        "torch.device('meta')",
        "torch.autograd.forward_ad.dual_level()",
    ],
)
def test_a_first_render_and_growth_under_a_mode_do_no_harm_afterwards(mode: str) -> None:
    run_program(
        f"""
tr.init(ARCH, PRECISION)
# Second derivatives, which take long to compile, after the mode that is the strictest.
orders = 4 if "inference" in {mode!r} else 3
one, other = scene(1)[:orders], scene(2, faces=40, size=(20, 20))[:orders]
def render(case, x, *_):
    return case.ours({{name: value.to(DTYPE) for name, value in x.items()}})
if "meta" in {mode!r}:
    render = lambda case, x, *_: tr.runtime()
from taichi_raster.engine.engine import engine
with {mode}:
    render(*one)
    tr.in_runtime_thread(engine().scratch.reserve, x=1 << 21, y=1 << 22)
    render(*other)
check(*one)
check(*other)
"""
    )
