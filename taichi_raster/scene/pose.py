"""Where an object stands before a camera, in the frames of other software, and moved by little.

Rotations are converted by roma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.movable import Movable

_ORTHONORMAL = 1e-3
"""How far a rotation's rows may be from orthonormal: files often have but four decimals."""

_FRAME = "OpenCV: x right, y down, z forward; camera = rotation * object + translation"


@dataclass(frozen=True, eq=False)
class Pose(Movable):
    """Object to camera: camera = rotation object + translation, in *OpenCV's* axes.

    OpenCV's camera has x right, y down and z forward. `opencv`, `opengl`, `bop` and `view` give the
    same pose to others; the units are the object's, but BOP's millimetres.

    Attributes:
        rotation: (B, 3, 3), or (3, 3) for one.
        translation: (B, 3), or (3,).

    Raises:
        ValueError: for another shape, NaN or infinite entries, or a matrix that is not a rotation.

    Example:
        >>> pose = tr.Pose.from_quaternion([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 3.0], order="xyzw")
        >>> camera = tr.PinholeCamera(pose.view, focal=(2.0, 2.0))
    """

    rotation: Float[Tensor, "B 3 3"]
    translation: Float[Tensor, "B 3"]

    def __post_init__(self) -> None:
        rotation = checks.array("rotation", self.rotation)
        translation = checks.array("translation", self.translation, rotation.dtype)
        rotation = rotation[None] if rotation.ndim == 2 else rotation
        translation = translation[None] if translation.ndim == 1 else translation
        if rotation.ndim != 3 or rotation.shape[1:] != (3, 3):
            raise ValueError(f"rotation: must be (B, 3, 3), got {tuple(rotation.shape)}")
        if translation.shape[1:] != (3,) or len({1, len(rotation), len(translation)}) > 2:
            raise ValueError(
                f"translation: must be (B, 3) with B = {len(rotation)}, got "
                f"{tuple(translation.shape)}"
            )
        batch = max(len(rotation), len(translation))
        checks.finite("NaN or infinite entries", "rotation", rotation)
        checks.finite("NaN or infinite entries", "translation", translation)
        _check_rotation(rotation.detach())
        object.__setattr__(self, "rotation", rotation.expand(batch, 3, 3))
        object.__setattr__(self, "translation", translation.expand(batch, 3))

    def __len__(self) -> int:
        return len(self.rotation)

    # From other representations ------------------------------------------------------------------

    @classmethod
    def from_quaternion(cls, quaternion: Any, translation: Any, order: str) -> Pose:
        """From quaternions (B, 4) of any length but 0.

        `order` is "xyzw" (roma's, SciPy's and glTF's) or "wxyz" (COLMAP's).
        """
        import roma  # here, as it takes a second: it imports torch's compiler

        found = _rows("quaternion", quaternion, 4)
        if checks.choice("order", order, "xyzw", "wxyz") == "wxyz":
            found = found[..., [1, 2, 3, 0]]
        length = found.norm(dim=-1, keepdim=True)
        if not bool((length > 0).all()):
            raise ValueError("quaternion: must not be 0")
        return cls(roma.unitquat_to_rotmat(found / length), translation)

    @classmethod
    def from_rotation_vector(cls, vector: Any, translation: Any) -> Pose:
        """From rotation vectors (B, 3): axes times angles in radians, OpenCV's rvec."""
        return cls(_turned_by(_rows("vector", vector, 3)), translation)

    @classmethod
    def from_six(cls, six: Any, translation: Any) -> Pose:
        """From the first two columns of matrices (B, 6), made orthonormal by Gram and Schmidt.

        Zhou, Barnes, Lu, Yang, Li: On the Continuity of Rotation Representations in Neural
        Networks, CVPR 2019.
        """
        import roma

        columns = _rows("six", six, 6).unflatten(-1, (2, 3)).mT
        if not bool((torch.linalg.cross(*columns.unbind(-1)).norm(dim=-1) > 0).all()):
            raise ValueError("six: the two columns must be independent")
        return cls(roma.special_gramschmidt(columns), translation)

    @classmethod
    def from_opencv(cls, matrix: Any) -> Pose:
        """From (B, 4, 4) or (B, 3, 4), object to camera, x right, y down, z forward."""
        found = checks.array("matrix", matrix)
        found = found[None] if found.ndim == 2 else found
        if found.ndim != 3 or tuple(found.shape[1:]) not in ((4, 4), (3, 4)):
            raise ValueError(f"matrix: must be (B, 4, 4) or (B, 3, 4), got {tuple(found.shape)}")
        return cls(found[:, :3, :3], found[:, :3, 3])

    @classmethod
    def from_opengl(cls, matrix: Any) -> Pose:
        """From (B, 4, 4) or (B, 3, 4), object to eye, x right, y up, z *back*: a modelview."""
        pose = _unchecked(checks.array("matrix", matrix))
        return cls.from_opencv(pose.new_tensor([1.0, -1.0, -1.0])[:, None] * pose)

    @classmethod
    def from_bop(
        cls, rotation: Any, translation: Any, millimetres_per_unit: float | Tensor = 1.0
    ) -> Pose:
        """From BOP's cam_R_m2c, 9 numbers row by row, and cam_t_m2c, in millimetres.

        `millimetres_per_unit` is 1000 if the object's mesh is in metres. BOP's axes are OpenCV's.
        """
        found = _rows("rotation", rotation, 9).unflatten(-1, (3, 3))
        unit = checks.positive("millimetres_per_unit", millimetres_per_unit)
        return cls(found, _rows("translation", translation, 3) / unit)

    @classmethod
    def from_view(cls, view: Any) -> Pose:
        """From a view matrix (B, 4, 4) of this package: x right, y up, z forward."""
        pose = _unchecked(checks.array("view", view))
        return cls.from_opencv(pose.new_tensor([1.0, -1.0, 1.0])[:, None] * pose)

    # To others -----------------------------------------------------------------------------------

    def quaternion(self, order: str) -> Float[Tensor, "B 4"]:
        """Unit quaternions; `order` is "xyzw" or "wxyz"."""
        import roma

        found: Tensor = roma.rotmat_to_unitquat(self.rotation)
        wanted = checks.choice("order", order, "xyzw", "wxyz")
        return found if wanted == "xyzw" else found[..., [3, 0, 1, 2]]

    def rotation_vector(self) -> Float[Tensor, "B 3"]:
        """Axes times angles in radians, up to pi: OpenCV's rvec."""
        import roma

        found: Tensor = roma.rotmat_to_rotvec(self.rotation)
        return found

    def six(self) -> Float[Tensor, "B 6"]:
        """The first two columns of the rotations."""
        return self.rotation[..., :2].mT.flatten(1)

    @property
    def opencv(self) -> Float[Tensor, "B 4 4"]:
        """Object to camera, x right, y down, z forward."""
        return self._matrix(1.0, 1.0, 1.0)

    @property
    def opengl(self) -> Float[Tensor, "B 4 4"]:
        """Object to eye, x right, y up, z back: a modelview matrix that acts on columns."""
        return self._matrix(1.0, -1.0, -1.0)

    @property
    def view(self) -> Float[Tensor, "B 4 4"]:
        """The view matrix of this package's cameras: x right, y up, z forward."""
        return self._matrix(1.0, -1.0, 1.0)

    def bop(self, millimetres_per_unit: float = 1.0) -> list[dict[str, list[float]]]:
        """Each pose as in BOP's scene_gt.json: cam_R_m2c and, in millimetres, cam_t_m2c."""
        unit = checks.positive("millimetres_per_unit", millimetres_per_unit)
        rows = self.rotation.detach().flatten(1).tolist()
        places = (self.translation.detach() * unit).tolist()
        return [
            {"cam_R_m2c": row, "cam_t_m2c": place} for row, place in zip(rows, places, strict=True)
        ]

    def to_dict(self) -> list[dict[str, Any]]:
        """Each pose for a JSON file, with the name of its frame."""
        parts = zip(
            self.rotation.detach().tolist(), self.translation.detach().tolist(), strict=True
        )
        return [{"frame": _FRAME, "rotation": r, "translation": t} for r, t in parts]

    def _matrix(self, *signs: float) -> Tensor:
        top = torch.cat([self.rotation, self.translation[..., None]], dim=-1)
        last = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(top), 1, 4)
        return torch.cat([top.new_tensor(signs)[:, None] * top, last], dim=1)

    # Moved by little -----------------------------------------------------------------------------

    def moved(
        self, unknowns: Float[Tensor, "B 6"], centre: Any = (0.0, 0.0, 0.0), size: Any = 1.0
    ) -> Pose:
        """The pose after a small motion, in unknowns that all mean about as much in the picture.

        Nothing depends on the units of the object, or on where its origin is: all six move the
        outline by about their value times the object's size. Twice differentiable, at 0 too.

        Args:
            unknowns: (B, 6): a rotation vector about the object's centre, in radians and the
                camera's axes (x right, y down, z forward); the shift of the centre to the right
                and down, in sizes, at its depth; and the logarithm of the factor by which the
                centre goes away from the eye.
            centre: (3,) or (B, 3), of the object, in its own frame; see `centre_and_size`.
            size: a number or (B,), positive.
        """
        unknowns = _rows("unknowns", unknowns, 6)
        like = self.rotation.to(torch.promote_types(self.rotation.dtype, unknowns.dtype))
        centre, size = self._frame(centre, size, like)
        unknowns = unknowns.to(like)
        rotation = product(_turned_by(unknowns[:, :3]), like)
        place = self._place(centre, like)
        shift = torch.nn.functional.pad(size * unknowns[:, 3:5], (0, 1))
        place = (place + shift) * unknowns[:, 5:].exp()
        return Pose(rotation, place - product(rotation, centre[..., None])[..., 0])

    def unknowns_to(
        self, other: Pose, centre: Any = (0.0, 0.0, 0.0), size: Any = 1.0
    ) -> Float[Tensor, "B 6"]:
        """The unknowns by which `moved` comes to another pose.

        Raises:
            ValueError: if the object's centre is not before the camera in both.
        """
        import roma

        checks.instance("other", other, Pose)
        centre, size = self._frame(centre, size, self.rotation)
        turn = roma.rotmat_to_rotvec(product(other.rotation.to(self.rotation), self.rotation.mT))
        here, there = self._place(centre, self.rotation), other._place(centre, self.rotation)
        factor = there[:, 2:] / here[:, 2:]
        if not bool((factor > 0).all()):
            raise ValueError("other: the object's centre must be before the camera in both poses")
        shift = (there[:, :2] / factor - here[:, :2]) / size
        return torch.cat(torch.broadcast_tensors(turn, torch.cat([shift, factor.log()], -1)), -1)

    def angle_to(self, other: Pose) -> Float[Tensor, " B"]:
        """The angle between two poses' rotations, in degrees."""
        checks.instance("other", other, Pose)
        difference = (self.rotation - other.rotation.to(self.rotation)).flatten(1).norm(dim=-1)
        return torch.rad2deg(2 * torch.asin((difference / math.sqrt(8)).clamp_max(1)))

    def _frame(self, centre: Any, size: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """(1 or B, 3) and (1 or B, 1)."""
        centre = _rows("centre", centre, 3).to(like)
        size = checks.array("size", size, like.dtype, like.device).reshape(-1, 1)
        if not bool((size > 0).all()):
            raise ValueError(f"size: must be positive, got {size.flatten().tolist()}")
        return centre, size

    def _place(self, centre: Tensor, like: Tensor) -> Tensor:
        """Where the object's centre is in camera space, (B, 3)."""
        turned = product(self.rotation.to(like), centre[..., None])[..., 0]
        return turned + self.translation.to(like)


def centre_and_size(
    vertices: Float[Tensor, "B V 3"],
) -> tuple[Float[Tensor, "B 3"], Float[Tensor, " B"]]:
    """The centre of an object's bounding box, and its farthest vertex's distance from there.

    Args:
        vertices: (B, V, 3), or (V, 3) for one object.

    Raises:
        ValueError: for another shape, or if all vertices are in one point.
    """
    checks.floats("vertices", vertices)
    points = vertices[None] if vertices.ndim == 2 else vertices
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] == 0:
        raise ValueError(f"vertices: must be (B, V, 3), got {tuple(vertices.shape)}")
    centre = (points.amin(1) + points.amax(1)) / 2
    size = (points - centre[:, None]).norm(dim=-1).amax(1)
    if not bool((size > 0).all()):
        raise ValueError("vertices: all are in one point: an object must have an extent")
    return centre, size


def _turned_by(vector: Tensor) -> Tensor:
    """(B, 3, 3) of rotation vectors; roma's own has no second derivatives at 0."""
    import roma

    quarter = vector.square().sum(-1, keepdim=True) / 4  # of the squared angle
    near = quarter < 1e-3
    half = torch.where(near, torch.ones_like(quarter), quarter).sqrt()
    s = torch.where(near, quarter, torch.zeros_like(quarter))
    sinc = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72)))
    cos = 1 - s / 2 * (1 - s / 12 * (1 - s / 30 * (1 - s / 56)))
    sinc, cos = torch.where(near, sinc, half.sin() / half), torch.where(near, cos, half.cos())
    turned: Tensor = roma.unitquat_to_rotmat(torch.cat([vector * sinc / 2, cos], dim=-1))
    return turned


def _rows(name: str, value: Tensor | Sequence[float], width: int) -> Tensor:
    """(B, width) of finite numbers, from (B, width) or (width,)."""
    found = checks.array(name, value)
    found = found[None] if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[1] != width:
        raise ValueError(f"{name}: must be (B, {width}), got {tuple(found.shape)}")
    checks.finite("NaN or infinite entries", name, found)
    return found


def _unchecked(matrix: Tensor) -> Tensor:
    """The upper three rows; `from_opencv` says what is wrong with them."""
    return matrix[..., :3, :] if matrix.ndim >= 2 else matrix[..., None]


def _check_rotation(rotation: Tensor) -> None:
    double = rotation.double()
    error = (product(double, double.mT) - torch.eye(3).to(double)).abs().amax((1, 2))
    for i, wrong in enumerate(error.tolist()):
        if wrong > _ORTHONORMAL:
            raise ValueError(
                f"rotation: matrix {i} is not a rotation: its rows are not orthonormal (off by "
                f"{wrong:.3g}); a scale belongs to the object"
            )
    for i, determinant in enumerate(torch.linalg.det(double).tolist()):
        if determinant < 0:
            raise ValueError(
                f"rotation: matrix {i} mirrors: its determinant is -1. A view matrix of this "
                "package (y up, z forward) is taken by Pose.from_view, a modelview matrix by "
                "Pose.from_opengl"
            )
