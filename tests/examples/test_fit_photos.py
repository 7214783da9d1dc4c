"""The example of photos, in small: on those that it makes itself."""

import pytest

import fit_photos
import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def test_photos_that_it_makes_become_a_textured_mesh_and_a_report(tmp_path):
    options = fit_photos.Options(
        out=tmp_path, photos=12, size=48, hold_out=(3,), faces=400, steps=12
    )
    numbers = fit_photos.main(options)
    assert numbers["held-out IoU"] > 0.93
    assert numbers["held-out PSNR within the mask, dB"] > 15
    assert len(tr.load_capture(tmp_path / "drawn_photos")) == 12
    assert tr.load_mesh(tmp_path / "mesh.glb").texture is not None
    assert "held out" in (tmp_path / "report.html").read_text()
