"""The smallest program: a triangle moves onto another one (python examples/triangle.py)."""

from pathlib import Path

import torch
from PIL import Image

import taichi_raster as tr

RED = torch.tensor([1.0, 0.2, 0.1]).expand(1, 1, 3, 3)  # batch, faces, corners, channels
START = torch.tensor([[[[-0.8, -0.7, 2.0], [0.1, -0.6, 2.0], [-0.5, 0.3, 2.0]]]])
TARGET = torch.tensor([[[[-0.3, -0.5, 2.0], [0.8, -0.2, 2.0], [0.2, 0.7, 2.0]]]])  # x, y, depth


def main(out: Path = Path("out/triangle.png"), steps: int = 100) -> float:
    """Write start, end and target side by side; the end's mean squared error."""
    soft = tr.SoftRasterizer(
        128, tr.Distribution("logistic", tr.Geometric(0.1, 0.01)), tr.OverDepth()
    )
    sharp = tr.SharpRasterizer(128)
    target, corners = sharp(TARGET, RED), START.clone().requires_grad_()
    for step in tr.Descent(torch.optim.Adam([corners], lr=0.02), steps):
        step.descend((soft(corners, RED, progress=step.progress) - target).square().mean())
    images = [sharp(START, RED), sharp(corners.detach(), RED), target]
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat(images, 2)[0, ..., :3].mul(255).byte().numpy()).save(out)
    return float((images[1] - target).square().mean())


if __name__ == "__main__":
    print(f"mean squared error {main():.2g}; see out/triangle.png")
