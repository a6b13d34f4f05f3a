"""Computed PSFs: the image of a freely turning dipole through a pupil with aberrations and phase masks.

The dipole's far field passes medium, cover glass and immersion (Fresnel), the pupil's phase, and the tube lens; the
three dipole axes times two polarisations give six fields whose intensities add up (Stallinga and Lieb 2010,
doi:10.1364/OE.18.024461; Siemons et al. 2018, doi:10.1364/OE.26.028397). A scalar variant has one field. The result is
a stack of images, or a spline table that simulates and fits (`to_spline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial, pi, sqrt
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from ._model import NotNegative, Positive, StrictModel
from .spline import SplinePSF, SplineTable, table_from_samples

_FINE_NM = 20.0  # largest distance of the points whose mean is a pixel's light


def noll(index: int) -> tuple[int, int]:
    """Radial and azimuthal order (n, m) of Zernike polynomial `index`; m < 0 for the sines.

    Source: Noll 1976, doi:10.1364/JOSA.66.000207.

    Example:
        >>> noll(1), noll(4), noll(5), noll(6), noll(11)
        ((0, 0), (2, 0), (2, -2), (2, 2), (4, 0))
    """
    if index < 1:
        raise ValueError(f"Zernike index {index}; Noll's count from 1 (piston), 4 is defocus, 6 astigmatism")
    n = int((sqrt(8 * index - 7) - 1) / 2)
    place = index - n * (n + 1) // 2 - 1
    m = place + (place + n) % 2 if n else 0
    return n, m if index % 2 == 0 else -m


def zernike(index: int, rho: Tensor, phi: Tensor) -> Tensor:
    """Noll's Zernike polynomial with a root mean square of 1 over the unit disk (piston 1)."""
    n, m = noll(index)
    order = abs(m)
    radial = torch.zeros_like(rho)
    for k in range((n - order) // 2 + 1):
        below = factorial(k) * factorial((n + order) // 2 - k) * factorial((n - order) // 2 - k)
        radial = radial + (-1) ** k * factorial(n - k) / below * rho ** (n - 2 * k)
    if m == 0:
        return sqrt(n + 1) * radial
    return sqrt(2 * (n + 1)) * radial * (torch.cos(order * phi) if m > 0 else torch.sin(order * phi))


class DoubleHelix(StrictModel):
    """Two lobes that turn with z: rings of equal defocus, the l-th a vortex of charge 2l - 1.

    Over z the lobes turn by about k (n - sqrt(n^2 - NA^2)) / (2 rings) radians per nm, n the immersion's index.

    Args:
        rings: fewer turn faster, more keep their shape longer.

    Source: Prasad 2013, doi:10.1364/OL.38.000585; Roider et al. 2014, doi:10.1364/OE.22.004029.
    """

    kind: Literal["double_helix"] = "double_helix"
    rings: Annotated[int, Field(ge=1, le=20)] = 2


class Tetrapod(StrictModel):
    """Two lobes that part along one axis below focus and along the other above it.

    Astigmatism Z6 against secondary astigmatism Z12 (Noll), the two strongest terms of such masks.

    Args:
        rms_nm: root mean square of the phase, nm; more makes the range in z longer.
        secondary: Z12 over Z6.

    Source: the idea of Shechtman et al. 2014, doi:10.1103/PhysRevLett.113.133902.
    """

    kind: Literal["tetrapod"] = "tetrapod"
    rms_nm: Positive = 250.0
    secondary: float = -0.6


PhaseMask = Annotated[DoubleHelix | Tetrapod, Field(discriminator="kind")]


class PupilPSF(StrictModel):
    """A microscope's PSF from its optics. All arguments by keyword; lengths in nm.

    Args:
        na: numerical aperture.
        wavelength_nm: of the emission, in vacuum.
        medium: refractive index round the molecules.
        immersion: refractive index of the immersion medium.
        cover: refractive index of the cover glass; the immersion's if left out.
        depth_nm: height of z = 0 above the cover glass; with `medium` unlike `immersion` it brings aberrations that
            grow with it. The objective stands where the remaining phase at z = 0 is least.
        zernike_nm: aberrations as Noll index -> root mean square over the pupil, nm of optical path; 6 is the
            astigmatism of a cylindrical lens: positive makes spots narrow along x above focus.
        mask: `{kind: double_helix, rings: ...}` or `{kind: tetrapod, rms_nm: ...}` or none.
        model: "vectorial", or "scalar" for an aplanatic lens without polarisation (right for low NA).
        samples: points across the pupil.

    Example:
        >>> psf = PupilPSF(na=1.4, wavelength_nm=660, zernike_nm={6: 60})
        >>> psf.images([0.0], pixel_size_nm=100, size_px=15).shape
        torch.Size([1, 15, 15])
    """

    na: Positive = 1.45
    wavelength_nm: Positive = 660.0
    medium: Annotated[float, Field(ge=1)] = 1.518
    immersion: Annotated[float, Field(ge=1)] = 1.518
    cover: Annotated[float, Field(ge=1)] | None = None
    depth_nm: NotNegative = 0.0
    zernike_nm: dict[int, float] = Field(default_factory=dict)
    mask: PhaseMask | None = None
    model: Literal["vectorial", "scalar"] = "vectorial"
    samples: Annotated[int, Field(ge=16, le=1024)] = 96

    def with_zernike(self, zernike_nm: Mapping[int, float]) -> PupilPSF:
        """The same optics with other aberrations."""
        return PupilPSF.model_validate({**self.model_dump(), "zernike_nm": dict(zernike_nm)})

    def images(
        self,
        z_nm: npt.ArrayLike | Tensor,
        *,
        pixel_size_nm: float,
        size_px: int,
        oversampling: int = 1,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Share of the light in each pixel of a square, the emitter in the middle of it.

        Args:
            z_nm: heights above focus, (Z,).
            pixel_size_nm: camera pixel in the sample.
            size_px: side of the square, camera pixels.
            oversampling: values per pixel along each axis, each a whole pixel's light around its place.
            device: where it is computed.

        Returns:
            (Z, oversampling * size_px, oversampling * size_px), float64. The whole plane at z = 0 holds 1.

        Raises:
            ValueError: NA beyond an index that must pass it.
        """
        pupil = self._pupil(torch.device(device))
        height = torch.as_tensor(z_nm, dtype=torch.float64, device=device).reshape(-1)
        points = oversampling * size_px
        inner = int(np.ceil(pixel_size_nm / oversampling / _FINE_NM))
        across = oversampling * inner  # fine points within a pixel
        step = pixel_size_nm / across
        # Fine points from half a pixel before the first place to half a pixel behind the last.
        count = (points - 1) * inner + across
        place = (torch.arange(count, dtype=torch.float64, device=device) - (count - 1) / 2) * step
        wave = torch.exp(1j * place[:, None] * pupil.k[None])  # (count, samples)
        shape = (len(height), count, count)
        light = torch.zeros(shape, dtype=torch.float64, device=device)
        for number, z in enumerate(height):
            fields = pupil.fields * torch.exp(1j * z * pupil.k_medium)
            light[number] = (wave @ fields @ wave.T).abs().square().sum(0)
        return torch.nn.functional.avg_pool2d(light[:, None], across, stride=inner)[:, 0] * pixel_size_nm**2

    def to_spline(
        self,
        *,
        pixel_size_nm: float,
        size_px: int = 25,
        z_range_nm: tuple[float, float] = (-750.0, 750.0),
        dz_nm: float = 50.0,
        oversampling: int = 2,
        device: torch.device | str = "cpu",
    ) -> SplineTable:
        """A table for `SplinePSF`, from images every `dz_nm`; arguments as in `images`."""
        low, high = z_range_nm
        layers = round((high - low) / dz_nm) + 1
        if layers < 4:
            raise ValueError(f"z_range_nm {low:g} to {high:g} holds {layers} layers of {dz_nm:g} nm; at least 4 needed")
        heights = low + dz_nm * np.arange(layers)
        stack = self.images(
            heights, pixel_size_nm=pixel_size_nm, size_px=size_px, oversampling=oversampling, device=device
        )
        middle = (stack.shape[1] - 1) / 2
        return table_from_samples(
            stack.cpu().numpy(),
            origin=(middle, middle, -low / dz_nm),
            dz_nm=dz_nm,
            oversampling=oversampling,
            pixel_size_nm=(pixel_size_nm, pixel_size_nm),
            notes={"source": "pupil", "pupil": self.model_dump(mode="json")},
        )

    def phase_nm(self, rho: Tensor, phi: Tensor) -> Tensor:
        """Optical path of aberrations and mask over the pupil, nm; `rho` 0..1."""
        path = torch.zeros_like(rho)
        for index, rms in self.zernike_nm.items():
            path = path + rms * zernike(index, rho, phi)
        if isinstance(self.mask, Tetrapod):
            share = self.mask.rms_nm / sqrt(1 + self.mask.secondary**2)
            path = path + share * (zernike(6, rho, phi) + self.mask.secondary * zernike(12, rho, phi))
        elif isinstance(self.mask, DoubleHelix):
            n, rim = self.immersion, self.na
            depth = (n - torch.sqrt(n**2 - (rim * rho) ** 2)) / (n - sqrt(n**2 - rim**2))
            ring = (depth * self.mask.rings).floor().clamp(max=self.mask.rings - 1)
            path = path + (2 * ring + 1) * phi * self.wavelength_nm / (2 * pi)
        return path

    def _pupil(self, device: torch.device) -> _Pupil:
        if self.na >= self.immersion or self.na >= (self.cover or self.immersion):
            raise ValueError(
                f"na is {self.na:g}; light of that aperture needs immersion and cover above it, they are "
                f"{self.immersion:g} and {self.cover or self.immersion:g}"
            )
        k0 = 2 * pi / self.wavelength_nm
        step = 2 * self.na * k0 / self.samples
        k = (torch.arange(self.samples, dtype=torch.float64, device=device) - (self.samples - 1) / 2) * step
        k_x, k_y = k[None, :], k[:, None]
        radius = torch.sqrt(k_x**2 + k_y**2)
        rho, phi = radius / (self.na * k0), torch.atan2(k_y.expand_as(radius), k_x.expand_as(radius))
        inside = _rim(rho, self.samples)
        k_medium, k_cover, k_immersion = (
            torch.sqrt(((n * k0) ** 2 - radius**2).to(torch.complex128))
            for n in (self.medium, self.cover or self.immersion, self.immersion)
        )
        safe = rho.clamp(max=1.0)
        path = self.phase_nm(safe, phi) * k0 + self._mismatch(k_medium, k_immersion, inside)
        common = torch.exp(1j * path)
        if self.model == "scalar":
            fields = (common * (k_immersion.real.clamp(min=0) / (self.immersion * k0)).sqrt())[None]
        else:
            fields = common * self._dipoles(phi, radius / k0, (k_medium / k0, k_cover / k0, k_immersion / k0))
        # All the light at z = 0 is 1: the plane's integral of |sum F exp(ikx)|^2 is (2 pi / step)^2 sum |F|^2.
        total = (inside * fields.abs().square()).sum() * (2 * pi / step) ** 2
        return _Pupil(fields=inside * fields / total.sqrt(), k=k, k_medium=k_medium)

    def _mismatch(self, k_medium: Tensor, k_immersion: Tensor, inside: Tensor) -> Tensor:
        """Phase of z = 0 at its depth, less the move of the objective that takes most of it away."""
        if self.depth_nm == 0:
            return torch.zeros_like(inside)
        deep, lens = k_medium * self.depth_nm, k_immersion.real
        weight = inside * (k_medium.imag == 0)
        weight = weight / weight.sum()
        centred = lens - (weight * lens).sum()
        move = (weight * centred * deep.real).sum() / (weight * centred**2).sum()
        return deep - move * lens

    def _dipoles(self, phi: Tensor, sine: Tensor, cosines: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The six fields (polarisation x dipole axis, samples, samples) behind the objective.

        `sine` is n sin(angle), common to all media; `cosines` are n cos(angle) in medium, cover and immersion.
        """
        media = (self.medium, self.cover or self.immersion, self.immersion)
        through_p, through_s = torch.ones_like(cosines[0]), torch.ones_like(cosines[0])
        for (n1, c1), (n2, c2) in pairwise(zip(media, cosines, strict=True)):
            # c = n cos: t_p = 2 n1 cos1 / (n2 cos1 + n1 cos2), t_s = 2 n1 cos1 / (n1 cos1 + n2 cos2).
            through_p = through_p * 2 * c1 / (n2 * c1 / n1 + n1 * c2 / n2)
            through_s = through_s * 2 * c1 / (c1 + c2)
        along, over = torch.cos(phi), torch.sin(phi)
        tilt, rise = cosines[0] / self.medium, sine / self.medium
        parallel = torch.stack([tilt * along, tilt * over, -rise.to(tilt.dtype)])
        upright = torch.stack([-over, along, torch.zeros_like(over)])
        towards_x = along * through_p * parallel - over * through_s * upright
        towards_y = over * through_p * parallel + along * through_s * upright
        # Solid angle and the lens: sqrt(cos of immersion) / cos of medium.
        apodisation = (cosines[2] / self.immersion).sqrt() / tilt
        return torch.cat([towards_x, towards_y]) * apodisation


@dataclass(frozen=True, kw_only=True)
class _Pupil:
    """Fields over the pupil (n, samples, samples), its axis k (1/nm), and the axial k in the medium."""

    fields: Tensor
    k: Tensor
    k_medium: Tensor


def _rim(rho: Tensor, samples: int) -> Tensor:
    """Share of each sample that lies within the pupil, so that its area does not jump with the number of samples."""
    return ((1 - rho) * samples / 2 + 0.5).clamp(0, 1)


class ZernikeField(StrictModel):
    """Aberrations that change over the field, each a polynomial of second order.

    With X = (x - centre x) / scale, Y likewise, the coefficient is a + b X + c Y + d X^2 + e X Y + f Y^2.

    Args:
        centre_nm: (x, y) of the middle of the field.
        scale_nm: length that is 1, e.g. half the field.
        terms_nm: Noll index -> (a, b, c, d, e, f), nm root mean square; later ones may be left out.
    """

    centre_nm: tuple[float, float]
    scale_nm: Positive
    terms_nm: dict[int, Annotated[tuple[float, ...], Field(min_length=1, max_length=6)]]

    def at(self, x_nm: float, y_nm: float) -> dict[int, float]:
        """Coefficients at a place, Noll index -> nm."""
        x, y = (x_nm - self.centre_nm[0]) / self.scale_nm, (y_nm - self.centre_nm[1]) / self.scale_nm
        powers = (1.0, x, y, x * x, x * y, y * y)
        return {
            index: sum(c * p for c, p in zip(terms, powers, strict=False)) for index, terms in self.terms_nm.items()
        }


class FieldPSF:
    """A PSF that changes over the field: splines at the nodes of a grid, blended in between.

    Args:
        tables: rows of tables, (rows, columns), all of one size and origin.
        x_nm: places of the columns, rising; `y_nm` of the rows. Beyond the outer ones the PSF stays.
        beyond: as in `SplinePSF`.
    """

    def __init__(
        self,
        tables: Sequence[Sequence[SplineTable]],
        *,
        x_nm: Sequence[float],
        y_nm: Sequence[float],
        beyond: Literal["refuse", "clamp"] = "refuse",
    ) -> None:
        if len(tables) != len(y_nm) or any(len(row) != len(x_nm) for row in tables):
            raise ValueError(f"tables must be {len(y_nm)} rows of {len(x_nm)}, one for each place in y_nm and x_nm")
        if any(b <= a for axis in (x_nm, y_nm) for a, b in pairwise(axis)):
            raise ValueError("x_nm and y_nm must rise")
        kinds = {(t.coefficients.shape, t.origin, t.dz_nm, t.oversampling) for row in tables for t in row}
        if len(kinds) > 1:
            raise ValueError("the tables differ in size, origin or voxels; make them all with the same settings")
        self.psfs = [[SplinePSF.of(table, beyond=beyond) for table in row] for row in tables]
        self.x_nm, self.y_nm = tuple(map(float, x_nm)), tuple(map(float, y_nm))

    @classmethod
    def build(
        cls,
        pupil: PupilPSF,
        field: ZernikeField,
        *,
        x_nm: Sequence[float],
        y_nm: Sequence[float],
        pixel_size_nm: float,
        size_px: int = 25,
        z_range_nm: tuple[float, float] = (-750.0, 750.0),
        dz_nm: float = 50.0,
        oversampling: int = 2,
        beyond: Literal["refuse", "clamp"] = "refuse",
    ) -> FieldPSF:
        """Nodes from a pupil whose `zernike_nm` the field's terms add to; the rest as in `PupilPSF.to_spline`."""

        def node(x: float, y: float) -> SplineTable:
            terms = dict(pupil.zernike_nm)
            for index, more in field.at(x, y).items():
                terms[index] = terms.get(index, 0.0) + more
            return pupil.with_zernike(terms).to_spline(
                pixel_size_nm=pixel_size_nm,
                size_px=size_px,
                z_range_nm=z_range_nm,
                dz_nm=dz_nm,
                oversampling=oversampling,
            )

        return cls([[node(x, y) for x in x_nm] for y in y_nm], x_nm=x_nm, y_nm=y_nm, beyond=beyond)

    @property
    def sigma_nm(self) -> float:
        """Of the middle node, see `SplineTable.sigma_nm`."""
        return self.psfs[len(self.psfs) // 2][len(self.psfs[0]) // 2].sigma_nm

    def at(self, x_nm: float, y_nm: float) -> SplinePSF:
        """The PSF at a place of the field, for fits and bounds there."""
        across = _shares(torch.tensor([float(x_nm)], dtype=torch.float64, device="cpu"), self.x_nm)[0].tolist()
        down = _shares(torch.tensor([float(y_nm)], dtype=torch.float64, device="cpu"), self.y_nm)[0].tolist()
        first = self.psfs[0][0]
        mixed = sum(
            v * u * psf.table.coefficients
            for v, row in zip(down, self.psfs, strict=True)
            for u, psf in zip(across, row, strict=True)
            if v * u
        )
        table = first.table
        return SplinePSF.of(
            SplineTable(
                coefficients=np.asarray(mixed, dtype=np.float32),
                origin=table.origin,
                dz_nm=table.dz_nm,
                oversampling=table.oversampling,
                pixel_size_nm=table.pixel_size_nm,
            ),
            beyond=first.beyond,
        )

    def expected(
        self,
        *,
        frame: Tensor,
        x_nm: Tensor,
        y_nm: Tensor,
        z_nm: Tensor,
        photons: Tensor,
        frames: int,
        shape: tuple[int, int],
        pixel_size_nm: tuple[float, float],
        sigma_nm: Tensor | float | None = None,
    ) -> Tensor:
        """As `PSF.expected`, positions in the field."""
        across, down = _shares(x_nm, self.x_nm), _shares(y_nm, self.y_nm)
        image = x_nm.new_zeros(frames, *shape)
        for row, psfs in enumerate(self.psfs):
            for column, psf in enumerate(psfs):
                share = down[:, row] * across[:, column]
                some = (share.detach() > 0).nonzero().squeeze(1)
                image = image + psf.expected(
                    frame=frame[some],
                    x_nm=x_nm[some],
                    y_nm=y_nm[some],
                    z_nm=z_nm[some],
                    photons=(photons * share)[some],
                    frames=frames,
                    shape=shape,
                    pixel_size_nm=pixel_size_nm,
                )
        return image


def _shares(place: Tensor, nodes: Sequence[float]) -> Tensor:
    """Weight of each node for each place, (n, nodes): linear between two, the last one beyond."""
    grid = torch.tensor(nodes, dtype=place.dtype, device=place.device)
    if len(nodes) == 1:
        return torch.ones_like(place)[:, None]
    held = place.clamp(nodes[0], nodes[-1])
    right = torch.searchsorted(grid, held.detach().contiguous()).clamp(1, len(nodes) - 1)
    part = (held - grid[right - 1]) / (grid[right] - grid[right - 1])
    weights = torch.zeros(len(place), len(nodes), dtype=place.dtype, device=place.device)
    return weights.scatter(1, right[:, None] - 1, (1 - part)[:, None]).scatter(1, right[:, None], part[:, None])
