"""From photons to camera counts and back."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from ._model import NotNegative, Positive, StrictModel
from ._random import gamma, normal, poisson

Frames = TypeVar("Frames", Tensor, npt.NDArray[Any])


def _pair(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, value)
    return value


def _number_or_map(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, list | tuple):
        value = np.asarray(value, dtype=np.float64)
    if isinstance(value, np.ndarray) and value.ndim:
        if value.ndim != 2 or not np.isfinite(value).all() or (value < 0).any():
            raise ValueError(
                f"is a map of shape {value.shape}; expected a finite number of electrons >= 0 per pixel, "
                "(height, width)"
            )
        return tuple(tuple(float(number) for number in row) for row in value)
    return float(value)


class Camera(StrictModel):
    """A camera: what it makes of photons. All arguments by keyword.

    Order of the noise (challenge): electrons = Poisson(quantum_efficiency * photons + spurious_charge_e);
    with EM gain Gamma(electrons, em_gain); + Normal(0, read_noise_e); / e_per_adu, made whole by `rounding`,
    + baseline; clipped to 0..max_adu. With em_gain None and no read noise this is a Poisson (ideal) camera,
    with read noise an sCMOS.

    Args:
        pixel_size_nm: along x and y, nm, in the sample; one number for both.
        baseline: counts without light.
        e_per_adu: electrons (after EM gain) per count.
        quantum_efficiency: electrons per photon, 0..1; 1 where unknown, and photons are photo-electrons then.
        em_gain: mean gain of the EM register, or None. It doubles the variance.
        read_noise_e: standard deviation, electrons after EM gain; a number or a map (height, width).
        spurious_charge_e: electrons per pixel and frame that no photon made.
        max_adu: largest count.
        rounding: "nearest" or "truncate" (towards zero, before the baseline is added, as the challenge's
            simulator).

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
    read_noise_e: Annotated[float | tuple[tuple[float, ...], ...], BeforeValidator(_number_or_map)] = 0.0
    spurious_charge_e: NotNegative = 0.0
    max_adu: Annotated[int, Field(gt=0, le=2**24)] = 65535
    rounding: Literal["nearest", "truncate"] = "nearest"

    @model_validator(mode="after")
    def _plausible(self) -> Camera:
        if isinstance(self.read_noise_e, float) and self.read_noise_e < 0:
            raise ValueError(f"read_noise_e is {self.read_noise_e:g}; expected 0 or more electrons")
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

    @property
    def kind(self) -> str:
        """'emccd', 'scmos' or 'ideal', for messages."""
        if self.em_gain is not None:
            return "emccd"
        return "scmos" if self._reads_noisily else "ideal"

    @property
    def counts_per_photon(self) -> float:
        """Mean counts that one photon adds."""
        return self.quantum_efficiency * (self.em_gain or 1.0) / self.e_per_adu

    @property
    def _reads_noisily(self) -> bool:
        return not isinstance(self.read_noise_e, float) or self.read_noise_e > 0

    @property
    def _fractional(self) -> bool:
        """Whether electrons do not fall on whole counts, so that `rounding` matters."""
        return self.em_gain is not None or self._reads_noisily or self.e_per_adu != 1

    @cached_property
    def _read_map(self) -> npt.NDArray[np.float32]:
        return np.asarray(self.read_noise_e, dtype=np.float32)

    def _check_map(self, shape: tuple[int, ...]) -> None:
        if self._read_map.ndim and tuple(shape[-2:]) != self._read_map.shape:
            raise ValueError(
                f"frames are {' x '.join(map(str, shape[-2:]))} pixels but the map read_noise_e is "
                f"{' x '.join(map(str, self._read_map.shape))}; crop both alike"
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
        if photons.size and not photons.min() >= 0:
            raise ValueError("photons are negative or nan somewhere; expected 0 or more in every pixel")
        electrons = photons
        if self.quantum_efficiency != 1:
            electrons = photons * np.float32(self.quantum_efficiency)
        if self.spurious_charge_e:
            electrons = electrons + np.float32(self.spurious_charge_e)
        signal = poisson(electrons, rng)
        if self.em_gain is not None:
            signal = gamma(signal, rng)
            signal *= np.float32(self.em_gain)
        if self._reads_noisily:
            noise = normal(signal.size, rng).reshape(signal.shape)
            noise *= self._read_map
            signal += noise
        if self.e_per_adu != 1:
            signal /= np.float32(self.e_per_adu)
        if self._fractional:
            (np.trunc if self.rounding == "truncate" else np.rint)(signal, out=signal)
        if self.baseline:
            signal += np.float32(self.baseline)
            if self.baseline != int(self.baseline):
                np.rint(signal, out=signal)
        return np.clip(signal, 0, self.max_adu, out=signal)

    def _expose_torch(self, photons: Tensor, generator: torch.Generator) -> Tensor:
        if photons.numel() and not bool(photons.min() >= 0):
            raise ValueError("photons are negative or nan somewhere; expected 0 or more in every pixel")
        signal = torch.poisson(photons * self.quantum_efficiency + self.spurious_charge_e, generator=generator)
        if self.em_gain is not None:
            amplified = torch._standard_gamma(signal.clamp(min=1.0), generator=generator)
            signal = torch.where(signal > 0, amplified, 0.0) * self.em_gain
        if self._reads_noisily:
            noise = torch.empty_like(signal).normal_(generator=generator)
            read = self._read_map
            signal += noise * (torch.from_numpy(read).to(signal.device) if read.ndim else float(read))
        if self.e_per_adu != 1:
            signal = signal / self.e_per_adu
        if self._fractional:
            signal = signal.trunc() if self.rounding == "truncate" else signal.round()
        if self.baseline:
            signal = signal + self.baseline
            if self.baseline != int(self.baseline):
                signal = signal.round()
        return signal.clamp(0, self.max_adu)

    def mean_counts(self, photons: Frames) -> Frames:
        """Expected counts at these expected photons, before clipping.

        Truncation is taken as half a count lost, which holds a few counts above the baseline.
        """
        lost = 0.5 if self._fractional and self.rounding == "truncate" else 0.0
        scale = (self.em_gain or 1.0) / self.e_per_adu
        return (photons * self.quantum_efficiency + self.spurious_charge_e) * scale + (self.baseline - lost)

    def variance_counts(self, photons: Frames) -> Frames:
        """Variance of the counts at these expected photons, before clipping: shot, read and rounding noise.

        With EM gain the shot noise counts twice (excess noise).
        """
        scale = (self.em_gain or 1.0) / self.e_per_adu
        excess = 1.0 if self.em_gain is None else 2.0
        shot = (photons * self.quantum_efficiency + self.spurious_charge_e) * (excess * scale**2)
        read = (self._read_map / self.e_per_adu) ** 2 + (1 / 12 if self._fractional else 0.0)
        if isinstance(photons, Tensor):
            return shot + torch.as_tensor(read, dtype=photons.dtype, device=photons.device)
        return shot + read

    def to_photons(self, counts: Frames) -> Frames:
        """Counts as photons, float32: an estimate without bias, negative where noise was.

        Takes off baseline, the half count that truncation lost, gain, spurious charge and quantum efficiency.

        Args:
            counts: raw counts of any type, tensor or array, (..., height, width).
        """
        scale = 1 / self.counts_per_photon
        spurious = self.spurious_charge_e / self.quantum_efficiency
        cut = self._fractional and self.rounding == "truncate"
        if isinstance(counts, Tensor):
            signal = counts.to(torch.float32) - self.baseline
            if cut:
                signal += 0.5 * signal.sign()
            return signal.mul_(scale).sub_(spurious)
        array = np.asarray(counts).astype(np.float32)
        array -= np.float32(self.baseline)
        if cut:
            array += np.float32(0.5) * np.sign(array)
        array *= np.float32(scale)
        array -= np.float32(spurious)
        return array
