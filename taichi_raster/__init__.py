"""A differentiable rasterizer that learns its own softness.

Conventions, for everything in this package:

* **NDC**: x right, y up, in units of half the shorter image side, so that a distance means the same
  in x and y; z is the positive distance along the view axis. In a square image the visible part is
  [-1, 1] x [-1, 1].
* **Fronts** are counter-clockwise in NDC. Culled faces, and fragments outside [near, far], are gone
  from colour and alpha. Faces with a corner at z <= 0 are not drawn: `Camera.project_faces` cuts
  those that cross the near plane first.
* **Images** are (B, H, W, C + 1): C attribute channels composited over the background, then alpha.
  Row 0 is the top; the centre of column i is at x = (2 i + 1 - W) / min(H, W).
* **Faces** are (B, F, 3, 3), their corners' (x, y, z).
* **Texture coordinates**: u right, v up, in [0, 1] over the image.
* **Signed distance** is the distance to a triangle's boundary in NDC, positive inside.
* **Barycentric coordinates** outside a triangle are those of its nearest point.
* **Progress** u runs from 0, the start of an optimisation, to 1, its end.
* Tensors have the dtype that `init` chose; parameters of softnesses may be float64 anywhere.
"""

from taichi_raster.runtime import fast_import

with fast_import.quickly():
    from taichi_raster.capture.capture import Capture, Photo
    from taichi_raster.capture.hull import visual_hull
    from taichi_raster.capture.load import load_camera, load_capture
    from taichi_raster.capture.save import save_capture
    from taichi_raster.capture.video import read_video
    from taichi_raster.depth.base import DepthSoftness
    from taichi_raster.depth.distribution import DistributionDepth
    from taichi_raster.depth.hard import HardDepth
    from taichi_raster.depth.mlp import MLPDepth
    from taichi_raster.depth.over import OverDepth
    from taichi_raster.depth.softmax import SoftmaxDepth
    from taichi_raster.engine.autodiff import derivatives_by
    from taichi_raster.fitting.deformation import SmoothOffsets, UniformAdam
    from taichi_raster.fitting.descent import Descent, Step
    from taichi_raster.fitting.losses import (
        EdgeLengthLoss,
        FlatteningLoss,
        LaplacianLoss,
        NormalConsistencyLoss,
        coverage_iou_loss,
        mse,
        silhouette_iou_loss,
    )
    from taichi_raster.fitting.metrics import (
        chamfer_distance,
        sample_surface,
        surface_distance,
        volume,
        voxel_iou,
        voxelise,
    )
    from taichi_raster.fitting.outline import OutlineStep, outline_step, signed_distance
    from taichi_raster.fitting.pose import PoseFit, fit_pose
    from taichi_raster.fitting.poses import PosesFit, fit_poses
    from taichi_raster.fitting.pyramid import at_size, coarse_size, proxy_mesh
    from taichi_raster.fitting.refinement import refine_cameras
    from taichi_raster.fitting.report import ReportView, write_report
    from taichi_raster.fitting.rest import Rest
    from taichi_raster.fitting.shape import ShapeFit, fit_mesh, outline_iou
    from taichi_raster.fitting.simplification import simplified
    from taichi_raster.fitting.start import PictureStart, outline_distance, picture_start
    from taichi_raster.fitting.steps import ImageSteps, image_steps
    from taichi_raster.fitting.texture import TextureFit, fit_texture, texture_from_photos
    from taichi_raster.fitting.tracking import TrackedPose, track_pose
    from taichi_raster.fitting.unwrapping import unwrap
    from taichi_raster.presets import published
    from taichi_raster.presets.guided import GuidedSoftening
    from taichi_raster.presets.policy import Setting, SofteningPolicy, load_policy, save_policy
    from taichi_raster.presets.pretrained import pretrained, pretrained_names, universal_policy
    from taichi_raster.presets.serialization import load_softening, save_softening
    from taichi_raster.presets.softening import Softening
    from taichi_raster.presets.untuned import untuned_softening
    from taichi_raster.render.hard import HardBuffers, hard_buffers
    from taichi_raster.render.sampled import sampled_picture
    from taichi_raster.render.sharp import SharpRasterizer
    from taichi_raster.render.soft import SoftRasterizer
    from taichi_raster.runtime.device import Runtime, init, runtime
    from taichi_raster.runtime.thread import in_runtime_thread
    from taichi_raster.scene import conventions
    from taichi_raster.scene.attributes import SurfaceTexture, UVTexture
    from taichi_raster.scene.batching import MeshBatch, collate
    from taichi_raster.scene.camera import (
        Camera,
        OrthographicCamera,
        PerspectiveCamera,
        PinholeCamera,
        ProjectedFaces,
        gather_faces,
        lift_triangles,
        look_at,
        orbit,
    )
    from taichi_raster.scene.clipping import ClippedFaces, clip_near
    from taichi_raster.scene.joining import join
    from taichi_raster.scene.lenses.base import Lens
    from taichi_raster.scene.lenses.brown_conrady import BrownConradyLens
    from taichi_raster.scene.lenses.kannala_brandt import KannalaBrandtLens
    from taichi_raster.scene.lighting import (
        AmbientLight,
        DirectionalLight,
        Material,
        PointLight,
        illuminate,
        shade_flat,
        shade_gouraud,
        shade_image,
        surface_attributes,
    )
    from taichi_raster.scene.mesh import Mesh, normalise, subdivide
    from taichi_raster.scene.mesh_files import load_mesh, save_mesh
    from taichi_raster.scene.normals import face_normals, vertex_normals
    from taichi_raster.scene.padding import nearest_texels, pad_texture
    from taichi_raster.scene.pose import Pose, centre_and_size
    from taichi_raster.scene.procedural import (
        blob,
        box,
        capsule,
        cone,
        cylinder,
        icosphere,
        plane,
        star,
        superquadric,
        torus,
        torus_knot,
        uv_sphere,
    )
    from taichi_raster.scene.resampling import area_average, undistort
    from taichi_raster.scene.texels import mipmaps
    from taichi_raster.softness.conorm import TConorm
    from taichi_raster.softness.edge import Distribution, EdgeSoftness
    from taichi_raster.softness.mlp import MLPSoftness
    from taichi_raster.softness.schedule import Constant, Geometric, Knots, Schedule
    from taichi_raster.softness.serialization import load_softness, save_softness
    from taichi_raster.softness.tabulated import TabulatedSoftness, tabulate

__all__ = [
    "AmbientLight",
    "BrownConradyLens",
    "Camera",
    "Capture",
    "ClippedFaces",
    "Constant",
    "DepthSoftness",
    "Descent",
    "DirectionalLight",
    "Distribution",
    "DistributionDepth",
    "EdgeLengthLoss",
    "EdgeSoftness",
    "FlatteningLoss",
    "Geometric",
    "GuidedSoftening",
    "HardBuffers",
    "HardDepth",
    "ImageSteps",
    "KannalaBrandtLens",
    "Knots",
    "LaplacianLoss",
    "Lens",
    "MLPDepth",
    "MLPSoftness",
    "Material",
    "Mesh",
    "MeshBatch",
    "NormalConsistencyLoss",
    "OrthographicCamera",
    "OutlineStep",
    "OverDepth",
    "PerspectiveCamera",
    "Photo",
    "PictureStart",
    "PinholeCamera",
    "PointLight",
    "Pose",
    "PoseFit",
    "PosesFit",
    "ProjectedFaces",
    "ReportView",
    "Rest",
    "Runtime",
    "Schedule",
    "Setting",
    "ShapeFit",
    "SharpRasterizer",
    "SmoothOffsets",
    "SoftRasterizer",
    "Softening",
    "SofteningPolicy",
    "SoftmaxDepth",
    "Step",
    "SurfaceTexture",
    "TConorm",
    "TabulatedSoftness",
    "TextureFit",
    "TrackedPose",
    "UVTexture",
    "UniformAdam",
    "area_average",
    "at_size",
    "blob",
    "box",
    "capsule",
    "centre_and_size",
    "chamfer_distance",
    "clip_near",
    "coarse_size",
    "collate",
    "cone",
    "conventions",
    "coverage_iou_loss",
    "cylinder",
    "derivatives_by",
    "face_normals",
    "fit_mesh",
    "fit_pose",
    "fit_poses",
    "fit_texture",
    "gather_faces",
    "hard_buffers",
    "icosphere",
    "illuminate",
    "image_steps",
    "in_runtime_thread",
    "init",
    "join",
    "lift_triangles",
    "load_camera",
    "load_capture",
    "load_mesh",
    "load_policy",
    "load_softening",
    "load_softness",
    "look_at",
    "mipmaps",
    "mse",
    "nearest_texels",
    "normalise",
    "orbit",
    "outline_distance",
    "outline_iou",
    "outline_step",
    "pad_texture",
    "picture_start",
    "plane",
    "pretrained",
    "pretrained_names",
    "proxy_mesh",
    "published",
    "read_video",
    "refine_cameras",
    "runtime",
    "sample_surface",
    "sampled_picture",
    "save_capture",
    "save_mesh",
    "save_policy",
    "save_softening",
    "save_softness",
    "shade_flat",
    "shade_gouraud",
    "shade_image",
    "signed_distance",
    "silhouette_iou_loss",
    "simplified",
    "star",
    "subdivide",
    "superquadric",
    "surface_attributes",
    "surface_distance",
    "tabulate",
    "texture_from_photos",
    "torus",
    "torus_knot",
    "track_pose",
    "undistort",
    "universal_policy",
    "untuned_softening",
    "unwrap",
    "uv_sphere",
    "vertex_normals",
    "visual_hull",
    "volume",
    "voxel_iou",
    "voxelise",
    "write_report",
]
