"""The network of Liu et al. (ICCV 2019, SoftRas): from an image to the vertices of a sphere.

The encoder maps the image to a code; the decoder maps the code to a deformed sphere. Either can be
any other `nn.Module` of the same signature.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

import taichi_raster as tr
from meta.outer.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tasks.reconstruction.views import IMAGE_SIZE

KIND = "reconstruction model"
TIMM = "timm:"


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of the network; the published ones by default.

    Args:
        image_size: of the input, pixels; a divisor of 64.
        encoder: "published", or "timm:NAME" for a network of that library, untrained.
        channels: of the first convolution; the others have two and four times as many.
        hidden: width of the encoder's linear layers.
        code: length of the encoder's output.
        decoder_hidden: width of the decoder's first layer; the second has twice as many.
        subdivisions: of the sphere: 1, 2, 3 are 42, 162, 642 vertices.
    """

    image_size: int = IMAGE_SIZE
    encoder: str = "published"
    channels: int = 64
    hidden: int = 1024
    code: int = 512
    decoder_hidden: int = 1024
    subdivisions: int = 3

    def __post_init__(self) -> None:
        if self.encoder != "published" and not self.encoder.startswith(TIMM):
            raise ValueError(f"encoder: expected 'published' or '{TIMM}NAME', got {self.encoder!r}")
        for name in ("image_size", "channels", "hidden", "code", "decoder_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if IMAGE_SIZE % self.image_size != 0:
            raise ValueError(f"image_size: must divide {IMAGE_SIZE}, got {self.image_size}")
        if not 0 <= self.subdivisions <= 5:
            raise ValueError(f"subdivisions: must be 0 to 5, got {self.subdivisions}")


class Encoder(nn.Module):
    """Three convolutions, 5 x 5 with stride 2 and batch norm, and three linear layers, all ReLU."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        channels = [4, *(settings.channels * k for k in (1, 2, 4))]
        layers: list[nn.Module] = []
        size = settings.image_size
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.BatchNorm2d(after)]
            layers.append(nn.ReLU())
            size = -(-size // 2)
        layers.append(nn.Flatten())
        widths = [channels[-1] * size**2, settings.hidden, settings.hidden, settings.code]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "B 4 H W"]) -> Float[Tensor, "B code"]:
        """Codes of RGBA images."""
        return self.layers(images)


class Decoder(nn.Module):
    """Maps a code to a deformed sphere, each vertex in its octant around a moving centroid.

    With b the coordinates of a sphere of radius 1/2, o the offsets and c = tanh of the centroid,

        v = sign(b) sigmoid(logit |b| + o),    place = (v - c |v| + c) / 2,

    so that all places lie within [-1/2, 1/2] (NMR, Kato et al. 2018). A coordinate that is 0 on the
    sphere stays on the plane of the centroid.
    """

    faces: Tensor
    logit: Tensor
    sign: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        sphere = tr.icosphere(settings.subdivisions, 1.0, torch.float64)
        base = 0.5 * sphere.vertices
        base = torch.where(base.abs() < 1e-6, 0.0, base)
        size = base.abs()
        self.register_buffer("faces", sphere.faces, persistent=False)
        # The logit of 0 is -inf: its sigmoid is 0, with gradient 0. A large number will do.
        logit = torch.log(size.clamp(min=1e-30) / (1 - size))
        self.register_buffer("logit", logit.float(), persistent=False)
        self.register_buffer("sign", base.sign().float(), persistent=False)
        width, count = settings.decoder_hidden, len(base)
        self.first = nn.Linear(settings.code, width)
        self.second = nn.Linear(width, 2 * width)
        self.centroid = nn.Linear(2 * width, 3)
        self.offsets = nn.Linear(2 * width, 3 * count)

    def forward(self, code: Float[Tensor, "B code"]) -> Float[Tensor, "B V 3"]:
        """Vertices of the shapes that codes stand for."""
        features = functional.relu(self.second(functional.relu(self.first(code))))
        centroid = torch.tanh(0.1 * self.centroid(features))[:, None]
        offsets = self.offsets(features).unflatten(1, (-1, 3))
        size = torch.sigmoid(self.logit + offsets) * self.sign.abs()
        return (self.sign * size - centroid * size + centroid) / 2


class Reconstructor(nn.Module):
    """An encoder and a decoder: RGBA images in [0, 1] to vertices.

    Args:
        encoder: (B, 4, H, W) to (B, code).
        decoder: (B, code) to (B, V, 3), in the world of `views`, with the attribute `faces`.
        settings: the settings that they were built from, for saving; None for your own modules.

    Attributes:
        faces: (F, 3), of all its meshes.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, settings: ModelSettings | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.settings = encoder, decoder, settings

    @property
    def faces(self) -> Int[Tensor, "F 3"]:
        """The faces of every shape, by their vertices."""
        faces = self.decoder.faces
        assert isinstance(faces, Tensor)
        return faces

    def forward(self, images: Float[Tensor, "B 4 H W"]) -> Float[Tensor, "B V 3"]:
        """Vertices of the shapes that RGBA images show."""
        return self.decoder(self.encoder(images))


def build_model(settings: ModelSettings, seed: int = 0) -> Reconstructor:
    """A new network, whose random numbers depend on `seed` alone.

    Raises:
        ImportError: for an encoder of timm, if timm is not installed.
        ValueError: for an encoder that timm does not know.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.encoder.startswith(TIMM):
            encoder = _timm_encoder(settings.encoder.removeprefix(TIMM), settings)
        else:
            encoder = Encoder(settings)
        return Reconstructor(encoder, Decoder(settings), settings)


def save_model(
    path: Path, model: Reconstructor, card: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Write weights and sizes, atomically; `half` stores float16, which halves the file.

    Raises:
        ValueError: for a model that was not made by `build_model`.
    """
    if model.settings is None:
        raise ValueError("model: was not made by build_model; save its state_dict yourself")
    state = model.state_dict()
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    content = {"kind": KIND, "settings": asdict(model.settings), "card": card or {}}
    save_checkpoint(Path(path), state, content)


def load_model(path: Path) -> tuple[Reconstructor, dict[str, Any]]:
    """A model from a file of `save_model`, ready to predict (eval), and its card.

    Raises:
        FileNotFoundError: if there is none.
        meta.CheckpointError: if it is damaged or not a model.
    """
    tensors, content = load_checkpoint(Path(path), KIND)
    try:
        model = build_model(ModelSettings(**content["settings"]))
        model.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not fit this program: {error}") from error
    return model.eval(), dict(content.get("card", {}))


def parameter_count(modules: Sequence[nn.Module]) -> int:
    """The number of learned parameters."""
    return sum(p.numel() for module in modules for p in module.parameters())


def _timm_encoder(name: str, settings: ModelSettings) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(
            f"encoder: {name!r} is one of timm's, which is not installed; pip install timm"
        ) from error
    try:
        encoder = timm.create_model(name, pretrained=False, in_chans=4, num_classes=settings.code)
    except RuntimeError as error:
        raise ValueError(f"encoder: timm does not make {name!r}: {error}") from error
    assert isinstance(encoder, nn.Module)
    return encoder
