"""Named presets of networks and trainings."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.reconstruction.model import ModelSettings
from tasks.reconstruction.training import TrainSettings


@dataclass(frozen=True)
class Preset:
    """Settings of a network and of its training."""

    model: ModelSettings
    training: TrainSettings


PRESETS = {
    "published": Preset(ModelSettings(), TrainSettings(validate_every=10_000)),
    "small": Preset(
        ModelSettings(
            image_size=32, channels=16, hidden=256, code=128, decoder_hidden=256, subdivisions=2
        ),
        TrainSettings(
            steps=6000, batch_size=32, lr=5e-4, log_every=50, save_every=250, validate_every=500
        ),
    ),
    "tiny": Preset(
        ModelSettings(
            image_size=16, channels=4, hidden=16, code=8, decoder_hidden=16, subdivisions=1
        ),
        TrainSettings(
            steps=8,
            batch_size=4,
            lr=1e-3,
            log_every=1,
            save_every=2,
            validate_every=4,
            validate_objects=1,
        ),
    ),
}
"""published: Liu et al. 2019. small: one core, a quarter of an hour. tiny: trials."""
