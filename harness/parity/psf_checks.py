"""PSFs, their derivatives, Fisher matrices and bounds against DECODE's.

DECODE's images are indexed [x, y] with x along our rows, pixel centres at integers and z the negative of ours; so its
x is our y plus half a pixel, and its derivative by z, whose minus sign it leaves out, is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .files import Case
from .rows import Row, compare, not_covered

GAUSSIAN_TOLERANCE = 1e-6  # theirs is float32; ours leaves out what lies beyond 5 standard deviations
SPLINE_TOLERANCE = 2e-6
FISHER_TOLERANCE = 1e-5
CRLB_TOLERANCE = 2e-5  # theirs inverts in float32

_PIXEL_NM = 100.0
_FOCAL_SHIFT_NM, _DEFOCUS_NM = 250.0, 280.0  # fixed in the original
_OUTSIDE = 1e-10  # what a voxel outside the coefficients gives there, whatever the photons

_GAUSSIAN_FRAMES = ("frames_2d", "frames_2d_peak", "frames_as", "frames_as_peak")


def is_gaussian_psf(case: Case) -> bool:
    return {"sigma_0", "xyz"} <= case.arrays.keys() and any(
        key.startswith(("frames_2d", "frames_as", "sigma_xy_at_z")) for key in case.arrays
    )


def is_spline_psf(case: Case) -> bool:
    return {"coeff", "ref0", "vx_size", "xyz"} <= case.arrays.keys()


def _column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def check_gaussian_psf(case: Case) -> Iterator[Row]:
    """Frames of the 2-D and the astigmatic Gaussian, N as integral and as peak, and the widths over z."""
    from simulators import AstigmaticPSF, GaussianPSF

    file, arrays = case.path.name, case.arrays
    sigma = float(np.asarray(arrays["sigma_0"]).reshape(-1)[0]) * _PIXEL_NM
    psfs: dict[str, GaussianPSF | AstigmaticPSF] = {
        "2d": GaussianPSF(sigma_nm=sigma),
        # Their x is wide where z is far from -250, which is our y at +250.
        "as": AstigmaticPSF(sigma_nm=sigma, defocus_nm=_DEFOCUS_NM, focal_shift_nm=-_FOCAL_SHIFT_NM),
    }
    for key, theirs in arrays.items():
        if key in _GAUSSIAN_FRAMES:
            kind, peak = key.split("_")[1], key.endswith("_peak")
            x, y, z = (_column(part) for part in np.asarray(arrays["xyz"]).T)
            frame, light = torch.from_numpy(np.asarray(arrays["frame_ix"]).astype(np.int64)), _column(arrays["phot"])
            low, high = int(arrays["ix_low"]), int(arrays["ix_high"])
            seen = (frame >= low) & (frame <= high)
            if peak:
                wide_x, wide_y = psfs[kind].widths(-z)
                light = light * 2 * np.pi * wide_x * wide_y / _PIXEL_NM**2
            ours = psfs[kind].expected(
                frame=frame[seen] - low,
                x_nm=((y + 0.5) * _PIXEL_NM)[seen],
                y_nm=((x + 0.5) * _PIXEL_NM)[seen],
                z_nm=-z[seen],
                photons=light[seen],
                frames=high - low + 1,
                shape=(theirs.shape[-2], theirs.shape[-1]),
                pixel_size_nm=(_PIXEL_NM, _PIXEL_NM),
            )
            note = "photons times 2 pi sx sy" if peak else "photons of the whole spot"
            yield compare(file, key, ours.numpy(), theirs, tolerance=GAUSSIAN_TOLERANCE, note=note)
        elif key == "sigma_xy_at_z":
            wide_x, wide_y = psfs["as"].widths(-_column(arrays["z"]))
            widths = torch.stack([wide_y, wide_x], dim=1) / _PIXEL_NM
            yield compare(file, key, widths.numpy(), theirs, tolerance=GAUSSIAN_TOLERANCE, note="AstigmaticPSF.widths")
        elif key not in {"sigma_0", "ix_low", "ix_high", "xyz", "phot", "frame_ix", "z"}:
            yield not_covered(file, key, "no quantity of ours stands for it")


class _Spline:
    """The file's spline as ours, and its emitters on regions of the original's choice."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        from simulators.spline import SplinePSF, smap_table

        coefficients, reference = arrays["coeff"], np.asarray(arrays["ref0"], dtype=np.float64)
        self.dz = float(arrays["vx_size"][2])
        table = smap_table(
            coefficients, origin_px=(reference[0], reference[1]), z0=float(reference[2]), dz_nm=self.dz, source="parity"
        )
        self.psf = SplinePSF.of(table)
        self.reference, self.size = reference[:2], np.array(coefficients.shape[:2])
        xyz = np.asarray(arrays["xyz"], dtype=np.float64)
        self.xy, self.photons = xyz[:, :2], _column(arrays["phot"])
        # Beyond the range the original takes the last voxel and keeps the fraction: a sawtooth. The same place in ours:
        layer = reference[2] - xyz[:, 2] / self.dz
        layer = np.clip(np.floor(layer), 0, coefficients.shape[2] - 1) + layer % 1
        self.z_nm = torch.from_numpy((layer - reference[2]) * self.dz)
        self.background = _column(arrays["bg"]) if "bg" in arrays else torch.zeros(len(xyz), dtype=torch.float64)

    def start(self, roi: int | None) -> np.ndarray:
        """First pixel (row, column) of each emitter's region: of the coefficients' size, or `roi`, centred."""
        offset = self.reference if roi is None else (roi - 1) / 2
        return np.floor(self.xy - offset).astype(np.int64)

    def shape(self, roi: int | None) -> tuple[int, int]:
        return (int(self.size[0]), int(self.size[1])) if roi is None else (roi, roi)

    def units(self, rows: np.ndarray, roi: int | None) -> tuple[list[Tensor], Tensor]:
        """Image and derivatives by our x, y, z, per pixel and nm, and which pixels lie on the coefficients."""
        shape, where = self.shape(roi), self.xy[rows] - self.start(roi)[rows]
        y, x = ((torch.from_numpy(where[:, axis]) + 0.5) * _PIXEL_NM for axis in (0, 1))
        unit = self.psf.values_and_derivatives(x, y, self.z_nm[rows], shape=shape, pixel_size_nm=(_PIXEL_NM, _PIXEL_NM))
        on = self.on(where, shape)
        return [unit.image, unit.d_x * _PIXEL_NM, unit.d_y * _PIXEL_NM, unit.d_z], torch.from_numpy(on)

    def on(self, where: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        inside = []
        for axis in (0, 1):
            voxel = np.arange(shape[axis]) - where[:, axis, None] + self.reference[axis]
            inside.append((voxel >= 0) & (voxel < self.size[axis]))
        return inside[0][:, :, None] & inside[1][:, None, :]

    def frames(self, frame: np.ndarray, shape: tuple[int, ...], roi: int | None) -> np.ndarray:
        """All emitters on the frames from 0, each within its region."""
        units, on = self.units(np.arange(len(self.xy)), roi)
        spots = torch.where(on, units[0] * self.photons[:, None, None], _OUTSIDE).numpy()
        start, size = self.start(roi), self.shape(roi)
        image = np.zeros(shape)
        for spot, (row, column), number in zip(spots, start, frame, strict=True):
            top, left = max(row, 0), max(column, 0)
            bottom, right = min(row + size[0], shape[1]), min(column + size[1], shape[2])
            if 0 <= number < shape[0] and top < bottom and left < right:
                part = spot[top - row : bottom - row, left - column : right - column]
                image[number, top:bottom, left:right] += part
        return image

    def fisher(self, rows: np.ndarray, roi: int | None) -> Tensor:
        """Information of x, y, z, photons, background as the original counts it, pixels and nm, by `fisher`."""
        from simulators import Camera
        from simulators.crlb import fisher

        shape, where = self.shape(roi), self.xy[rows] - self.start(roi)[rows]
        on = self.on(where, shape)
        # Pixels off the coefficients tell nothing there, not even of the background: leave them out. Emitters whose
        # regions then have one size go together.
        spans = np.array(
            [[*np.flatnonzero(part.any(1))[[0, -1]], *np.flatnonzero(part.any(0))[[0, -1]]] for part in on]
        )
        found = torch.empty(len(rows), 5, 5, dtype=torch.float64)
        for top, bottom, left, right in np.unique(spans, axis=0):
            alike = np.flatnonzero((spans == (top, bottom, left, right)).all(1))
            some = rows[alike]
            y, x = (torch.from_numpy(where[alike] - (top, left) + 0.5) * _PIXEL_NM).unbind(1)
            found[alike] = fisher(
                self.psf,
                x_nm=x,
                y_nm=y,
                z_nm=self.z_nm[some],
                photons=self.photons[some],
                background=self.background[some],
                camera=Camera.ideal(_PIXEL_NM),
                shape=(int(bottom - top + 1), int(right - left + 1)),
            )
        order = torch.tensor([1, 0, 2, 3, 4])
        scale = torch.tensor([_PIXEL_NM, _PIXEL_NM, 1.0, 1.0, 1.0], dtype=torch.float64)
        return found[:, order][:, :, order] * scale[:, None] * scale


def check_spline_psf(case: Case) -> Iterator[Row]:
    """Frames over whole and centred regions, single regions, derivatives, Fisher matrices and bounds."""
    file, arrays = case.path.name, dict(case.arrays)
    spline = _Spline(arrays)
    for key, theirs in arrays.items():
        if key in {"coeff", "ref0", "vx_size", "xyz", "phot", "frame_ix", "bg", "crlb_index"}:
            continue
        name, roi = _region(key)
        step = _SPLINE_STEPS.get(name)
        if step is None:
            yield not_covered(file, key, "no quantity of ours stands for it")
            continue
        ours, tolerance, note = step(spline, arrays, theirs, roi)
        if name == "crlb":
            # Five quantities of very different sizes: each against its own largest.
            for number, parameter in enumerate(("x", "y", "z", "photons", "background")):
                item = f"{key} {parameter}"
                yield compare(file, item, ours[:, number], theirs[:, number], tolerance=tolerance, note=note)
        elif name == "fisher":
            size = np.sqrt(np.einsum("nii,njj->nij", theirs, theirs, dtype=np.float64))
            yield compare(file, key, ours / size, theirs / size, tolerance=tolerance, note=note)
        elif name == "derivative":
            for number, parameter in enumerate(("x", "y", "z", "photons", "background")):
                item = f"{key} {parameter}"
                yield compare(file, item, ours[:, number], theirs[:, number], tolerance=tolerance, note=note)
        else:
            yield compare(file, key, ours, theirs, tolerance=tolerance, note=note)


def _region(key: str) -> tuple[str, int | None]:
    """("frames", 11) of frames_roi11_centred; None for the coefficients' own size."""
    name, separator, rest = key.partition("_roi")
    digits = rest.split("_")[0]
    return (name, int(digits)) if separator and digits.isdigit() else (key, None)


_Step = Callable[[_Spline, dict[str, np.ndarray], np.ndarray, int | None], tuple[np.ndarray, float, str]]


def _frames(
    spline: _Spline, arrays: dict[str, np.ndarray], theirs: np.ndarray, roi: int | None
) -> tuple[np.ndarray, float, str]:
    note = "values_and_derivatives" if roi is None else f"centred {roi} x {roi} pixels"
    return spline.frames(np.asarray(arrays["frame_ix"]), theirs.shape, roi), SPLINE_TOLERANCE, note


def _rois(
    spline: _Spline, arrays: dict[str, np.ndarray], theirs: np.ndarray, roi: int | None
) -> tuple[np.ndarray, float, str]:
    units, on = spline.units(np.arange(len(theirs)), roi)
    spots = torch.where(on, units[0], _OUTSIDE) * spline.photons[: len(theirs), None, None]
    return spots.numpy(), SPLINE_TOLERANCE, "one emitter a region"


def _rois_with_background(
    spline: _Spline, arrays: dict[str, np.ndarray], theirs: np.ndarray, roi: int | None
) -> tuple[np.ndarray, float, str]:
    spots, tolerance, note = _rois(spline, arrays, theirs, roi)
    return spots + spline.background[: len(theirs), None, None].numpy(), tolerance, note


def _derivative(
    spline: _Spline, arrays: dict[str, np.ndarray], theirs: np.ndarray, roi: int | None
) -> tuple[np.ndarray, float, str]:
    (image, d_x, d_y, d_z), on = spline.units(np.arange(len(theirs)), roi)
    light = spline.photons[: len(theirs), None, None]
    stack = torch.stack([d_y * light, d_x * light, d_z * light, image, torch.ones_like(image)], dim=1)
    return torch.where(on[:, None], stack, 0.0).numpy(), SPLINE_TOLERANCE, "per pixel, nm, photon"


def _fisher(
    spline: _Spline, arrays: dict[str, np.ndarray], theirs: np.ndarray, roi: int | None
) -> tuple[np.ndarray, float, str]:
    ours = spline.fisher(np.arange(len(theirs)), roi)
    return ours.numpy(), FISHER_TOLERANCE, "over the roots of their diagonal"


def _crlb(
    spline: _Spline, arrays: dict[str, np.ndarray], theirs: np.ndarray, roi: int | None
) -> tuple[np.ndarray, float, str]:
    from simulators.crlb import standard_errors

    rows = np.asarray(arrays["crlb_index"]) if "crlb_index" in arrays else np.arange(len(theirs))
    return standard_errors(spline.fisher(rows, roi)).square().numpy(), CRLB_TOLERANCE, "variances"


_SPLINE_STEPS: dict[str, _Step] = {
    "frames": _frames,
    "rois": _rois,
    "rois_with_bg": _rois_with_background,
    "derivative": _derivative,
    "fisher": _fisher,
    "crlb": _crlb,
}
