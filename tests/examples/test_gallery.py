"""The gallery draws every softening there is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gallery
from taichi_raster.softness.conorm import _GENERATORS
from taichi_raster.softness.distributions import registry

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def test_every_softening_is_on_a_sheet() -> None:
    labels = [label for label, _ in gallery.distributions(8)]
    for name in registry.known():
        assert any(label.startswith(name) for label in labels), name
    labels = [label for label, _ in gallery.conorms(8)]
    for name in _GENERATORS:
        assert any(label.startswith(name) for label in labels), name


def test_the_sheets_are_drawn(tmp_path: Path) -> None:
    gallery.main(gallery.Options(out=tmp_path, size=12))
    for name in ("distributions", "conorms", "depths", "surfaces"):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert picture.shape[1] > 900 and picture.std() > 10
