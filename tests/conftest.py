"""One configuration a run: `--arch`, `--precision`, the `runs_on` mark and the `dtype` fixture.

Taichi allows one backend and one precision in a process, so a run of pytest has exactly one
configuration; `tests/run_configurations.py` (what `make test` calls) does a run for each.
"""

import gc
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch

import taichi_raster as tr

hypothesis.settings.register_profile(
    "taichi_raster",
    deadline=None,  # the first example compiles kernels
    derandomize=True,
    max_examples=25,
)
hypothesis.settings.load_profile("taichi_raster")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("taichi_raster")
    group.addoption("--arch", default="cpu", choices=("cpu", "vulkan", "cuda"), help="backend")
    group.addoption("--precision", default="f64", choices=("f32", "f64"), help="of the kernels")
    group.addoption("--part", default="1/1", help="k/n: the k-th n-th of the test files")


def pytest_sessionstart(session: pytest.Session) -> None:
    torch.set_num_threads(1)  # tensors are tiny: waking threads costs more than they do
    arch, precision = _configuration(session.config)
    try:
        tr.init(arch=arch, precision=precision)
    except (RuntimeError, ValueError) as error:
        raise pytest.UsageError(f"--arch={arch} --precision={precision}: {error}") from error
    # Tracing kernels makes many objects that stay: to look through them again and again took 5%.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_report_header(config: pytest.Config) -> str:
    return "taichi_raster: arch {}, precision {}".format(*_configuration(config))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no other part's files: that takes seconds."""
    if collection_path.match("test_*.py") and collection_path not in _files_of_part(config):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    arch, precision = _configuration(config)
    files = _files_of_part(config)  # one named on the command line is collected in any case
    selected: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        wanted = item.path in files and all(
            arch in _allowed(item, mark, "arch", arch)
            and precision in _allowed(item, mark, "precision", precision)
            for mark in item.iter_markers("runs_on")
        )
        (selected if wanted else deselected).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = selected


def _files_of_part(config: pytest.Config) -> frozenset[Path]:
    """The files of tests that part "k/n" of a run has."""
    return _files(config.getoption("--part"))


@cache
def _files(part: str) -> frozenset[Path]:
    k, _, n = part.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise pytest.UsageError(f"--part: expected k/n with 1 <= k <= n, got {part!r}")
    every = sorted(Path(__file__).parent.rglob("test_*.py"))
    # Files of a folder stay together: many use the same kernels, which a process compiles once.
    first, last = (i * len(every) // int(n) for i in (int(k) - 1, int(k)))
    return frozenset(every[first:last])


def _configuration(config: pytest.Config) -> tuple[str, str]:
    return config.getoption("--arch"), config.getoption("--precision")


def _allowed(item: pytest.Item, mark: pytest.Mark, key: str, default: str) -> tuple[str, ...]:
    """What a `runs_on` mark allows for `key`; one that does not name it allows anything."""
    if mark.args or set(mark.kwargs) - {"arch", "precision"}:
        raise pytest.UsageError(f"{item.nodeid}: runs_on takes only arch=... and precision=...")
    value = mark.kwargs.get(key, default)
    return (value,) if isinstance(value, str) else tuple(value)


@pytest.fixture
def dtype() -> torch.dtype:
    """The torch dtype of this run's precision."""
    return tr.runtime().dtype
