"""Objects before cameras: where their points are seen, and how these move with the poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from taichi_raster.fitting.point_motions import point_motions
from taichi_raster.fitting.pose_planes import SeenPlanes
from taichi_raster.render.hard import visible_faces
from taichi_raster.render.packing import View
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose, centre_and_size

_FLIPPED = (1.0, -1.0, 1.0, 1.0)
"""From this package's camera axes to OpenCV's, and back."""


@dataclass(frozen=True, eq=False)
class Surface:
    """What pixels see.

    Attributes:
        row, column: (n,) of pixels that see one object, and only that, all around.
        owner: (n,) which object.
        z: (n,) its distance along the optical axis, in the scene's unit.
        slope: (n, 2) of z along x and y of NDC.
        motions: (6, n, 3) of the point that is seen, in NDC and z, by its own object's unknowns.
        objects: (H, W) which object each pixel's centre sees; -1 for none.
    """

    row: Int[Tensor, " n"]
    column: Int[Tensor, " n"]
    owner: Int[Tensor, " n"]
    z: Float[Tensor, " n"]
    slope: Float[Tensor, "n 2"]
    motions: Float[Tensor, "6 n 3"]
    objects: Int[Tensor, "H W"]


@dataclass(frozen=True, eq=False)
class PoseScene:
    """Objects, and cameras whose places among each other are known.

    Poses are of an object about its centre to the first camera, in OpenCV's axes and in the scene's
    unit, which is the mean of the objects' sizes.

    Attributes:
        meshes: about their centres, in the scene's unit.
        centres: (K, 3) in the meshes' own frames and units.
        sizes: of the objects, in the scene's unit.
        unit: in the objects' units.
        cameras: each at the origin.
        from_first: (P, 4, 4), from the first camera's axes (y up) to each one's.
        first: (4, 4), from the world to the first camera.
    """

    meshes: tuple[Mesh, ...]
    centres: Float[Tensor, "K 3"]
    sizes: tuple[float, ...]
    unit: float
    cameras: tuple[Camera, ...]
    from_first: Float[Tensor, "P 4 4"]
    first: Float[Tensor, "4 4"]

    @staticmethod
    def of(meshes: Sequence[Mesh], cameras: Sequence[Camera]) -> PoseScene:
        """From meshes in their own frames, and cameras in one world."""
        found = [centre_and_size(mesh.vertices.detach().double()) for mesh in meshes]
        unit = sum(float(size) for _, size in found) / len(found)
        local = tuple(
            replace(mesh, vertices=((mesh.vertices.detach().double() - centre) / unit).float())
            for mesh, (centre, _) in zip(meshes, found, strict=True)
        )
        views = torch.cat([camera.view.detach().double() for camera in cameras])
        between = product(views, torch.linalg.inv(views[:1]).expand_as(views))
        between = torch.cat([between[:, :, :3], between[:, :, 3:]], dim=2)
        between[:, :3, 3] /= unit
        eye = torch.eye(4, dtype=torch.float64)[None]
        return PoseScene(
            local,
            torch.cat([centre for centre, _ in found]),
            tuple(float(size) / unit for _, size in found),
            unit,
            tuple(replace(camera, view=eye.to(camera.view)) for camera in cameras),
            between,
            views[0],
        )

    @property
    def unknowns(self) -> int:
        """How many: six for each object."""
        return 6 * len(self.meshes)

    @property
    def faces(self) -> Int[Tensor, "F 3"]:
        """Of all objects."""
        before, found = 0, []
        for mesh in self.meshes:
            found.append(mesh.faces + before)
            before += len(mesh.vertices)
        return torch.cat(found)

    @property
    def owners(self) -> Int[Tensor, " F"]:
        """The object of each face."""
        return torch.cat([torch.full((len(m.faces),), k) for k, m in enumerate(self.meshes)])

    # Poses in other frames -----------------------------------------------------------------------

    def local(self, world: Pose) -> Pose:
        """From poses (K) of objects in their own frames to the world."""
        to_camera = product(self._opencv, world.opencv.double())
        turned = product(to_camera[:, :3, :3], self.centres[..., None])[..., 0]
        return Pose(to_camera[:, :3, :3], (to_camera[:, :3, 3] + turned) / self.unit)

    def world(self, local: Pose) -> Pose:
        """The inverse of `local`."""
        turned = product(local.rotation, self.centres[..., None])[..., 0]
        matrix = Pose(local.rotation, self.unit * local.translation - turned).opencv
        found = product(torch.linalg.inv(self._opencv), matrix)
        return Pose(found[:, :3, :3], found[:, :3, 3])

    def in_given_units(self, covariance: Tensor, local: Pose) -> Tensor:
        """From that of the unknowns to radians and the objects' units, in the world's axes."""
        change = torch.zeros(self.unknowns, self.unknowns, dtype=torch.float64)
        back = self._opencv[:3, :3].T
        for k, size in enumerate(self.sizes):
            own = torch.diag(torch.tensor([1.0, 1.0, 1.0, size, size, 0.0]).double())
            own[3:, 5] = local.translation[k].double()
            own[3:] *= self.unit
            change[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] = product(
                torch.block_diag(back, back), own
            )
        return product(product(change, covariance), change.mT)

    @property
    def _opencv(self) -> Tensor:
        """(4, 4) from the world to the first camera, y down."""
        return torch.tensor(_FLIPPED).double()[:, None] * self.first

    def moved(self, local: Pose, unknowns: Float[Tensor, " n"]) -> Pose:
        """Each object by its six."""
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        return local.moved(unknowns.reshape(-1, 6), size=sizes)

    # Pictures ------------------------------------------------------------------------------------

    def points(
        self, local: Pose, photo: int, unknowns: Float[Tensor, "N n"] | None = None
    ) -> Float[Tensor, "N V 3"]:
        """The vertices of all objects in a photo, in NDC, each row moved by its unknowns."""
        if unknowns is None:
            unknowns = torch.zeros(1, self.unknowns, dtype=torch.float64)
        seen = [
            self._of_object(k, mesh.vertices, local, photo, unknowns[:, 6 * k : 6 * k + 6])
            for k, mesh in enumerate(self.meshes)
        ]
        found: Tensor = self.cameras[photo].to_image(torch.cat(seen, dim=1))
        return found

    def _of_object(
        self, k: int, vertices: Tensor, local: Pose, photo: int, unknowns: Tensor
    ) -> Tensor:
        """(N, V, 3) in camera space."""
        view = self._view(k, local, photo, unknowns)
        corners = vertices.to(view)[None]
        return (view[:, None, :3, :3] * corners[:, :, None]).sum(-1) + view[:, None, :3, 3]

    def _view(self, k: int, local: Pose, photo: int, unknowns: Tensor) -> Float[Tensor, "N 4 4"]:
        """From an object to a camera's space."""
        rows = len(unknowns)
        rotation, place = local.rotation[k], local.translation[k]
        many = Pose(rotation.expand(rows, 3, 3), place.expand(rows, 3))
        view = many.moved(unknowns.double(), size=self.sizes[k]).view
        return product(self.from_first[photo].expand(rows, 4, 4), view)

    def depths(self, local: Pose, photo: int) -> tuple[float, float]:
        """(near, far) for the renderers."""
        centres = torch.tensor(_FLIPPED[:3]).double() * local.translation.double()
        z = product(centres, self.from_first[photo, 2, :3, None])[:, 0]
        z = z + self.from_first[photo, 2, 3]
        size = torch.tensor(self.sizes, dtype=torch.float64)
        near = 0.2 * float((z - size).min())
        return max(near, 1e-3), 5 * max(float((z + size).max()), 1.0)

    def surface(
        self,
        local: Pose,
        photo: int,
        size: tuple[int, int],
        known: Bool[Tensor, "H W"],
        margin: int = 1,
        hiding: bool = False,
        moving: bool = True,
    ) -> Surface | None:
        """What pixels see that are so far from an outline, or None.

        With `hiding`, they are as far from where an object hides a part of itself, too. Motions
        are 0 unless `moving`.
        """
        near, far = self.depths(local, photo)
        points = self.points(local, photo)[0]
        faces, owners = self.faces, self.owners
        corners = points[faces]
        if not bool((corners[..., 2] > near).all(-1).any()):
            return None
        view = View(*size, near, far, False, "ccw", False)
        seen = visible_faces(corners[None].float(), view)[0]
        objects = torch.where(seen >= 0, owners[seen.clamp(min=0)], -1)
        whole = _alone(objects, margin) & known
        at = SeenPlanes.of(corners, seen, seen >= 0 if hiding else whole)
        if hiding:
            whole &= ~at.beside_a_jump(size, margin)
            at = at.within(whole)
        row, column, face, weights, z = at.row, at.column, at.face, at.weights, at.z
        owner = owners[face]
        motions = torch.zeros(6, len(row), 3, dtype=torch.float64)
        before = 0
        for k, mesh in enumerate(self.meshes):
            mine = owner == k
            own = mesh.vertices.double()[faces[face[mine]] - before]
            point = (own * (weights[mine] * z[mine, None])[..., None]).sum(1)
            if moving:
                motions[:, mine] = self._motions(k, point, local, photo)
            before += len(mesh.vertices)
        return Surface(row, column, owner, z, at.slope, motions, objects)

    def _motions(self, k: int, points: Tensor, local: Pose, photo: int) -> Float[Tensor, "6 n 3"]:
        def view(unknowns: Tensor) -> Tensor:
            return self._view(k, local, photo, unknowns)

        return point_motions(self.cameras[photo], view, points, 6)

    def corners(self, local: Pose, photo: int, unknowns: Tensor | None = None) -> Tensor:
        """(N, F, 3, 3), as the renderers take them."""
        return gather_faces(self.points(local, photo, unknowns).float(), self.faces)

    def motion(self, one: Pose, two: Pose, photo: int, size: tuple[int, int]) -> float:
        """How far vertices move from one pose to another, root mean square, in pixels."""
        change = (self.points(one, photo) - self.points(two, photo))[..., :2]
        return float(change.square().sum(-1).mean().sqrt()) * min(size) / 2


def _alone(objects: Int[Tensor, "H W"], margin: int) -> Bool[Tensor, "H W"]:
    """Pixels that see an object, as do all others so near."""
    pad, side = 4 * (margin,), 2 * margin + 1
    padded = torch.nn.functional.pad(objects[None, None].float(), pad, mode="replicate")
    most = torch.nn.functional.max_pool2d(padded, side, 1)[0, 0]
    least = -torch.nn.functional.max_pool2d(-padded, side, 1)[0, 0]
    return (most == least) & (objects >= 0)
