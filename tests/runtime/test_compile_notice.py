"""Who waits long for kernels to compile is told so, once."""

import logging
import time

import pytest
import taichi as ti

from taichi_raster.runtime import launcher
from taichi_raster.runtime.compile_notice import Patience
from taichi_raster.runtime.launcher import Launcher

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@ti.data_oriented
class Doubler:
    @ti.kernel
    def double(self, x: ti.i32) -> ti.i32:
        return 2 * x


def test_long_compilations_say_so_once_and_while_they_last(caplog) -> None:
    patience = Patience(0.05)
    for _ in range(2):
        with patience.while_compiling():
            time.sleep(0.5)
            assert "compiling kernels" in caplog.text
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert caplog.records[0].name == "taichi_raster.compiling"


def test_short_compilations_say_nothing_until_they_add_up(caplog) -> None:
    patience = Patience(0.6)
    with patience.while_compiling():
        pass
    assert not caplog.records
    for _ in range(3):
        with patience.while_compiling():
            time.sleep(0.25)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("arch", ["cpu", "vulkan"])  # launched directly, or by Taichi
def test_a_kernel_is_compiled_once_under_this_watch(arch, monkeypatch, caplog) -> None:
    monkeypatch.setattr(launcher, "patience", Patience(0.0))
    double = Launcher(Doubler().double, arch)
    assert [double(3), double(4)] == [6, 8]
    assert len(caplog.records) == 1
