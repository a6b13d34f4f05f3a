"""sCMOS sensors whose pixels differ, drawn at random."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ._model import NotNegative, Positive, StrictModel
from .camera import Camera


class SensorSpread(StrictModel):
    """Maps of read noise, gain and offset for a recipe's camera: what a calibrated sCMOS shows.

    A movie has the sensor that `seed` and the size of its frames name; training batches draw a new one for every block,
    since a network should not learn one sensor by heart.

    Args:
        read_noise_spread: standard deviation of the logarithm of the read noise; its median is the camera's
            `read_noise_e`.
        gain_spread: relative standard deviation of the gain.
        offset_spread_adu: standard deviation of the offset, counts.
        hot_share: share of the pixels with `hot_factor` times the read noise.
        seed: number of the sensor.
    """

    read_noise_spread: NotNegative = 0.25
    gain_spread: Annotated[float, Field(ge=0, le=0.2)] = 0.02
    offset_spread_adu: NotNegative = 1.5
    hot_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    hot_factor: Positive = 10.0
    seed: Annotated[int, Field(ge=0)] = 0

    def build(self, camera: Camera, size: tuple[int, int], rng: np.random.Generator | None = None) -> Camera:
        """The camera with maps, for frames of this size; with the sensor that `seed` names if `rng` is left out."""
        if rng is None:
            rng = np.random.default_rng([self.seed, *size])
        read = np.asarray(camera.read_noise_e) * np.exp(self.read_noise_spread * rng.standard_normal(size))
        read[rng.random(size) < self.hot_share] *= self.hot_factor
        gain = np.maximum(1 + self.gain_spread * rng.standard_normal(size), 0.1)
        offset = self.offset_spread_adu * rng.standard_normal(size)
        return camera.model_validate(
            {**camera.model_dump(), "read_noise_e": read, "relative_gain": gain, "offset_adu": offset}
        )
