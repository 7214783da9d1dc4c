"""Places in this package's kernels are written in full only where there is an error."""

import pytest
import taichi as ti
from taichi.lang.ast.ast_transformer_utils import ASTTransformerContext

import taichi_raster as tr
from taichi_raster.runtime import scratch, tracing_costs

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@pytest.fixture
def places(monkeypatch):
    """The places that are written while kernels are traced, as (file, text)."""
    written = []
    place = ASTTransformerContext.get_pos_info

    def note(context, node):
        found = place(context, node)
        written.append((context.file, found))
        return found

    monkeypatch.setattr(ASTTransformerContext, "get_pos_info", note)
    return written


def test_own_kernels_are_traced_with_file_line_and_function_alone(places) -> None:
    tr.in_runtime_thread(scratch.Scratch, tr.runtime())
    own = {text for file, text in places if file == scratch.__file__}
    assert own
    assert all(text.count("\n") == 1 for text in own)
    assert all(text.startswith(f'File "{scratch.__file__}", line ') for text in own)


@ti.kernel
def refused() -> ti.i32:
    return "no number"


def test_an_error_in_a_users_kernel_shows_its_line(places) -> None:
    with pytest.raises(ti.TaichiCompilationError) as caught:
        tr.in_runtime_thread(refused)
    assert 'return "no number"' in str(caught.value)
    assert "^^^^" in str(caught.value)
    assert all(text.count("\n") > 1 for file, text in places if file == __file__)


def test_an_error_in_an_own_kernel_shows_its_line(monkeypatch) -> None:
    monkeypatch.setattr(tracing_costs, "_OWN", __file__)
    tracing_costs._is_own.cache_clear()
    with pytest.raises(ti.TaichiCompilationError) as caught:
        tr.in_runtime_thread(refused)
    tracing_costs._is_own.cache_clear()
    assert 'return "no number"' in str(caught.value)
    assert "^^^^" in str(caught.value)


def test_installing_it_twice_is_installing_it_once() -> None:
    place = ASTTransformerContext.get_pos_info
    tracing_costs.spare_tracing()
    assert ASTTransformerContext.get_pos_info is place
