"""Cubic-spline PSF: a measured or computed spot as piecewise cubic polynomials in x, y and z.

A voxel grid holds 64 polynomial coefficients per voxel. Laterally `oversampling` voxels make one camera pixel; the
value at a place is the share of the light in the pixel whose centre lies there, seen from the emitter, so the pixel's
integration is inside. All pixels of one emitter lie at the same fraction of their voxels: its image is one product of
64 weights with the coefficients of one height, and emitters of one height go through one matrix product.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PrivateAttr, ValidationInfo, field_validator, model_validator
from torch import Tensor

from ._model import StrictModel
from .psf import Unit, check_frames, compilable

MOST_NUMBERS = 1 << 28  # coefficients in a table; more is taken for a damaged or hostile file
_CHUNK = 1 << 23  # numbers in one block of single images
_PIECE = 1 << 19  # likewise on the CPU, where memory of larger ones is mapped and cleared afresh each time


class Knots(NamedTuple):
    """A spline without kinks as weights of B-splines: 64 of them make the polynomial of a voxel, neighbours share 48.

    Args:
        weights: (Z + 3, s, s, R, C) for s voxels per pixel; [k, q, p, r, c] belongs to the voxels' corner
            (k - 1, s r + q - 1, s c + p - 1).
        voxels: along y and x; beyond it is dark.
    """

    weights: npt.NDArray[np.float32]
    voxels: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class SplineTable:
    """The numbers of a spline PSF.

    Args:
        coefficients: (Z, 4, 4, 4, Y, X) float32; [k, c, b, a, j, i] multiplies dz^c dy^b dx^a within the voxel
            (k, j, i), the offsets 0..1 counted from its lower corner.
        origin: (x, y, z) of the emitter in voxels from the lower corner of the first.
        dz_nm: height of a voxel; larger indices are larger z.
        oversampling: voxels per camera pixel along x and y.
        pixel_size_nm: camera pixel (x, y) that the table was made for; None where unknown, then any.
        notes: what is known of its making, plain values.

    Raises:
        ValueError: shapes, numbers or sizes that cannot be.
    """

    coefficients: npt.NDArray[np.float32]
    origin: tuple[float, float, float]
    dz_nm: float
    oversampling: int = 1
    pixel_size_nm: tuple[float, float] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        array = np.asarray(self.coefficients)
        if array.ndim != 6 or array.shape[1:4] != (4, 4, 4) or 0 in array.shape:
            raise ValueError(f"spline coefficients have shape {array.shape}; expected (Z, 4, 4, 4, Y, X)")
        if array.size > MOST_NUMBERS:
            raise ValueError(f"a spline of {array.size} coefficients is too large; at most {MOST_NUMBERS} are read")
        array = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(array).all():
            raise ValueError("spline coefficients are not finite somewhere; the file is damaged")
        numbers = (*self.origin, self.dz_nm, *(self.pixel_size_nm or (1.0, 1.0)))
        if not np.isfinite(numbers).all() or self.dz_nm <= 0 or min(numbers[4:]) <= 0:
            raise ValueError(f"origin, dz and pixel size are {numbers}; expected finite numbers, sizes above 0")
        if not 1 <= self.oversampling <= 16:
            raise ValueError(f"oversampling is {self.oversampling}; expected 1 to 16")
        rest = [-size % self.oversampling for size in array.shape[4:]]
        if any(rest):  # dark voxels, so that every phase of a pixel has the same number of them
            array = np.pad(array, [(0, 0)] * 4 + [(0, more) for more in rest])
        object.__setattr__(self, "coefficients", array)

    @property
    def z_range_nm(self) -> tuple[float, float]:
        """Lowest and highest z that the table covers."""
        return -self.origin[2] * self.dz_nm, (len(self.coefficients) - self.origin[2]) * self.dz_nm

    @functools.cached_property
    def knots(self) -> Knots | None:
        """The same as weights of B-splines; None where value, slope or curvature jump between voxels."""
        # Without the dark voxels at the end, less than a pixel of them.
        rows, columns = (np.flatnonzero(np.any(self.coefficients, axis=(0, 1, 2, 3, axis))) for axis in (5, 4))
        if not len(rows):
            return None
        coefficients = self.coefficients[..., : rows[-1] + 1, : columns[-1] + 1]
        values = _weights(coefficients.astype(np.float64), 1, 0)  # (b, a, Y, X, Z + 3)
        values = _weights(_weights(values, 0, 2), 0, 1)  # (a, X, Z + 3, Y + 3), then (Z + 3, Y + 3, X + 3)
        rebuilt = _polynomials(_polynomials(_polynomials(values)))  # (c, Z, b, Y, a, X)
        difference = rebuilt.transpose(1, 0, 2, 4, 3, 5) - coefficients
        if np.abs(difference).max() > 1e-5 * np.abs(coefficients).max():
            return None
        s = self.oversampling
        rest = [(0, -size % s) for size in values.shape[1:]]
        high, broad = (-(-size // s) for size in values.shape[1:])
        array = np.pad(values, [(0, 0), *rest]).reshape(len(values), high, s, broad, s)
        weights = np.ascontiguousarray(array.transpose(0, 2, 4, 1, 3), dtype=np.float32)
        return Knots(weights, (int(rows[-1]) + 1, int(columns[-1]) + 1))

    @functools.cached_property
    def sigma_nm(self) -> float:
        """Width of a Gaussian as high at its peak as the highest in the table; pixels of 100 nm where unknown."""
        knots = self.coefficients[:, 0, 0, 0]
        pixel = self.pixel_size_nm or (100.0, 100.0)
        return float(np.sqrt(pixel[0] * pixel[1] / (2 * np.pi * max(float(knots.max()), 1e-12))))


def _weights(array: npt.NDArray[np.float64], power: int, voxel: int) -> npt.NDArray[np.float64]:
    """B-spline weights from the coefficients along one axis, in a new last axis, 3 longer; these two axes go."""
    a, b, c, d = np.moveaxis(array, (power, voxel), (0, 1))
    before, after = a[:1] - b[:1] + c[:1] * (2 / 3), a[-1:] + b[-1:] + c[-1:] * (2 / 3)
    beyond = a[-1:] + 2 * b[-1:] + c[-1:] * (11 / 3) + 6 * d[-1:]
    return np.moveaxis(np.concatenate([before, a - c / 3, after, beyond]), 0, -1)


def _polynomials(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Coefficients from the B-spline weights along the first axis, which goes; (..., power, voxel)."""
    p, q, r, s = (weights[first : len(weights) - 3 + first] for first in range(4))
    powers = [(p + 4 * q + r) / 6, (r - p) / 2, (p - 2 * q + r) / 2, (s - 3 * r + 3 * q - p) / 6]
    return np.moveaxis(np.stack(powers), (0, 1), (-2, -1))


def table_from_samples(
    samples: npt.ArrayLike,
    *,
    origin: tuple[float, float, float],
    dz_nm: float,
    oversampling: int = 1,
    pixel_size_nm: tuple[float, float] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> SplineTable:
    """The spline through samples on a grid, twice continuously differentiable, not-a-knot at the ends.

    Args:
        samples: shares of the light, (Z, Y, X), at least 4 along each axis; the corners of the voxels.
        origin: (x, y, z) of the emitter, in samples from the first.
        dz_nm: distance of the samples along z.
        oversampling: samples per camera pixel along x and y; each is a whole camera pixel's light.
        pixel_size_nm: camera pixel (x, y).
        notes: kept with the table.
    """
    from scipy.interpolate import CubicSpline

    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 3 or min(values.shape) < 4:
        raise ValueError(f"samples have shape {values.shape}; expected (Z, Y, X) with at least 4 along each axis")
    if not np.isfinite(values).all():
        raise ValueError("samples are not finite somewhere")

    def along(array: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        """Coefficients of rising power in a new first axis; `axis` shrinks by one."""
        pieces = CubicSpline(np.arange(array.shape[axis]), array, axis=axis, bc_type="not-a-knot").c[::-1]
        return np.moveaxis(pieces, 1, axis + 1)  # scipy puts (power, piece) first

    a = along(values, 2)  # (a, Z, Y, X)
    b = along(a, 2)  # (b, a, Z, Y, X)
    c = along(b, 2)  # (c, b, a, Z, Y, X)
    return SplineTable(
        coefficients=np.moveaxis(c, 3, 0).astype(np.float32),
        origin=origin,
        dz_nm=dz_nm,
        oversampling=oversampling,
        pixel_size_nm=pixel_size_nm,
        notes=notes or {},
    )


def smap_table(
    coefficients: npt.NDArray[Any], *, origin_px: tuple[float, float], z0: float, dz_nm: float, source: str
) -> SplineTable:
    """A table from coefficients as SMAP's calibrations and DECODE hold them.

    Args:
        coefficients: (rows, columns, z, 64); column 16 c + 4 b + a multiplies dz^c dcolumn^b drow^a.
        origin_px: (row, column) of the emitter in voxels, from 0: MATLAB's x0 - 1.
        z0: layer of the emitter, MATLAB's number as it is.
        dz_nm: height of a voxel.
        source: kept in the notes.
    """
    array = np.asarray(coefficients)
    if array.ndim != 4 or array.shape[3] != 64 or array.dtype.kind != "f":
        raise ValueError(
            f"the coefficients are {array.dtype} of shape {array.shape}; expected numbers (rows, columns, z, 64)"
        )
    rows, columns, layers, _ = array.shape
    split = array.reshape(rows, columns, layers, 4, 4, 4)  # powers of z, column, row
    return SplineTable(
        coefficients=split.transpose(2, 3, 5, 4, 0, 1),
        origin=(origin_px[1], origin_px[0], z0),
        dz_nm=dz_nm,
        notes={"source": source},
    )


class SplinePSF(StrictModel):
    """A PSF from a file: our npz (`save_spline`) or a SMAP calibration (`*_3dcal.mat`).

    Args:
        file: where it is; in a recipe file relative to that file's folder.
        beyond: z outside the table: "refuse" raises, "clamp" draws the last height (and its z derivative is 0).
        sha256: of the file, filled in when it is read; a file that differs is refused.
    """

    kind: Literal["spline"] = "spline"
    file: str
    beyond: Literal["refuse", "clamp"] = "refuse"
    sha256: str | None = None
    _table: SplineTable = PrivateAttr()
    _cast: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = PrivateAttr(default_factory=dict)

    @field_validator("file", mode="before")
    @classmethod
    def _whole_path(cls, value: Any, info: ValidationInfo) -> str:
        folder = (info.context or {}).get("folder", ".")
        return os.path.abspath(Path(folder) / os.fspath(value))

    @model_validator(mode="after")
    def _read(self) -> SplinePSF:
        table, digest = read_spline(self.file)
        if self.sha256 not in (None, digest):
            raise ValueError(f"{self.file} is not the file that the recipe means: sha256 {digest}, not {self.sha256}")
        object.__setattr__(self, "sha256", digest)
        self._table = table
        return self

    @classmethod
    def of(cls, table: SplineTable, *, beyond: Literal["refuse", "clamp"] = "refuse") -> SplinePSF:
        """A PSF of a table in memory. In a recipe it needs a file: `save_spline` first."""
        psf = cls.model_construct(file="", beyond=beyond, sha256=None)
        psf._table = table
        psf._cast = {}
        return psf

    @property
    def table(self) -> SplineTable:
        """The numbers."""
        return self._table

    @property
    def sigma_nm(self) -> float:
        """See `SplineTable.sigma_nm`."""
        return self._table.sigma_nm

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
        """As `PSF.expected`; `sigma_nm` is taken for the simulator's sake and changes nothing.

        Raises:
            IndexError: a frame number outside 0..frames-1.
            ValueError: a place that is no number, another pixel size than the table's, or z beyond it where that is
                refused.
        """
        check_frames(frame, frames)
        place = self._place(x_nm, y_nm, z_nm, pixel_size_nm)
        high, broad = self._pixels
        if compilable(x_nm, y_nm, z_nm, photons) and self._table.knots:
            from ._spots import splines

            return splines(
                *self._table.knots,
                row=place.row,
                column=place.column,
                key=place.key,
                fractions=place.fractions,
                photons=photons,
                frame=frame,
                frames=frames,
                shape=shape,
            )
        near = (place.row > -high) & (place.row < shape[0]) & (place.column > -broad) & (place.column < shape[1])
        seen = near.nonzero().squeeze(1)
        seen = seen[torch.argsort(place.key[seen], stable=True)]
        weights = place.weights(seen, (_powers,) * 3, photons[seen].to(x_nm.dtype))
        key, frame, row, column = (part[seen] for part in (place.key, frame, place.row, place.column))
        # A piece of spots at a time.
        step = max(1, (_PIECE if x_nm.device.type == "cpu" else _CHUNK) // (high * broad))
        pieces = [slice(begin, begin + step) for begin in range(0, len(seen), step)]
        # A margin as wide as a spot takes what falls outside; it is cut off at the end.
        tall, long = shape[0] + 2 * high, shape[1] + 2 * broad
        image = x_nm.new_zeros(frames * tall * long)
        down = torch.arange(high, device=x_nm.device)[:, None] * long + torch.arange(broad, device=x_nm.device)
        down = down.reshape(-1).to(torch.int32 if len(image) < 2**31 else torch.int64)
        first = ((frame * tall + row + high) * long + column + broad).to(down.dtype)[:, None]
        for some in pieces:
            spots = self._spots(key[some], weights[some])
            index = (first[some] + down).reshape(-1)
            # In place where no gradient is wanted: the copy of the whole image is what would cost.
            image = (image.index_add if spots.requires_grad else image.index_add_)(0, index, spots.reshape(-1))
        return image.reshape(frames, tall, long)[:, high : high + shape[0], broad : broad + shape[1]]

    def values_and_derivatives(
        self,
        x_nm: Tensor,
        y_nm: Tensor,
        z_nm: Tensor,
        *,
        shape: tuple[int, int],
        pixel_size_nm: tuple[float, float],
    ) -> Unit:
        """As `PSF.values_and_derivatives`; 0 outside the table.

        Raises:
            ValueError: as `expected`.
        """
        place = self._place(x_nm, y_nm, z_nm, pixel_size_nm)
        every = torch.arange(len(x_nm), device=x_nm.device)
        order = torch.argsort(place.key, stable=True)
        back = torch.empty_like(order)
        back[order] = every
        high, broad = self._pixels
        # Where in the spot each pixel of the region lies; one dark row and column more for those outside it.
        rows = _inside(torch.arange(shape[0], device=x_nm.device) - place.row[:, None], high)
        columns = _inside(torch.arange(shape[1], device=x_nm.device) - place.column[:, None], broad)
        per_x, per_y = (self._table.oversampling / size for size in pixel_size_nm)
        still = ((z_nm < self._table.z_range_nm[0]) | (z_nm > self._table.z_range_nm[1]))[:, None, None]
        parts = []
        for kinds, scale in (
            ((_powers, _powers, _powers), 1.0),
            ((_slopes, _powers, _powers), -per_x),
            ((_powers, _slopes, _powers), -per_y),
            ((_powers, _powers, _slopes), 1 / self._table.dz_nm),
        ):
            spots = self._spots(place.key[order], place.weights(order, kinds, None))
            spots = torch.nn.functional.pad(scale * spots[back].reshape(-1, high, broad), (0, 1, 0, 1))
            parts.append(spots[every[:, None, None], rows[:, :, None], columns[:, None, :]])
        return Unit(parts[0], parts[1], parts[2], torch.where(still, 0.0, parts[3]))

    @property
    def _pixels(self) -> tuple[int, int]:
        """Height and width of a spot, camera pixels."""
        high, broad = self._table.coefficients.shape[4:]
        return high // self._table.oversampling, broad // self._table.oversampling

    def _place(self, x_nm: Tensor, y_nm: Tensor, z_nm: Tensor, pixel_size_nm: tuple[float, float]) -> _Place:
        table = self._table
        own = table.pixel_size_nm or pixel_size_nm
        if any(abs(size - other) > 2e-3 * other for size, other in zip(own, pixel_size_nm, strict=True)):
            raise ValueError(
                f"the camera's pixels are {pixel_size_nm[0]:g} x {pixel_size_nm[1]:g} nm but this PSF was made for "
                f"{own[0]:g} x {own[1]:g} nm; calibrate for the camera at hand"
            )
        if not torch.isfinite((x_nm + y_nm + z_nm).detach()).all():
            raise ValueError("x_nm, y_nm or z_nm is nan or infinite somewhere; give every emitter a place, in nm")
        low, top = table.z_range_nm
        if self.beyond == "refuse" and z_nm.numel():
            lowest, highest = float(z_nm.detach().min()), float(z_nm.detach().max())
            slack = 1e-5 * (top - low)
            if not (low - slack <= lowest and highest <= top + slack):
                raise ValueError(
                    f"emitters lie at z {lowest:g} to {highest:g} nm, the PSF covers {low:g} to {top:g} nm; keep them "
                    "inside, or give beyond: clamp to draw those outside as at the last height"
                )
        w = (z_nm / table.dz_nm + table.origin[2]).clamp(0, len(table.coefficients))
        layer = w.detach().floor().clamp(max=len(table.coefficients) - 1)
        column, phase_x, u = _first(x_nm / pixel_size_nm[0], table.origin[0], table.oversampling)
        row, phase_y, v = _first(y_nm / pixel_size_nm[1], table.origin[1], table.oversampling)
        key = (layer.long() * table.oversampling + phase_y) * table.oversampling + phase_x
        return _Place(row=row, column=column, key=key, fractions=(u, v, w - layer))

    def _spots(self, key: Tensor, weights: Tensor) -> Tensor:
        """Spots (n, pixels) of emitters whose keys rise, from their weights (n, 64)."""
        blocks = self._coefficients(weights.device, weights.dtype)
        keys, counts = torch.unique_consecutive(key, return_counts=True)
        sizes = counts.tolist()
        pairs = zip(torch.split(weights, sizes), (blocks[number] for number in keys.tolist()), strict=True)
        if weights.requires_grad and sizes:
            return torch.cat([part @ block for part, block in pairs])
        # Without a gradient straight into one tensor: a copy less.
        spots = weights.new_empty((len(weights), blocks[0].shape[1]))
        for (part, block), out in zip(pairs, torch.split(spots, sizes), strict=True):
            torch.mm(part, block, out=out)
        return spots

    def _coefficients(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """(64, pixels of a spot) for every height and phase, kept for the next call."""
        if (device, dtype) not in self._cast:
            table, (high, broad) = self._table, self._pixels
            s = table.oversampling
            array = torch.from_numpy(table.coefficients).to(device, dtype).reshape(-1, 64, high, s, broad, s)
            array = array.permute(0, 3, 5, 1, 2, 4).reshape(-1, 64, high * broad)
            self._cast[device, dtype] = array.contiguous().unbind()
        return self._cast[device, dtype]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where spots go: first row and column on the camera, the block of coefficients, offsets (x, y, z) in it."""

    row: Tensor
    column: Tensor
    key: Tensor
    fractions: tuple[Tensor, Tensor, Tensor]

    def weights(self, some: Tensor, kinds: tuple[_Weights, _Weights, _Weights], light: Tensor | None) -> Tensor:
        """What the coefficients of the emitters `some` are multiplied with, (n, 64)."""
        x, y, z = (kind(part[some]) for kind, part in zip(kinds, self.fractions, strict=True))
        if light is not None:
            z = z * light[:, None]
        return (z[:, :, None] * (y[:, :, None] * x[:, None, :]).reshape(-1, 1, 16)).reshape(-1, 64)


_Weights = Callable[[Tensor], Tensor]


def _powers(f: Tensor) -> Tensor:
    square = f * f
    return torch.stack([torch.ones_like(f), f, square, square * f], dim=1)


def _slopes(f: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(f), torch.ones_like(f), 2 * f, 3 * f * f], dim=1)


def _first(centre: Tensor, origin: float, oversampling: int) -> tuple[Tensor, Tensor, Tensor]:
    """First pixel whose centre lies on the table, its voxel there, and the offset in that voxel."""
    start = centre - origin / oversampling - 0.5
    first = start.detach().ceil()
    u = (first - start) * oversampling
    voxel = u.detach().floor().clamp(max=oversampling - 1)
    return first.long(), voxel.long(), u - voxel


def _inside(index: Tensor, size: int) -> Tensor:
    """The index, or `size` where it is outside 0..size-1."""
    return torch.where((index >= 0) & (index < size), index, size)


# ------------------------------------------------------------------------------------------------ files


def save_spline(table: SplineTable, path: str | os.PathLike[str]) -> None:
    """Write a table as npz; give a temporary path and rename it where a half-written file would hurt."""
    import json

    arrays: dict[str, Any] = {
        "format": np.array("smlm-zoo spline 1"),
        "coefficients": table.coefficients,
        "origin": np.array(table.origin, dtype=np.float64),
        "dz_nm": np.float64(table.dz_nm),
        "oversampling": np.int64(table.oversampling),
        "notes": np.array(json.dumps(dict(table.notes), sort_keys=True)),
    }
    if table.pixel_size_nm is not None:
        arrays["pixel_size_nm"] = np.array(table.pixel_size_nm, dtype=np.float64)
    with open(path, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_spline(path: str | os.PathLike[str]) -> tuple[SplineTable, str]:
    """A table from our npz or a SMAP `_3dcal.mat`, and the file's SHA-256.

    Raises:
        ValueError: no such file, another kind of file, damaged, or larger than a PSF can be.
    """
    file = Path(path)
    try:
        state = file.stat()
    except OSError as error:
        raise ValueError(f"no PSF file {file}: {error.strerror}") from None
    return _read_cached(os.fspath(file), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _read_cached(path: str, changed: int, size: int) -> tuple[SplineTable, str]:
    from . import _spline_files

    if size > _spline_files.MOST_BYTES:
        raise ValueError(f"{path} is {size / 2**20:.0f} MiB; PSF files of more than 512 MiB are not read")
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        table = _spline_files.read(Path(path))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a PSF: {error}") from error
    return table, digest
