"""The examples that have no file of tests of their own, in small; and the path through all."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

import backends
import compare_softenings
import fit_picture
import newton_pose
import photos_to_mesh
import pose_from_photo
import render_mesh
import taichi_raster as tr
import track_video
import triangle
import untangle_occlusion
from paths import ROOT
from tasks import Occlusion

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

EXAMPLES = ROOT / "examples"


def found(pattern: str, text: str) -> float:
    """The number that a pattern finds."""
    match = re.search(pattern, text)
    assert match, pattern
    return float(match.group(1))


def check_pictures(out: Path, names: str) -> None:
    """Each file is there and shows something; each film has more than one frame."""
    for name in names.split():
        with Image.open(out / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5, name
            assert name.endswith(".png") or picture.n_frames > 1, name


@pytest.fixture
def image(tmp_path):
    """A wide image file: dark on the left, light on the right."""
    path = tmp_path / "halves.png"
    pixels = np.full((16, 24, 3), 20, np.uint8)
    pixels[:, 12:] = (250, 220, 180)
    Image.fromarray(pixels).save(path)
    return path


def test_a_triangle_moves_onto_another_one(tmp_path):
    assert triangle.main(tmp_path / "triangle.png") < 1e-3  # 0.1 at the start
    check_pictures(tmp_path, "triangle.png")


def test_a_mesh_is_rendered(tmp_path):
    render_mesh.main(render_mesh.Options(out=tmp_path, size=24, frames=2))
    check_pictures(tmp_path, "sheet.png turntable.gif")
    for name in ("sharp.png", "soft.png"):
        alpha = np.asarray(Image.open(tmp_path / name))[..., 3]
        assert alpha.min() < 30 and alpha.max() > 250  # the mesh, and what is beside it


def test_a_mesh_without_texture_coordinates_is_rendered(tmp_path):
    path = tmp_path / "box.obj"
    tr.save_mesh(path, tr.box())
    render_mesh.main(render_mesh.Options(path, out=tmp_path / "out", size=16, frames=2))
    check_pictures(tmp_path / "out", "sharp.png soft.png sheet.png turntable.gif")


def test_photos_become_a_mesh(tmp_path):
    options = photos_to_mesh.Options(
        out=tmp_path, photos=8, size=64, steps=6, face_count=600, cells=32, film=48
    )
    assert photos_to_mesh.main(options) > 0.9
    check_pictures(tmp_path, "fit.gif")
    found = tr.load_mesh(tmp_path / "mesh.glb")
    assert (
        found.texture is not None
        and found.colour_at(
            torch.arange(len(found.faces)), torch.full((len(found.faces), 3), 1 / 3)
        )[:, :3].mean(0)[0]
        > 0.5
    )  # a yellow duck


def test_a_picture_is_drawn_with_triangles(tmp_path, image):
    out = tmp_path / "out"
    fit_picture.main(fit_picture.Options(image, out=out, triangles=12, steps=8, size=16))
    check_pictures(out, "fit.png fit.gif result.png")
    width, height = Image.open(out / "result.png").size
    assert width == 192 and 120 < height < 136  # the file's aspect, 3 : 2


def test_the_picture_drawn_without_a_file_has_many_colours():
    landscape = fit_picture.landscape(64)
    assert landscape.size == (64, 64) and len(landscape.getcolors(4096) or ()) > 100


def test_an_occlusion_is_untangled(tmp_path, capsys):
    untangle_occlusion.main(
        untangle_occlusion.Options(out=tmp_path, problems=8, shapes=3, steps=60)
    )
    check_pictures(tmp_path, "untangled.png untangling.gif")
    said = capsys.readouterr().out
    before, after = (
        found(rf"{when} +pairs in the right order ([\d.]+)%", said) for when in ("before", "after")
    )
    assert before < 75 and after > 90


def test_the_order_accuracy_is_that_of_the_task():
    task = Occlusion(4).sample(6, "test", 1)
    for depths in (task.start(), task.solution, -task.solution):
        own = untangle_occlusion.order_accuracy(task, depths)
        assert np.allclose(own, task.metrics(depths)["order_accuracy"])


def test_softenings_are_compared(tmp_path):
    learned = tmp_path / "learned.safetensors"
    tr.save_softness(learned, tr.MLPSoftness((2, 2), scale=tr.Knots([0.1, 0.02])))
    out = tmp_path / "out"
    compare_softenings.main(
        compare_softenings.Options(out=out, problems=4, steps=4, size=12, learned=learned)
    )
    check_pictures(out, "convergence.png solved.png solving.gif")
    rows = (out / "table.md").read_text().splitlines()[2:]
    for name in [*compare_softenings.SOFTENINGS, "learned"]:
        assert any(row.startswith(f"| {name} |") for row in rows), name


def test_newton_steps_reach_the_pose(tmp_path, capsys):
    newton_pose.main(
        newton_pose.Options(
            out=tmp_path, precision="f32", poses=1, size=16, adam_steps=4, newton_steps=15
        )
    )
    check_pictures(tmp_path, "convergence.png poses.png")
    said = " ".join(capsys.readouterr().out.split())
    assert found(r"Jacobian against differences: (\S+)", said) < 0.02
    assert found(r"asymmetry of the Hessian: (\S+)", said) < 1e-3
    assert re.search(r"Gauss-Newton │ 1/1", said)


def test_a_pose_is_found_in_a_photo(tmp_path, capsys):
    fit = pose_from_photo.main(pose_from_photo.Options(out=tmp_path, size=72))
    check_pictures(tmp_path, "overlay.png")
    assert fit.converged
    assert found(r"off by ([\d.]+) degrees", capsys.readouterr().out) < 1


def test_a_clip_is_tracked_past_what_hides_the_object(tmp_path):
    options = track_video.Options(out=tmp_path, frames=7, size=96)
    tracked = track_video.main(options)
    check_pictures(tmp_path, "tracked.gif")
    seen = [now.converged for now in tracked]
    hidden = [0.5 < now.frame / 6 < 0.67 for now in tracked]
    assert seen[0] and seen[-1] and not any(a and b for a, b in zip(seen, hidden, strict=True))
    last = tracked[-1].pose
    assert float(last.angle_to(track_video.true_pose(1.0))) < 1


def test_backends_are_compared(tmp_path):
    """In processes of their own, so that float64 works beside this run's float32."""
    options = backends.Options(tmp_path, "cpu", size=16, subdivisions=0, repeats=1, timeout=2000.0)
    backends.main(options)
    check_pictures(tmp_path, "backends.png")
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| cpu f64", "| cpu f32"]
    assert rows[0][1:4] == ["-", "-", "-"]
    assert all(0 < float(difference) < 1e-3 for difference in rows[1][1:4])


def test_a_backend_that_is_not_there_is_left_out_with_the_reason(tmp_path):
    reason = backends.started("abacus", "f32", backends.Options(tmp_path))
    assert isinstance(reason, str) and reason.startswith("arch: unknown backend 'abacus'")


@pytest.mark.parametrize(
    ("module", "arguments", "complaint"),
    [
        (render_mesh, ["absent.obj"], "absent.obj: there is no such mesh file"),
        (render_mesh, ["--size", "0"], "--size: must be at least 1"),
        (fit_picture, ["absent.jpg"], "absent.jpg"),
        (fit_picture, [__file__], "cannot identify image file"),
        (fit_picture, ["--triangles", "0"], "--triangles: must be at least 1"),
        (untangle_occlusion, ["--shapes", "1"], "--shapes: must be 2 to 12"),
        (untangle_occlusion, ["--gamma", "0"], "--gamma: must be one or two positive numbers"),
        (compare_softenings, ["--learned", "absent.safetensors"], "absent.safetensors"),
        (newton_pose, ["--scale", "-1"], "--scale: must be positive"),
        (newton_pose, ["--arch", "vulkan", "--precision", "f64"], "not available on Vulkan"),
        (backends, ["--repeats", "0"], "--repeats: must be at least 1"),
        (pose_from_photo, ["absent.obj"], "mesh, photo, mask: give all three, or none"),
        (track_video, ["absent.obj"], "mesh, video, start: give all three, or none"),
    ],
)
def test_bad_input_is_a_clear_error(tmp_path, monkeypatch, capsys, module, arguments, complaint):
    """Of tyro where an option alone is wrong, else of one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError, SystemExit)) as caught:
        module.main(tyro.cli(module.Options, args=arguments))
    assert "\n" not in str(caught.value)
    assert complaint in str(caught.value) + capsys.readouterr().err


def test_each_ends_with_that_line_and_without_a_traceback():
    """What turns the errors above into "NAME: ..." is the same few lines in every example."""
    for module in (
        backends,
        compare_softenings,
        fit_picture,
        newton_pose,
        pose_from_photo,
        render_mesh,
        track_video,
        untangle_occlusion,
    ):
        source = (EXAMPLES / f"{module.__name__}.py").read_text()
        assert f'raise SystemExit(f"{module.__name__}: {{error}}") from error' in source


def test_the_path_leads_to_every_example_by_a_command_that_it_states_itself():
    readme = (EXAMPLES / "README.md").read_text()
    for path in sorted(EXAMPLES.glob("*.py")):
        assert f"examples/{path.name}" in readme, path.name
        assert f"python examples/{path.name}" in (
            ast.get_docstring(ast.parse(path.read_text())) or ""
        )
