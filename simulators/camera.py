"""From photons to camera counts and back."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from ._model import NotNegative, Positive, StrictModel

Frames = TypeVar("Frames", Tensor, npt.NDArray[Any])


def _pair(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, value)
    return value


Map = tuple[tuple[float, ...], ...]


def _number_or_map(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, list | tuple):
        value = np.asarray(value, dtype=np.float64)
    if isinstance(value, np.ndarray) and value.ndim:
        if value.ndim != 2 or not np.isfinite(value).all():
            raise ValueError(f"is a map of shape {value.shape}; expected a finite number per pixel, (height, width)")
        return tuple(tuple(float(number) for number in row) for row in value)
    return float(value)


class _Arrays:
    """Maps as arrays; equal to itself alone, so that cameras compare by their fields."""

    def __init__(self, values: tuple[float | Map, float | Map, float | Map]) -> None:
        self.values = values
        names = ("read_noise_e", "relative_gain", "offset_adu")
        self.arrays = {name: np.asarray(v, dtype=np.float64) for name, v in zip(names, values, strict=True)}


class Camera(StrictModel):
    """A camera: what it makes of photons. All arguments by keyword.

    Order of the noise (challenge): electrons = Poisson(quantum_efficiency * photons + spurious_charge_e);
    clipped to full_well_e; with EM gain Gamma(electrons, em_gain); + Normal(0, read_noise_e); / e_per_adu,
    * relative_gain, + offset_adu, made whole by `rounding`, + baseline; clipped to 0..max_adu. With em_gain None and
    no read noise this is a Poisson (ideal) camera, with read noise an sCMOS. A number "or map" may differ from pixel
    to pixel, (height, width).

    Args:
        pixel_size_nm: along x and y, nm, in the sample; one number for both.
        baseline: counts without light.
        e_per_adu: electrons (after EM gain) per count.
        quantum_efficiency: electrons per photon, 0..1; 1 where unknown, and photons are photo-electrons then.
        em_gain: mean gain of the EM register, or None. It doubles the variance.
        read_noise_e: standard deviation, electrons after EM gain; or map.
        relative_gain: counts per electron over those that e_per_adu says; or map.
        offset_adu: counts without light on top of `baseline`; or map.
        full_well_e: electrons that a pixel holds at most, before EM gain; None for any number.
        spurious_charge_e: electrons per pixel and frame that no photon made.
        max_adu: largest count.
        rounding: "nearest"; "truncate" (towards zero, before the baseline is added, as the challenge's simulator);
            or "floor" (downwards, likewise, as DECODE's). `to_photons` gives back what the last two take.

    Example:
        >>> camera = Camera.challenge_emccd()
        >>> round(camera.counts_per_photon, 6)
        6.0

    Source: SMLM challenge simulator, Sage et al. 2019, doi:10.1038/s41592-019-0364-4.
    """

    pixel_size_nm: Annotated[tuple[Positive, Positive], BeforeValidator(_pair)] = (100.0, 100.0)
    baseline: float = 0.0
    e_per_adu: Positive = 1.0
    quantum_efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    em_gain: Annotated[float, Field(ge=1)] | None = None
    read_noise_e: Annotated[float | Map, BeforeValidator(_number_or_map)] = 0.0
    relative_gain: Annotated[float | Map, BeforeValidator(_number_or_map)] = 1.0
    offset_adu: Annotated[float | Map, BeforeValidator(_number_or_map)] = 0.0
    full_well_e: Positive | None = None
    spurious_charge_e: NotNegative = 0.0
    max_adu: Annotated[int, Field(gt=0, le=2**24)] = 65535
    rounding: Literal["nearest", "truncate", "floor"] = "nearest"

    @model_validator(mode="after")
    def _plausible(self) -> Camera:
        if self._maps["read_noise_e"].min() < 0:
            raise ValueError(f"read_noise_e is {self._maps['read_noise_e'].min():g} somewhere; expected 0 or more")
        if self._maps["relative_gain"].min() <= 0:
            raise ValueError(f"relative_gain is {self._maps['relative_gain'].min():g} somewhere; expected more than 0")
        shapes = {name: part.shape for name, part in self._maps.items() if part.ndim}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"maps differ in shape: {', '.join(f'{n} {s[0]} x {s[1]}' for n, s in shapes.items())}")
        if not 0 <= self.baseline < self.max_adu:
            raise ValueError(f"baseline is {self.baseline:g}; expected 0 up to max_adu ({self.max_adu})")
        return self

    @classmethod
    def ideal(cls, pixel_size_nm: float | tuple[float, float] = 100.0) -> Camera:
        """Poisson noise alone, a count per photon."""
        return cls.model_validate({"pixel_size_nm": pixel_size_nm})

    @classmethod
    def challenge_emccd(cls, pixel_size_nm: float | tuple[float, float] = 100.0) -> Camera:
        """The EMCCD of the SMLM challenge 2016."""
        return cls.model_validate(
            {
                "pixel_size_nm": pixel_size_nm,
                "baseline": 100,
                "e_per_adu": 45,
                "quantum_efficiency": 0.9,
                "em_gain": 300,
                "read_noise_e": 74.4,
                "spurious_charge_e": 0.002,
                "rounding": "truncate",
            }
        )

    @classmethod
    def from_calibration(
        cls,
        offset_adu: npt.ArrayLike,
        variance_adu2: npt.ArrayLike,
        gain_adu_per_e: npt.ArrayLike,
        *,
        pixel_size_nm: float | tuple[float, float],
        quantum_efficiency: float = 1.0,
        max_adu: int = 65535,
    ) -> Camera:
        """An sCMOS from the maps that its calibration gives.

        Args:
            offset_adu: mean of dark frames, counts, (height, width).
            variance_adu2: variance of dark frames, counts squared, likewise.
            gain_adu_per_e: counts per photo-electron, likewise, or one number.
            pixel_size_nm: as `Camera`; likewise the others.
        """
        offset, variance = np.asarray(offset_adu, np.float64), np.asarray(variance_adu2, np.float64)
        gain = np.broadcast_to(np.asarray(gain_adu_per_e, np.float64), offset.shape)
        if offset.ndim != 2 or variance.shape != offset.shape:
            raise ValueError(f"offset is {offset.shape}, variance {variance.shape}; give two maps (height, width)")
        mean = float(gain.mean())
        return cls.model_validate(
            {
                "pixel_size_nm": pixel_size_nm,
                "baseline": float(np.rint(offset.mean())),
                "e_per_adu": 1 / mean,
                "quantum_efficiency": quantum_efficiency,
                # Dark frames show the rounding too.
                "read_noise_e": np.sqrt(np.maximum(variance - 1 / 12, 0)) / gain,
                "relative_gain": gain / mean,
                "offset_adu": offset - np.rint(offset.mean()),
                "max_adu": max_adu,
            }
        )

    @property
    def kind(self) -> str:
        """'emccd', 'scmos' or 'ideal', for messages."""
        if self.em_gain is not None:
            return "emccd"
        return "scmos" if self._reads_noisily else "ideal"

    @property
    def counts_per_photon(self) -> float:
        """Mean counts that one photon adds, where the relative gain is 1."""
        return self.quantum_efficiency * (self.em_gain or 1.0) / self.e_per_adu

    @property
    def _reads_noisily(self) -> bool:
        return not isinstance(self.read_noise_e, float) or self.read_noise_e > 0

    @property
    def _fractional(self) -> bool:
        """Whether electrons do not fall on whole counts, so that `rounding` matters."""
        plain = self.e_per_adu == 1 and self.relative_gain == 1 and self.offset_adu == 0
        return self.em_gain is not None or self._reads_noisily or not plain or self.full_well_e is not None

    @property
    def _maps(self) -> dict[str, npt.NDArray[np.float64]]:
        """What may differ from pixel to pixel, as arrays without or with two dimensions."""
        values = (self.read_noise_e, self.relative_gain, self.offset_adu)
        known = self.__dict__.get("_arrays")
        # Kept, but model_copy carries it over to a camera with other values.
        if known is None or any(a is not b for a, b in zip(known.values, values, strict=True)):
            known = self.__dict__["_arrays"] = _Arrays(values)
        arrays: dict[str, npt.NDArray[np.float64]] = known.arrays
        return arrays

    @property
    def map_shape(self) -> tuple[int, int] | None:
        """(height, width) of the maps; None for a camera whose pixels are all alike."""
        shapes = [part.shape for part in self._maps.values() if part.ndim == 2]
        return (shapes[0][0], shapes[0][1]) if shapes else None

    def crop(self, rows: slice, columns: slice) -> Camera:
        """The camera of a part of the sensor: maps cut, all else as it is.

        Raises:
            ValueError: the part is empty.
        """
        maps = {name: part[rows, columns] for name, part in self._maps.items() if part.ndim == 2}
        if any(part.size == 0 for part in maps.values()):
            raise ValueError(f"rows {rows} and columns {columns} hold no pixel of the maps, {self.map_shape}")
        return self.model_validate({**self.model_dump(), **maps})

    def _map(self, name: str, like: Frames) -> Any:
        """A number, or a map as an array or tensor that goes with `like`."""
        part = self._maps[name]
        if part.ndim == 0:
            return float(part)
        if isinstance(like, Tensor):
            return torch.from_numpy(part).to(like.device, like.dtype if like.is_floating_point() else torch.float32)
        return part.astype(like.dtype if like.dtype.kind == "f" else np.float32)

    def _check_map(self, shape: tuple[int, ...]) -> None:
        if self.map_shape and tuple(shape[-2:]) != self.map_shape:
            name = next(name for name, part in self._maps.items() if part.ndim)
            raise ValueError(
                f"frames are {' x '.join(map(str, shape[-2:]))} pixels but the map {name} is "
                f"{' x '.join(map(str, self.map_shape))}; crop both alike"
            )

    def expose(self, photons: Tensor, generator: np.random.Generator | torch.Generator) -> Tensor:
        """Counts that the camera gives, whole numbers as float32, same shape and device.

        Args:
            photons: expected photons per pixel, background included, (..., height, width).
            generator: numpy's for tensors on the CPU (the faster way there), or a torch.Generator of their
                device.

        Raises:
            ValueError: `photons` is negative or nan somewhere, or a map does not fit.
            TypeError: a numpy generator with a tensor on another device.
        """
        self._check_map(tuple(photons.shape))
        if isinstance(generator, np.random.Generator):
            if photons.device.type != "cpu":
                raise TypeError(f"photons are on {photons.device}; give a torch.Generator of that device, not numpy's")
            flat = photons.detach().to(torch.float32).contiguous().numpy()
            return torch.from_numpy(self._expose_numpy(flat, generator))
        return self._expose_torch(photons.detach().to(torch.float32), generator)

    def _expose_numpy(self, photons: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        from ._random import gamma, poisson, read_out

        signal = poisson(photons, rng, scale=self.quantum_efficiency, more=self.spurious_charge_e)
        if self.full_well_e is not None:
            np.minimum(signal, np.float32(self.full_well_e), out=signal)
        if self.em_gain is not None:
            signal = gamma(signal, rng)
        maps = self._maps
        read_out(
            signal,
            rng,
            em_gain=self.em_gain or 1.0,
            read_noise=maps["read_noise_e"],
            e_per_adu=self.e_per_adu,
            gain=maps["relative_gain"],
            offset=maps["offset_adu"],
            rounding=self.rounding if self._fractional else None,
            baseline=self.baseline,
            most=self.max_adu,
        )
        return signal

    def _expose_torch(self, photons: Tensor, generator: torch.Generator) -> Tensor:
        if photons.numel() and not bool(photons.min() >= 0):
            raise ValueError("photons are negative or nan somewhere; expected 0 or more in every pixel")
        signal = torch.poisson(photons * self.quantum_efficiency + self.spurious_charge_e, generator=generator)
        if self.full_well_e is not None:
            signal = signal.clamp(max=self.full_well_e)
        if self.em_gain is not None:
            amplified = torch._standard_gamma(signal.clamp(min=1.0), generator=generator)
            signal = torch.where(signal > 0, amplified, 0.0) * self.em_gain
        if self._reads_noisily:
            noise = torch.empty_like(signal).normal_(generator=generator)
            signal += noise * self._map("read_noise_e", signal)
        if self.e_per_adu != 1:
            signal = signal / self.e_per_adu
        signal = signal * self._map("relative_gain", signal) + self._map("offset_adu", signal)
        if self._fractional:
            signal = {"truncate": torch.trunc, "floor": torch.floor, "nearest": torch.round}[self.rounding](signal)
        if self.baseline:
            signal = signal + self.baseline
            if self.baseline != int(self.baseline):
                signal = signal.round()
        return signal.clamp(0, self.max_adu)

    def mean_counts(self, photons: Frames) -> Frames:
        """Expected counts at these expected photons, before clipping.

        Truncation is taken as half a count lost, which holds a few counts above the baseline.
        """
        lost = 0.5 if self._fractional and self.rounding != "nearest" else 0.0
        scale = (self.em_gain or 1.0) / self.e_per_adu * self._map("relative_gain", photons)
        electrons = photons * self.quantum_efficiency + self.spurious_charge_e
        return electrons * scale + (self._map("offset_adu", photons) + (self.baseline - lost))

    def variance_counts(self, photons: Frames) -> Frames:
        """Variance of the counts at these expected photons, before clipping: shot, read and rounding noise.

        With EM gain the shot noise counts twice (excess noise).
        """
        gain = self._map("relative_gain", photons) / self.e_per_adu
        excess = 1.0 if self.em_gain is None else 2.0
        electrons = photons * self.quantum_efficiency + self.spurious_charge_e
        shot = electrons * (excess * (self.em_gain or 1.0) ** 2 * gain**2)
        return shot + ((self._map("read_noise_e", photons) * gain) ** 2 + (1 / 12 if self._fractional else 0.0))

    def to_photons(self, counts: Frames) -> Frames:
        """Counts as photons, float32: an estimate without bias, negative where noise was.

        Takes off baseline, the half count that truncation or floor lost, gain, spurious charge and quantum efficiency,
        pixel by pixel where the camera has maps.

        Args:
            counts: raw counts of any type, tensor or array, (..., height, width).

        Raises:
            ValueError: a map does not fit the frames.
        """
        scale = 1 / self.counts_per_photon
        spurious = self.spurious_charge_e / self.quantum_efficiency
        cut = self.rounding if self._fractional else "nearest"
        if isinstance(counts, Tensor):
            self._check_map(tuple(counts.shape))
            signal = counts.to(torch.float32) - self.baseline
            if cut != "nearest":
                signal += 0.5 * signal.sign() if cut == "truncate" else 0.5
            signal = (signal - self._map("offset_adu", signal)) / self._map("relative_gain", signal)
            return signal.mul_(scale).sub_(spurious)
        array = np.asarray(counts).astype(np.float32)
        self._check_map(array.shape)
        array -= np.float32(self.baseline)
        if cut != "nearest":
            array += np.float32(0.5) * np.sign(array) if cut == "truncate" else np.float32(0.5)
        if self.offset_adu != 0:
            array -= np.float32(self._map("offset_adu", array))
        if self.relative_gain != 1:
            array /= np.float32(self._map("relative_gain", array))
        array *= np.float32(scale)
        array -= np.float32(spurious)
        return array
