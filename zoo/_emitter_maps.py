"""Maps of emitters: what the channels of a localization network mean, its targets, and its localizations.

Conventions: x along columns, y along rows, camera pixels counted from the outer corner of pixel [0, 0], so that the
centre of a pixel is at index + 1/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._detection import RULES, scores
from ._outputs import pixel_size_pair

if TYPE_CHECKING:
    from simulators import Localizations

QUANTITIES = ("photons", "x", "y", "z")
_KNOWN = ("", "probability", "background", *QUANTITIES, *(f"{q}_sigma" for q in QUANTITIES))
#: Channels of DECODE, whose "x" runs along rows.
DECODE_CHANNELS = (
    *("probability", "photons", "y", "x", "z"),
    *("photons_sigma", "y_sigma", "x_sigma", "z_sigma", "background"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EmitterTargets:
    """What a localization network is to find in `count` frames: a row per emitter, no empty slots.

    Args:
        output: the contract that made it; rows are in the units of its channels.
        frame: frame of each row, 0..count-1, rising, int64 (E,).
        photons, x, y, z: photons / photons_scale; camera pixels from the outer corner; z / z_scale_nm; float32 (E,).
        background: photons per pixel / background_scale, (count, 1, 1) or (count, H, W); None where unknown.
        count: frames.
    """

    output: EmitterMaps
    frame: Tensor
    photons: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    background: Tensor | None
    count: int

    def __len__(self) -> int:
        return len(self.frame)

    def per_frame(self) -> Tensor:
        """Number of emitters of each frame, float32 (count,)."""
        return torch.zeros(self.count, device=self.frame.device).index_add_(
            0, self.frame, torch.ones_like(self.frame, dtype=torch.float32)
        )


@dataclass(frozen=True, kw_only=True)
class EmitterMaps:
    """Maps on the camera's own grid: a pixel says how likely an emitter sits in it, where, how bright, how sure.

    Args:
        channels: meaning of each channel: "probability", "photons", "x", "y", "z" (offsets of x and y from the
            pixel's reference point, in pixels), the same with "_sigma" (standard deviation), "background", or "" for
            a channel without meaning.
        photons_scale: photons that the value 1 stands for.
        z_scale_nm: nm that the value 1 of z stands for; negative where a program counts z the other way round.
        background_scale: photons per pixel that the value 1 stands for.
        reference_px: (x, y) of a pixel's reference point from its outer corner; (0.5, 0.5) is its centre.
        rule: how `decode` finds pixels: "paper", "program" or "plus", see `scores`.
        candidate: smallest probability of a candidate under rule "paper"; "program" uses the threshold.
        sigma_scale, sigma_power: what `decode` makes of the network's sigmas of photons, x, y, z: scale * sigma**power,
            found on molecules of known position (after Levi et al. 2022, doi:10.3390/s22155540): networks tend to be
            surer than they are, of dim molecules most.

    Raises:
        ValueError: unknown or repeated channels, no probability, x or y, or a scale of 0.
    """

    channels: tuple[str, ...] = DECODE_CHANNELS
    photons_scale: float = 10000.0
    z_scale_nm: float = 1000.0
    background_scale: float = 200.0
    reference_px: tuple[float, float] = (0.5, 0.5)
    rule: str = "paper"
    candidate: float = 0.3
    sigma_scale: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    sigma_power: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "reference_px", tuple(float(shift) for shift in self.reference_px))
        for name in ("sigma_scale", "sigma_power"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != len(QUANTITIES) or not all(0 < value < math.inf for value in values):
                raise ValueError(f"{name} is {values}; give a positive number for each of {QUANTITIES}")
        for name in self.channels:
            if name not in _KNOWN:
                raise ValueError(f"channel {name!r} is not known; known are: {', '.join(_KNOWN[1:])}, or '' for none")
            if name and self.channels.count(name) > 1:
                raise ValueError(f"channel {name!r} stands twice in {self.channels}")
        for name in ("probability", "x", "y"):
            if name not in self.channels:
                raise ValueError(f"channels {self.channels} lack {name!r}")
        for name, low in (("photons_scale", 0.0), ("background_scale", 0.0), ("z_scale_nm", -math.inf)):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= low or value == 0:
                raise ValueError(f"{name} is {value!r}; it must be finite and {'positive' if low == 0 else 'not 0'}")
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; known are: {', '.join(RULES)}")

    @property
    def quantities(self) -> tuple[str, ...]:
        """Those of photons, x, y, z that have a mean and a sigma: the axes of the mixture."""
        return tuple(q for q in QUANTITIES if q in self.channels and f"{q}_sigma" in self.channels)

    @property
    def axial(self) -> bool:
        """Whether z is found."""
        return "z" in self.channels

    @property
    def thresholds(self) -> tuple[float, float]:
        """Lowest and highest threshold worth trying; below a candidate's probability none changes anything."""
        return (min(max(self.candidate, 0.05), 0.9) if self.rule == "paper" else 0.05), 0.95

    def index(self, name: str) -> int:
        """Channel of a quantity.

        Raises:
            ValueError: there is none.
        """
        if name not in self.channels:
            raise ValueError(f"there is no channel {name!r} among {self.channels}")
        return self.channels.index(name)

    def with_(self, **changes: Any) -> EmitterMaps:
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)

    def encode(
        self,
        emitters: Any,
        *,
        count: int,
        height: int,
        width: int,
        pixel_size_nm: float | tuple[float, float],
        background: Any = None,
        first_frame: int = 0,
        min_photons: float = 0.0,
        device: torch.device | str | None = None,
    ) -> EmitterTargets:
        """Training target: the emitters in the field, in the network's units, sorted by frame.

        Left out are emitters outside the field or the frames (the lower edge belongs to the field, the upper does
        not) and those dimmer than `min_photons`; unknown photons (nan) are kept and become 0.

        Args:
            emitters: anything with `frame`, `x_nm`, `y_nm`, `z_nm`, `photons`: Emitters, or tensors.
            count: frames.
            height, width: field in camera pixels.
            pixel_size_nm: camera pixel, one number or (x, y).
            background: photons per pixel: one number per frame (count,), images (count, H, W), or None.
            first_frame: the frame that becomes frame 0.
            min_photons: dimmest emitter that is asked for.
            device: of the result; default: the positions' own.
        """
        size_x, size_y = pixel_size_pair(pixel_size_nm)
        x = torch.as_tensor(emitters.x_nm, device=device) / size_x
        y = torch.as_tensor(emitters.y_nm, device=x.device) / size_y
        z = torch.as_tensor(emitters.z_nm, device=x.device) / self.z_scale_nm
        photons = torch.as_tensor(emitters.photons, device=x.device).nan_to_num()
        known = ~torch.isnan(torch.as_tensor(emitters.photons, device=x.device))
        frame = torch.as_tensor(emitters.frame, device=x.device).to(torch.int64) - first_frame
        keep = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (frame >= 0) & (frame < count)
        keep &= ~known | (photons >= min_photons)
        if background is not None:
            light = torch.as_tensor(background, device=x.device).to(torch.float32) / self.background_scale
            background = light.expand(count)[:, None, None] if light.ndim < 2 else light
        frame, order = torch.sort(frame[keep], stable=True)
        columns = (photons / self.photons_scale, x, y, z)
        photons, x, y, z = (column[keep][order].to(torch.float32) for column in columns)
        return EmitterTargets(
            output=self, frame=frame, photons=photons, x=x, y=y, z=z, background=background, count=count
        )

    def calibrated(self, channel: str, values: Tensor) -> Tensor:
        """Values of a channel, those of sigmas by `sigma_scale` and `sigma_power`."""
        scale, power = self._calibration_of(channel)
        return scale * values**power

    def as_uncalibrated(self, channel: str, values: Tensor) -> Tensor:
        """Inverse of `calibrated`."""
        scale, power = self._calibration_of(channel)
        return (values / scale) ** (1 / power)

    def _calibration_of(self, channel: str) -> tuple[float, float]:
        """Scale and power; of sigmas alone other than 1."""
        if not channel.endswith("_sigma"):
            return 1.0, 1.0
        which = QUANTITIES.index(channel.removesuffix("_sigma"))
        return self.sigma_scale[which], self.sigma_power[which]

    def scores(self, maps: Tensor, *, threshold: float) -> Tensor:
        """Score of each pixel, (N, H, W): a localization where it reaches `threshold`."""
        candidate = self.candidate if self.rule == "paper" else threshold
        return scores(maps[:, self.index("probability")], rule=self.rule, candidate=candidate)

    def decode(
        self,
        maps: Tensor,
        *,
        threshold: float,
        pixel_size_nm: float | tuple[float, float],
        first_frame: int = 0,
        scored: Tensor | None = None,
    ) -> Localizations:
        """Localizations in a network's maps, sorted by frame, then row, then column.

        All values come from the pixel that is found; nothing is averaged.

        Args:
            maps: (N, C, H, W), any device and float type.
            threshold: smallest score, 0 to 1; found on validation data.
            pixel_size_nm: camera pixel, one number or (x, y).
            first_frame: frame number of map 0.
            scored: scores that a graph computed along with the maps, (N, H, W); default: `scores(maps)`.

        Returns:
            Localizations with probability and, where the maps have them, z, photons, background and the sigmas; the
            others are nan.

        Raises:
            ValueError: wrong shape, a threshold outside 0..1, or nan in the probabilities.
        """
        from simulators import Localizations

        size_x, size_y = pixel_size_pair(pixel_size_nm)
        if maps.ndim != 4 or maps.shape[1] != len(self.channels):
            raise ValueError(f"maps are {tuple(maps.shape)}; decode needs (N, {len(self.channels)}, height, width)")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold!r}; it must lie between 0 and 1")
        maps = maps.detach()
        probability = maps[:, self.index("probability")].float()
        if probability.numel() and not torch.isfinite(probability.sum()):
            raise ValueError("the network's output holds nan or infinity; check the input frames for nan")
        if scored is None:
            scored = self.scores(maps.float(), threshold=threshold)
        frame, row, column = torch.nonzero(scored >= threshold, as_tuple=True)
        found = maps[frame, :, row, column].double().cpu()  # (localizations, C)
        score = scored[frame, row, column].double().cpu()
        across, down = column.double().cpu(), row.double().cpu()
        units = {
            "photons": self.photons_scale,
            "z": self.z_scale_nm,
            "background": self.background_scale,
            "photons_sigma": self.photons_scale,
            "x_sigma": size_x,
            "y_sigma": size_y,
            "z_sigma": abs(self.z_scale_nm),
        }
        names = {"z": "z_nm", "x_sigma": "x_sigma_nm", "y_sigma": "y_sigma_nm", "z_sigma": "z_sigma_nm"}
        columns: dict[str, Any] = {"z_nm": math.nan}
        for name, unit in units.items():
            if name in self.channels:
                value = found[:, self.index(name)]
                columns[names.get(name, name)] = (self.calibrated(name, value) * unit).numpy()
        return Localizations(
            frame=frame.cpu().numpy() + first_frame,
            x_nm=((across + self.reference_px[0] + found[:, self.index("x")]) * size_x).numpy(),
            y_nm=((down + self.reference_px[1] + found[:, self.index("y")]) * size_y).numpy(),
            probability=score.clamp(max=1.0).numpy(),
            **columns,
        )
