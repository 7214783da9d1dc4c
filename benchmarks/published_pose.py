"""The published pose experiment on any mesh: a softening that never saw it, beside fixed ones.

    python benchmarks/published_pose.py MESH --softening FILE|NAME
    python benchmarks/published_pose.py MESH --softening pose --fixed out/study/pose/best.json

24 poses with unknown distance, field of view, elevation and azimuth, from silhouettes of 64 x 64
pixels; starts 15 to 35, 35 to 55 and 55 to 75 degrees off (Petersen et al., GenDR, CVPR 2022; see
`tasks.Pose.published`). The unknowns are scaled as the softness was learned with, angles in
radians and the logarithm of the distance; truths and starts are those of `Pose.published`. What is
solved is kept: a stopped run resumes where it was. Learning a softness *on* these poses instead is
`python examples/recover_pose.py MESH --online`.

Into `out/published_pose/` go a JSON file for each run, and table.md.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from tyro.conf import Positional

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from meta.outer.checkpoint import fingerprint, load_json, require_equal, save_json
from meta.search.fixed import FixedSoftness, fixed_method
from tasks.pose import LARGEST_RADIUS, Pose

RANGES = ((15.0, 35.0), (35.0, 55.0), (55.0, 75.0))
RULE = Adam(betas=(0.9, 0.99))


@dataclass(frozen=True)
class Options:
    """The published pose experiment; see the top of the file.

    Args:
        mesh: any file that trimesh reads; it is scaled only if it reaches farther than 1.5.
        softening: a file that a study of poses made, or a name of `tr.pretrained_names()`.
        fixed: best.json of that study: the fixed softnesses that it tuned, to compare with.
        steps: of Adam; schedules stretch to them.
        poses: how many, side by side.
        known_fov: tell the field of view.
        seed: of poses and starts.
        out: folder of the results.
        arch: backend.
    """

    mesh: Positional[Path]
    softening: str
    fixed: Path | None = None
    steps: int = 200
    poses: int = 24
    known_fov: bool = False
    seed: int = 0
    out: Path = Path("out/published_pose")
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    mesh = tr.load_mesh(options.mesh)
    if float(mesh.vertices.norm(dim=1).max()) > LARGEST_RADIUS:
        mesh = tr.normalise(mesh)
    tr.init(arch=options.arch)
    path = Path(options.softening)
    softening = tr.load_softening(path) if path.is_file() else tr.pretrained(options.softening)
    fixed: dict[str, FixedSoftness] = {}
    if options.fixed is not None:
        entries = load_json(options.fixed, "best-fixed")["configurations"]
        fixed = {
            name: FixedSoftness.from_json(entry)
            for name, entry in entries.items()
            if name.startswith("best")
        }
    console = Console()
    lines = [
        "| softness | " + " | ".join(f"{a:g}° to {b:g}°" for a, b in RANGES) + " |",
        "|" + " --- |" * (len(RANGES) + 1),
    ]
    for name in ["learned", *fixed]:
        cells = []
        for start in RANGES:
            family = replace(
                Pose.published(mesh, start, unknown_fov=not options.known_fov, seed=options.seed),
                units="scaled",
            )
            if name == "learned":
                renderer = family.renderer(softening.drawn_edge, softening.depth, softening.alpha)
                if softening.lr is None:
                    raise ValueError("softening: it has no learning rate")
                method = Method(renderer, RULE, softening.lr, options.steps)
            else:
                method = fixed_method(fixed[name], family.renderer, RULE, options.steps)
            cells.append(solved(options, name, method, family))
            console.print(f"{name}, {start[0]:g} to {start[1]:g} degrees: {cells[-1]}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    console.print("\n".join(lines), highlight=False, markup=False)


def solved(options: Options, name: str, method: Method, family: Pose) -> str:
    """Solve the poses, or take what was solved before: successes and the median error."""
    low, _ = family.start_angle
    path = options.out / f"{options.mesh.stem} {low:g} {name.replace(',', '')}.json"
    settings = {
        "family": repr(replace(family, meshes="procedural")),
        "mesh": options.mesh.name,
        "steps": options.steps,
        "poses": options.poses,
        "parameters": {key: value.tolist() for key, value in method.state_dict().items()},
        "method": fingerprint(method),
        "mesh_sha256": hashlib.sha256(options.mesh.read_bytes()).hexdigest(),
    }
    if path.is_file():
        content = load_json(path, "published-pose")
        require_equal(path, content["settings"], settings)
        metrics = {key: np.array(row) for key, row in content["metrics"].items()}
    else:
        task = family.sample(options.poses, "test", 0)
        begin = time.perf_counter()
        found = unroll(method, task).params
        seconds = time.perf_counter() - begin
        rows = {key: value.tolist() for key, value in task.metrics(found).items()}
        save_json(
            path,
            {"kind": "published-pose", "settings": settings, "metrics": rows, "seconds": seconds},
        )
        metrics = {key: np.array(row) for key, row in rows.items()}
    count = int(metrics["published_success"].sum())
    median = np.median(metrics["parameter_error"])
    return f"{count}/{len(metrics['failure'])}, median {median:.2f}°"


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"published_pose: {error}") from error
