"""A printed box: its pose from a photo and a mask, its texture from that photo, then its video.

    python benchmarks/box.py FOLDER
    python benchmarks/box.py FOLDER --every 5 --judge

FOLDER has photo.jpg, mask.png, box.ply, truth.json, correspondences.npz and box.mp4, after OpenCV's
sample of real-time pose estimation.

truth.json and correspondences.npz belong together, but to another photo than photo.jpg. So the
pose from a mask is judged twice. By truth.json, with a mask that is drawn here: the polygon of the
box in that pose. And in photo.jpg with mask.png, by the box's seven corners, read off by eye.

The video's camera is not known: its focal length is chosen by how well the texture fits a frame.
With --judge (it needs opencv-python-headless), frames are judged by OpenCV alone: SIFT matches
between the photo and the frame, and PnP by RANSAC of the surface points that the photo shows.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw
from scipy.optimize import least_squares
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr

SIZE = (18.9, 25.8, 7.5)
"""Centimetres."""

CORNERS = (
    ((18.9, 25.8, 7.5), (317.0, 81.5)),
    ((0.0, 25.8, 7.5), (117.5, 174.0)),
    ((0.0, 25.8, 0.0), (128.5, 257.5)),
    ((0.0, 0.0, 7.5), (339.0, 322.0)),
    ((0.0, 0.0, 0.0), (349.5, 416.5)),
    ((18.9, 0.0, 7.5), (550.5, 207.0)),
    ((18.9, 0.0, 0.0), (551.5, 299.0)),
)
"""The box's corners in photo.jpg (pixels' centres at whole numbers), to about two pixels."""

FIRST = ((2.09, -1.33, 0.52), (21.1, 0.0, 64.6))
"""About where the box is in the video's first frame, for a focal length of 680 pixels."""

EDGES = [(a, b) for a in range(8) for b in range(a) if (a ^ b).bit_count() == 1]


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        folder: of the data.
        out: where pictures and poses go.
        starts: for each pose, each 30 degrees off in another direction.
        every: take the first of so many frames.
        judge: judge frames by OpenCV.
        focal: of the video, in pixels; without, it is looked for.
    """

    folder: Positional[Path]
    out: Path = Path("out/box")
    starts: int = 6
    every: int = 1
    judge: bool = False
    focal: float | None = None


def main(options: Options) -> None:
    tr.init("cpu")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    mesh = tr.load_mesh(options.folder / "box.ply")
    told = json.loads((options.folder / "truth.json").read_text())
    lens = told["intrinsics"]
    photo, mask = picture(options.folder / "photo.jpg"), picture(options.folder / "mask.png")
    size = mask.shape[0], mask.shape[1]
    camera = pinhole(size, lens)
    truth = tr.Pose.from_rotation_vector(
        torch.tensor([told["pose_opencv"]["rotation_vector"]]).double(),
        torch.tensor([told["pose_opencv"]["translation"]]).double(),
    )
    points = np.load(options.folder / "correspondences.npz")
    off = pixels(points["points"], truth, lens) - points["pixels"]
    print(f"truth.json, correspondences: {np.median(np.linalg.norm(off, axis=1)):.2f} pixels off")
    drawn = polygon(pixels(mesh.vertices.numpy(), truth, lens), size)
    for fit in from_starts("truth.json, drawn mask", mesh, camera, drawn, truth, options.starts):
        fit = nearest(fit, truth, mesh)
        off = pixels(points["points"], fit, lens) - points["pixels"]
        print(f"    correspondences: {np.median(np.linalg.norm(off, axis=1)):.2f} pixels off")
    reference, rms = by_corners(lens, truth)
    print(f"photo.jpg: corners by eye, {rms:.1f} pixels (root mean square) from a box")
    inside = (mask[..., 0] > 0.5).float()
    fits = list(from_starts("photo.jpg, mask.png", mesh, camera, inside, reference, options.starts))
    pose = nearest(fits[0], reference, mesh)
    begin = time.perf_counter()
    seen = replace(camera, view=pose.view.to(camera.view))
    # Half of the faces are wound the wrong way round, which the size of a texture would go by.
    textured = tr.texture_from_photos(mesh, [photo], [seen], [inside], size=640)
    print(f"texture: residual {textured.residual:.3f}, {time.perf_counter() - begin:.1f} s")
    track(options, textured.mesh, seen, photo, inside)


# The pose in a photo ------------------------------------------------------------------------------


def from_starts(
    name: str, mesh: tr.Mesh, camera: tr.Camera, mask: Tensor, truth: tr.Pose, count: int
) -> Iterator[tr.Pose]:
    generator = torch.Generator().manual_seed(0)
    centre, extent = tr.centre_and_size(mesh.vertices.double())
    for i in range(count):
        axis = torch.nn.functional.normalize(torch.randn(3, generator=generator).double(), dim=0)
        unknowns = torch.cat([math.radians(30) * axis, torch.zeros(3).double()])[None]
        begin = time.perf_counter()
        fit = tr.fit_pose(mesh, camera, mask, truth.moved(unknowns, centre, extent))
        seconds = time.perf_counter() - begin
        found = nearest(fit.pose, truth, mesh)
        one, two = (p.rotation[0] @ centre[0] + p.translation[0] for p in (found, truth))
        print(
            f"{name}, start {i}: {float(found.angle_to(truth)):.2f} degrees, "
            f"{100 * float((one - two).norm() / two.norm()):.2f}% of the distance, mismatch "
            f"{fit.mismatch:.4f}, converged {fit.converged}, {seconds:.1f} s",
            flush=True,
        )
        yield fit.pose


def nearest(pose: tr.Pose, truth: tr.Pose, mesh: tr.Mesh) -> tr.Pose:
    """Of the four poses in which a box looks the same, that next to the truth."""
    centre = tr.centre_and_size(mesh.vertices.double())[0][0]
    turns = [torch.diag(torch.tensor(d).double()) for d in _HALF_TURNS]
    poses = []
    for turn in turns:
        rotation = pose.rotation[0] @ turn
        shift = pose.translation[0] + pose.rotation[0] @ centre - rotation @ centre
        poses.append(tr.Pose(rotation, shift))
    return min(poses, key=lambda one: float(one.angle_to(truth)))


_HALF_TURNS = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


def by_corners(lens: dict[str, float], start: tr.Pose) -> tuple[tr.Pose, float]:
    """PnP of the corners read off photo.jpg, by least squares: (pose, root mean square)."""
    space, plane = (np.array([corner[i] for corner in CORNERS]) for i in (0, 1))

    def pose(x: Any) -> tr.Pose:
        values = torch.from_numpy(x)[None]
        return tr.Pose.from_rotation_vector(values[:, :3], values[:, 3:])

    first = np.concatenate([start.rotation_vector()[0].numpy(), start.translation[0].numpy()])
    found = least_squares(lambda x: (pixels(space, pose(x), lens) - plane).ravel(), first)
    return pose(found.x), float(np.sqrt(2 * found.cost / len(CORNERS)))


# The video ----------------------------------------------------------------------------------------


def track(options: Options, mesh: tr.Mesh, seen: tr.Camera, photo: Tensor, mask: Tensor) -> None:
    video = options.folder / "box.mp4"
    first = next(iter(tr.read_video(video)))
    size = first.shape[0], first.shape[1]
    focal = options.focal or best_focal(mesh, torch.from_numpy(first).float() / 255)
    lens = intrinsics(size, focal)
    judge = Judge(mesh, seen, photo, mask) if options.judge else None
    frames: list[np.ndarray] = []

    def kept() -> Iterator[np.ndarray]:
        for frame in tr.read_video(video, every=options.every):
            frames.append(frame)
            yield frame

    sheet, poses, offs = [], [], []
    begin = time.perf_counter()
    start = first_pose(focal)
    for found in tr.track_pose(mesh, kept(), pinhole(size, lens), start):
        frame = frames.pop()
        text = f"{found.frame * options.every} {found.agreement:.2f} {found.reason}"
        off = judge.off(frame, found.pose, lens) if judge else math.nan
        offs.append(off if found.converged else math.nan)
        if not math.isnan(off):
            text += f" {off:.1f} pixels"
        print(text, flush=True)
        poses.append({**found.pose.to_dict()[0], "converged": found.converged, "text": text})
        if (found.frame * options.every) % 15 == 0:
            sheet.append(overlay(frame, found, lens, text))
            save_sheet(options.out / f"overlay_{(len(sheet) - 1) // 9}.png", sheet)
    seconds = time.perf_counter() - begin
    (options.out / "poses.json").write_text(json.dumps(poses))
    share = np.mean([pose["converged"] for pose in poses])
    print(
        f"video: focal length {focal:.0f}, {len(poses)} frames, converged in {100 * share:.1f}%, "
        f"{seconds / len(poses):.2f} s a frame; look at {options.out}/overlay_*.png"
    )
    known = np.array(offs)[~np.isnan(offs)]
    if len(known) > 0:
        print(
            f"OpenCV's poses against these, corners, root mean square: median "
            f"{np.median(known):.1f} pixels, 90% within {np.quantile(known, 0.9):.1f}, "
            f"{100 * np.mean(known < 8):.1f}% within 8, of {len(known)} frames"
        )


def first_pose(focal: float) -> tr.Pose:
    vector, place = (torch.tensor([values]).double() for values in FIRST)
    return tr.Pose.from_rotation_vector(vector, place * torch.tensor([1.0, 1.0, focal / 680]))


def best_focal(mesh: tr.Mesh, frame: Tensor) -> float:
    found = {}
    for focal in (500.0, 600.0, 680.0, 760.0, 900.0, 1578.0):
        size = frame.shape[0], frame.shape[1]
        camera = pinhole(size, intrinsics(size, focal))
        fit = tr.fit_pose(mesh, camera, start=first_pose(focal), photo=frame)
        found[focal] = fit.correlation
        print(f"focal length {focal:.0f}: correlation {fit.correlation:.4f}", flush=True)
    return max(found, key=lambda focal: found[focal])


class Judge:
    """Poses of frames by OpenCV's SIFT and PnP, from what the photo shows of the surface."""

    def __init__(self, mesh: tr.Mesh, camera: tr.Camera, photo: Tensor, mask: Tensor) -> None:
        import cv2

        self.cv2, self.sift = cv2, cv2.SIFT_create(contrastThreshold=0.02)
        grey = (photo.mean(-1) * 255).byte().numpy()
        inside = (mask * 255).byte().numpy()
        keys, self.descriptors = self.sift.detectAndCompute(grey, inside)
        faces = tr.gather_faces(camera.project(mesh.vertices[None].double()), mesh.faces).float()
        place = tr.gather_faces(mesh.vertices[None].float(), mesh.faces)
        drawn = tr.sampled_picture(faces, place, grey.shape, 1, near=1.0, far=1e4)[0]
        where = np.array([np.round(key.pt).astype(int) for key in keys])
        self.points = drawn[where[:, 1], where[:, 0], :3].double().numpy()
        self.usable = drawn[where[:, 1], where[:, 0], 3].numpy() > 0
        self.corners = mesh.vertices.double().numpy()

    def off(self, frame: np.ndarray, pose: tr.Pose, lens: dict[str, float]) -> float:
        """Root mean square distance of the corners by both poses, in pixels; NaN if unknown."""
        keys, descriptors = self.sift.detectAndCompute(
            self.cv2.cvtColor(frame, self.cv2.COLOR_RGB2GRAY), None
        )
        pairs = self.cv2.BFMatcher().knnMatch(self.descriptors, descriptors, k=2)
        good = [a for a, b in pairs if a.distance < 0.8 * b.distance and self.usable[a.queryIdx]]
        if len(good) < 12:
            return math.nan
        space = self.points[[match.queryIdx for match in good]]
        plane = np.array([keys[match.trainIdx].pt for match in good])
        matrix = np.array([[lens["fx"], 0, lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]])
        ok, turn, shift, inliers = self.cv2.solvePnPRansac(
            space, plane, matrix, None, reprojectionError=4.0, iterationsCount=500
        )
        if not ok or inliers is None or len(inliers) < 15:
            return math.nan
        theirs = self.cv2.projectPoints(self.corners, turn, shift, matrix, None)[0][:, 0]
        off = theirs - pixels(self.corners, pose, lens)
        return float(np.sqrt((off**2).sum(1).mean()))


# Pictures -----------------------------------------------------------------------------------------


def picture(path: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).float() / 255


def pinhole(size: tuple[int, int], lens: dict[str, float]) -> tr.PinholeCamera:
    """From OpenCV's intrinsics."""
    view, short = torch.eye(4, dtype=torch.float64)[None], min(size)
    principal = (2 * lens["cx"] + 1 - size[1]) / short, (size[0] - 2 * lens["cy"] - 1) / short
    return tr.PinholeCamera(view, (2 * lens["fx"] / short, 2 * lens["fy"] / short), principal)


def intrinsics(size: tuple[int, int], focal: float) -> dict[str, float]:
    return {"fx": focal, "fy": focal, "cx": (size[1] - 1) / 2, "cy": (size[0] - 1) / 2}


def pixels(points: Any, pose: tr.Pose, lens: dict[str, float]) -> np.ndarray:
    """(n, 2) of points of the object."""
    rotation = Rotation.from_matrix(pose.rotation[0].numpy())
    seen = rotation.apply(np.asarray(points, dtype=np.float64)) + pose.translation[0].numpy()
    plane = seen[:, :2] / seen[:, 2:] * [lens["fx"], lens["fy"]] + [lens["cx"], lens["cy"]]
    return np.asarray(plane)


def polygon(points: np.ndarray, size: tuple[int, int], fine: int = 8) -> Tensor:
    """(H, W): the convex hull of points in the picture."""
    hull = points[ConvexHull(points).vertices]
    image = Image.new("L", (fine * size[1], fine * size[0]))
    ImageDraw.Draw(image).polygon([tuple(fine * (p + 0.5) - 0.5) for p in hull], fill=255)
    small = image.resize((size[1], size[0]), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small).copy()).float() / 255


def overlay(
    frame: np.ndarray, found: tr.TrackedPose, lens: dict[str, float], text: str
) -> Image.Image:
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    corners = [[SIZE[i] if k >> i & 1 else 0.0 for i in range(3)] for k in range(8)]
    place = pixels(corners, found.pose, lens)
    for a, b in EDGES:
        colour = (0, 255, 255) if found.converged else (255, 0, 0)
        draw.line([tuple(place[a]), tuple(place[b])], fill=colour, width=2)
    draw.text((8, frame.shape[0] - 20), text, fill=(0, 160, 0))
    return image


def save_sheet(path: Path, images: list[Image.Image]) -> None:
    """The last of them, up to nine."""
    images = images[(len(images) - 1) // 9 * 9 :]
    width, height = images[0].size
    sheet = Image.new("RGB", (3 * width, math.ceil(len(images) / 3) * height))
    for i, image in enumerate(images):
        sheet.paste(image, (i % 3 * width, i // 3 * height))
    sheet.save(path)


if __name__ == "__main__":
    main(tyro.cli(Options))
