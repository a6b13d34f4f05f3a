"""The whole way from a bead stack to a PSF and what can be said of its quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simulators import Camera, Emitters, SplinePSF, SplineTable
from simulators.crlb import BoundCurves, crlb_curves

from .beads import Bead, Rejected, find_beads
from .fuse import ROUNDS, Aligned, align_and_fuse, fit_bead

Floats = NDArray[np.float64]

_WINDOW_NM = 400.0  # standard deviation of the window in which a spot's centre is taken, at least
_WINDOW_SIZES = 1.6  # and at least this many times the size of the spot in focus, for PSFs of two lobes
_ODD = 3.0  # times the median chi-square of all beads: such a bead has another PSF
_PHOTONS = (1000.0, 5000.0)
_BACKGROUND = 20.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """One bead against the PSF of the others (of itself, where it is the only one).

    Args:
        correlation: Pearson's r of data and PSF in each slice, (Z,).
        chi2: mean squared residual over the camera's variance in each slice, (Z,); 1 where the PSF is right.
        light: photons in each slice, (Z,).
        apart: whether the bead itself was left out of the PSF.
    """

    correlation: Floats
    chi2: Floats
    light: Floats
    apart: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """A PSF from beads, and its figures.

    Args:
        table: the spline.
        z_nm: height of each slice of the stack, rising.
        position_nm: (x, y) of the beads from the stack's outer corner, their emitter's place, (beads, 2).
        shift_nm: height of each bead above the mean of them.
        agreement: one per bead.
        rejected: spots that were not taken.
        wobble: rows (dx, dy, z): the centre of the spot minus the emitter's place, nm.
        curves: bounds over z for `curves.photons` and `background` photons per pixel.
        background: of the curves.
        light: light at each knot relative to the brightest.
        truth_scatter_nm: (x, y) standard deviation of the beads round the true places, less their mean; or None.
        settings: what it was made with.
    """

    table: SplineTable
    z_nm: Floats
    position_nm: Floats
    shift_nm: Floats
    agreement: list[Agreement]
    rejected: list[Rejected]
    wobble: Floats
    curves: BoundCurves
    background: float
    light: Floats
    truth_scatter_nm: tuple[float, float] | None
    settings: dict[str, Any]

    def worst_correlation(self, z_nm: float = 600.0) -> float:
        """The smallest correlation of any bead in any slice up to |z|."""
        near = np.abs(self.z_nm) <= z_nm + 1e-6
        return float(min(a.correlation[near].min() for a in self.agreement))


def calibrate(
    counts: NDArray[Any],
    *,
    camera: Camera,
    z_step_nm: float,
    z_start_nm: float | None = None,
    size_px: int = 31,
    dz_nm: float = 50.0,
    oversampling: int = 2,
    normalize: Literal["slice", "stack"] = "slice",
    align_z: bool = True,
    truth: Emitters | None = None,
    threshold: float = 0.25,
    min_correlation: float = 0.8,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """A spline PSF from a z-stack of beads.

    Args:
        counts: raw stack, (Z, height, width).
        camera: pixel size, and the constants that make photons of counts.
        z_step_nm: height from one slice to the next; negative where z falls.
        z_start_nm: height of the first slice; if left out z = 0 is where the spot is sharpest.
        size_px: side of the PSF, camera pixels.
        dz_nm: layers of the spline.
        oversampling: voxels per camera pixel.
        normalize: "slice": photons mean the light within the PSF's square, at any z; "stack": within it at z = 0, so
            that the light may change with z as it does in the stack.
        align_z: whether beads may lie at different heights.
        truth: where the beads truly are (rows of any frame); then the PSF's origin is there. Otherwise it is the
            centre of the spot at z = 0.
        threshold: dimmest spot, of the third brightest, that may be a bead.
        min_correlation: beads that agree less with the others, in the middle of the range, are left out; so are those
            with three times the typical chi-square.
        progress: called with (what, done, all).

    Raises:
        ValueError: no usable bead, a range of z too short, no bead near a true place.
    """
    if z_step_nm == 0 or not np.isfinite(z_step_nm):
        raise ValueError(f"z_step_nm is {z_step_nm:g}; give the height from slice to slice, e.g. 10 (or -10)")
    if counts.ndim != 3:
        raise ValueError(f"the stack has shape {counts.shape}; expected (slices, height, width)")
    say = progress or (lambda what, done, total: None)
    photons = np.asarray(camera.to_photons(np.asarray(counts)), dtype=np.float64)
    z: Floats = (z_start_nm or 0.0) + z_step_nm * np.arange(len(photons), dtype=np.float64)
    if z_step_nm < 0:
        photons, z = photons[::-1], np.ascontiguousarray(z[::-1])
    say("finding beads", 0, 1)
    limit = min(counts.shape[1:])
    size = min(size_px, limit - 2)
    beads, rejected = find_beads(photons, side_px=min(size + 4, limit), threshold=threshold)
    if z_start_nm is None:
        z = z - z[_sharpest(beads)]
    options: dict[str, Any] = {
        "z_nm": z,
        "pixel_size_nm": camera.pixel_size_nm,
        "size_px": size,
        "dz_nm": dz_nm,
        "oversampling": oversampling,
    }
    aligned = align_and_fuse(beads, **options, align_z=align_z, progress=lambda done: say("aligning", done, ROUNDS))
    agreement = _agreements(beads, aligned, photons_camera=camera, options=options, align_z=align_z, say=say)
    middle = np.abs(z - z.mean()) <= 0.4 * (z[-1] - z[0])
    typical = float(np.median([one.chi2[middle].mean() for one in agreement]))
    good = [
        float(np.median(one.correlation[middle])) >= min_correlation
        and one.chi2[middle].mean() <= _ODD * max(typical, 1e-9)
        for one in agreement
    ]
    if not all(good):
        if not any(good):
            raise ValueError(
                f"no bead agrees with the others (correlation below {min_correlation:g}); are these beads of one PSF?"
            )
        for bead, fine, one in zip(beads, good, agreement, strict=True):
            if not fine:
                why = (
                    f"unlike the others: correlation {np.median(one.correlation[middle]):.3f}, "
                    f"chi-square {one.chi2[middle].mean():.3g} where theirs is {typical:.3g}"
                )
                rejected.append(Rejected(centre_px=bead.centre_px, why=why))
        beads = [bead for bead, fine in zip(beads, good, strict=True) if fine]
        aligned = align_and_fuse(beads, **options, align_z=align_z)
        agreement = _agreements(beads, aligned, photons_camera=camera, options=options, align_z=align_z, say=say)
    table = aligned.table(oversampling=oversampling, pixel_size_nm=camera.pixel_size_nm)
    if normalize == "stack":
        focus = np.interp(0.0, aligned.knots_nm, aligned.light)
        scale = (aligned.light / focus)[:, None, None]
        table = replace(aligned, samples=aligned.samples * scale).table(
            oversampling=oversampling, pixel_size_nm=camera.pixel_size_nm
        )
    centres = _spot_centres(table)  # nm from the grid's middle, at each knot
    position = np.array([bead.corner_px[::-1] for bead in beads]) + aligned.centre_px
    position = position * camera.pixel_size_nm
    if truth is None:
        origin = np.array([np.interp(0.0, aligned.knots_nm, centres[:, axis]) for axis in (0, 1)])
        scatter = None
    else:
        offset = _offsets(position, truth)
        origin = offset.mean(0)
        scatter = (float(offset[:, 0].std()), float(offset[:, 1].std())) if len(offset) > 1 else None
    voxel = np.array(camera.pixel_size_nm) / oversampling
    settings = {
        "z_step_nm": z_step_nm,
        "z_start_nm": z_start_nm,
        "size_px": size,
        "dz_nm": dz_nm,
        "oversampling": oversampling,
        "normalize": normalize,
        "align_z": align_z,
        "origin": "true places" if truth is not None else "centre of the spot at z = 0",
        "beads": len(beads),
        "camera": camera.model_dump(mode="json"),
    }
    table = replace(
        table,
        origin=(table.origin[0] + origin[0] / voxel[0], table.origin[1] + origin[1] / voxel[1], table.origin[2]),
        notes={"source": "smlm-zoo calibrate", **{k: v for k, v in settings.items() if k != "camera"}},
    )
    psf = SplinePSF.of(table, beyond="clamp")
    side = size - 2
    curves = crlb_curves(
        psf,
        z_nm=aligned.knots_nm,
        photons=_PHOTONS,
        background=_BACKGROUND,
        camera=camera if isinstance(camera.read_noise_e, float) else Camera.ideal(camera.pixel_size_nm),
        shape=(side, side),
        phases=2,
    )
    say("done", 1, 1)
    return Calibration(
        table=table,
        z_nm=z,
        position_nm=position + origin,
        shift_nm=aligned.shift_nm,
        agreement=agreement,
        rejected=rejected,
        wobble=np.column_stack([centres - origin, aligned.knots_nm]),
        curves=curves,
        background=_BACKGROUND,
        light=aligned.light,
        truth_scatter_nm=scatter,
        settings=settings,
    )


def _agreements(
    beads: list[Bead],
    aligned: Aligned,
    *,
    photons_camera: Camera,
    options: dict[str, Any],
    align_z: bool,
    say: Callable[[str, int, int], None],
) -> list[Agreement]:
    """Each bead against the PSF of the others, at the places that all together found; the bead's own is fitted anew."""
    found = []
    for number, bead in enumerate(beads):
        others = [other for other in range(len(beads)) if other != number] or [number]
        part = align_and_fuse(
            [beads[other] for other in others],
            **options,
            start=(aligned.centre_px[others], aligned.shift_nm[others]),
            rounds=0,
        )
        pixel = options["pixel_size_nm"]
        psf = SplinePSF.of(part.table(oversampling=options["oversampling"], pixel_size_nm=pixel), beyond="clamp")
        start = np.array([*(aligned.centre_px[number] * pixel), aligned.shift_nm[number]])
        fitted = fit_bead(
            psf,
            bead.photons,
            z_nm=options["z_nm"],
            start_nm=start,
            pixel_size_nm=pixel,
            align_z=align_z and len(beads) > 1,
        )
        found.append(_agreement(bead, fitted.model, fitted.light, options["size_px"], photons_camera, len(beads) > 1))
        say("checking beads", number + 1, len(beads))
    return found


def _agreement(bead: Bead, model: Floats, light: Floats, size: int, camera: Camera, apart: bool) -> Agreement:
    edge = max((bead.photons.shape[1] - size) // 2, 1)
    inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
    data, fit = (part[inner].reshape(len(light), -1) for part in (bead.photons, model))
    a, b = data - data.mean(1, keepdims=True), fit - fit.mean(1, keepdims=True)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    correlation = (a * b).sum(1) / np.where(norm > 0, norm, 1.0)
    expected = np.clip(fit, 0, None) + bead.background[:, None]  # a spot's ripples take no light away
    if isinstance(camera.read_noise_e, float):
        variance = np.asarray(camera.variance_counts(expected)) / camera.counts_per_photon**2
    else:
        variance = expected
    chi2 = ((data - fit) ** 2 / np.maximum(variance, 1e-6)).mean(1)
    return Agreement(correlation=correlation, chi2=chi2, light=light, apart=apart)


def _sharpest(beads: list[Bead]) -> int:
    """Slice in which the beads' light covers the least area, smoothed over slices."""
    sharp = np.zeros(len(beads[0].photons))
    for bead in beads:
        flat = bead.photons.reshape(len(bead.photons), -1)
        sharp += (flat**2).sum(1) / np.maximum(flat.sum(1), 1e-9) ** 2
    width = max(3, len(sharp) // 20) | 1
    smooth = np.convolve(np.pad(sharp, width // 2, mode="edge"), np.ones(width) / width, mode="valid")
    return int(smooth.argmax())


def _spot_centres(table: SplineTable) -> Floats:
    """Centre (x, y) of the spot at each knot, nm from the table's origin: the centroid in a Gaussian window on it."""
    knots = table.coefficients[:, 0, 0, 0].astype(np.float64)
    last = table.coefficients[-1].astype(np.float64).sum(0)[0, 0]  # the upper end of the last voxel, at dz = 1
    samples = np.clip(np.concatenate([knots, last[None]]), 0, None)
    pixel = table.pixel_size_nm or (100.0, 100.0)
    y = (np.arange(samples.shape[1]) - table.origin[1]) * pixel[1] / table.oversampling
    x = (np.arange(samples.shape[2]) - table.origin[0]) * pixel[0] / table.oversampling
    focus = samples[int(np.clip(round(table.origin[2]), 0, len(samples) - 1))]
    core = np.clip(focus - 0.2 * focus.max(), 0, None) / max(float(focus.max()), 1e-12)
    sizes = [_size(core.sum(axis), place) for axis, place in ((0, x), (1, y))]
    window = max(_WINDOW_NM, _WINDOW_SIZES * max(sizes))
    centres = np.zeros((len(samples), 2))
    for sample, centre in zip(samples, centres, strict=True):
        for _ in range(50):
            across = np.exp(-((x - centre[0]) ** 2) / (2 * window**2))
            down = np.exp(-((y - centre[1]) ** 2) / (2 * window**2))
            weight = sample * down[:, None] * across
            total = max(float(weight.sum()), 1e-12)
            new = np.array([(weight.sum(0) * x).sum(), (weight.sum(1) * y).sum()]) / total
            moved, centre[:] = np.abs(new - centre).max(), new
            if moved < 0.01:
                break
    return centres


def _size(profile: Floats, place: Floats) -> float:
    """Standard deviation of a profile."""
    share = profile / max(float(profile.sum()), 1e-12)
    return float(np.sqrt((share * (place - (share * place).sum()) ** 2).sum()))


def _offsets(position: Floats, truth: Emitters) -> Floats:
    """True place minus found place of each bead, (beads, 2)."""
    places = np.unique(np.column_stack([truth.x_nm, truth.y_nm]), axis=0)
    distance = np.hypot(position[:, None, 0] - places[:, 0], position[:, None, 1] - places[:, 1])
    nearest = distance.argmin(1)
    far = distance[np.arange(len(position)), nearest].max()
    if far > 1000:
        raise ValueError(f"a bead lies {far:.0f} nm from the nearest true place; is the table of this stack?")
    return places[nearest] - position
