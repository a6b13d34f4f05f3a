"""From a movie to the recipe of an experiment that looks the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.io.movies import MovieReader
from simulators import Camera, Recipe, SplinePSF, simulate
from simulators.detection import spot_sigma_px

from .observe import Observed, apart, observe
from .recipes import Numbers, recipe_of, training_recipe
from .transfer import Transfer, find_camera

Floats = NDArray[np.float64]

_STRETCH = 100  # frames in a row, where a long movie is sampled
_CHUNK = 1 << 20  # pixels that are read and fitted at once
_MOST_PIXELS = 1 << 25
_ROUNDS = 4
_FIRST_WIDTH_PX = 1.3
_FEW = 20  # spots; fewer say nothing
_MOST_FLUX_SPREAD, _MOST_WIDTH_SPREAD = 1.0, 0.25  # more is overlap, not spread
_CROWDED = 0.2  # spots within the distance of isolated ones, on average
_GRID = 4  # cells of the field along each axis for the background


@dataclass(frozen=True, kw_only=True)
class _Analysis:
    """How movies are looked at, real and simulated ones alike; see `observe`."""

    sigma_nm: float
    psf: SplinePSF | None
    threshold: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """A recipe from a movie, and how well it does.

    Args:
        recipe: as measured: test movies like the user's.
        training: the same camera, with ranges that surround what was measured.
        numbers: what was found.
        transfer: of the camera's gain and offset, where they were looked for.
        real, simulated: what the movie shows, and what one of `recipe` shows, analysed in the same way.
        background_field: background over the field, (rows, columns) photons per pixel; nan where there were no spots.
        background_time: median background of stretches of the movie, (stretches, 2): first frame, photons per pixel.
        notes: what the user should know.
    """

    recipe: Recipe
    training: Recipe
    numbers: Numbers
    transfer: Transfer | None
    real: Observed
    simulated: Observed
    background_field: Floats
    background_time: Floats
    notes: list[str]


def estimate(
    movie: MovieReader,
    *,
    camera: Camera,
    name: str,
    gain_known: bool = True,
    offset_known: bool = True,
    psf: SplinePSF | None = None,
    threshold: float = 6.0,
    max_frames: int = 1000,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Estimate:
    """Estimate what a simulator needs to make movies like this one.

    Spots are found and fitted one by one. Those that overlap are left out of photons, background and width: another
    candidate nearer than five widths, or a chi-square above 1.5 times that of the good ones. What bias remains
    (overlap, spots too dim, partial frames, the detector) is taken out by simulating: each number is corrected until
    a simulated movie, analysed in the same way, shows the same density, photons, background, width and run length.

    Args:
        movie: raw counts; of long ones stretches of 100 frames are read, evenly spread.
        camera: what is known of it.
        name: of the recipe.
        gain_known: whether `camera.e_per_adu` is; otherwise it is estimated, likewise `offset_known` for `baseline`.
        psf: a calibrated PSF; left out, a Gaussian of unknown width.
        threshold: of the detector, standard deviations.
        max_frames: looked at, at most.
        seed: of the simulated movie.
        progress: called with what is done and the share of all.

    Raises:
        ValueError: hardly any spot stands alone.
    """
    say = progress or (lambda what, share: None)
    stretches = _stretches(len(movie), min(max_frames, max(20, _MOST_PIXELS // (movie.height * movie.width))))
    pixel = float(np.sqrt(np.prod(camera.pixel_size_nm)))
    sigma = pixel * (_FIRST_WIDTH_PX if psf is None else spot_sigma_px(psf, camera.pixel_size_nm))
    few = [(begin, min(stop, begin + max(10, _CHUNK // (movie.height * movie.width)))) for begin, stop in stretches][:2]
    raw = [movie.read(*part) for part in few]
    notes: list[str] = []
    transfer = None
    known = {"gain_known": gain_known, "offset_known": offset_known}
    for _ in range(2):
        say("camera and width", 0.02)
        if not (gain_known and offset_known):
            transfer = find_camera(raw, camera=camera, sigma_nm=sigma, **known)
        working = transfer.camera if transfer else camera
        if psf is None:
            sigma = _width([working.to_photons(block) for block in raw], working, sigma, threshold)
    camera = working
    if transfer:
        notes += _camera_notes(transfer, **known)

    def blocks() -> Any:
        step = max(2, _CHUNK // (movie.height * movie.width))
        done, total = 0, sum(stop - begin for begin, stop in stretches)
        for begin, stop in stretches:
            for first in range(begin, stop, step):
                block = movie.read(first, min(first + step, stop))
                done += len(block)
                yield first, camera.to_photons(block)
                say("spots", 0.1 + 0.5 * done / total)

    real = observe(blocks(), camera=camera, sigma_nm=sigma, psf=psf, threshold=threshold)
    if int(real.isolated.sum()) < _FEW:
        if len(real.spots["frame"]) < _FEW:
            raise ValueError(
                f"only {len(real.spots['frame'])} spots were found in {real.frames} frames; check the camera's "
                "constants and the pixel size, or lower --threshold"
            )
        notes.append(
            f"Only {int(real.isolated.sum())} spots stand alone; photons, background and width come from spots that "
            "overlap."
        )
        real = replace(real, isolated=np.ones_like(real.isolated))
    if real.candidates_um2 * np.pi * (5e-3 * sigma) ** 2 > _CROWDED:
        notes.append(
            "Spots stand close. Where molecules sit on structures the density comes out low, as the recipe spreads "
            "them evenly"
            + ("." if gain_known else ", and the gain, which overlap adds variance to, high: give --camera.e-per-adu.")
        )
    size = (movie.height, movie.width)
    numbers = _first_numbers(real, sigma, psf, longest=max(stop - begin for begin, stop in stretches))
    if not np.isfinite(real.run_length):
        notes.append("No molecule switched off while it was watched: the on-time is a guess, ten times what was seen.")
    like = _Analysis(sigma_nm=sigma, psf=psf, threshold=threshold)

    def make(values: Numbers) -> Recipe:
        return recipe_of(values, camera, psf, name=name, size=size, frames=len(movie), seed=seed)

    numbers = _refined(numbers, real, make, like, say)
    recipe = make(numbers)
    say("simulated movie", 0.9)
    simulated = _simulated(recipe, _ROUNDS, like)
    field, time, spread, waves = _background(real, simulated, stretches, size, camera)
    if waves > 0.1:
        recipe = recipe.with_(pattern={"kind": "smooth", "contrast": float(round(min(waves, 1.0), 2))})
        simulated = _simulated(recipe, _ROUNDS, like)
        notes.append(
            f"The background varies over the field by about {100 * waves:.0f} %; the recipe's is smooth noise."
        )
    return Estimate(
        recipe=recipe,
        training=training_recipe(recipe, numbers, spread),
        numbers=numbers,
        transfer=transfer,
        real=real,
        simulated=simulated,
        background_field=field,
        background_time=time,
        notes=notes,
    )


def _stretches(frames: int, most: int) -> list[tuple[int, int]]:
    """(first, stop) of what is read: all, or evenly spread stretches that do not touch."""
    if frames <= most:
        return [(0, frames)]
    length = min(_STRETCH, most)
    count = max(1, most // length)
    firsts = np.linspace(0, frames - length, count).astype(int) if count > 1 else np.array([(frames - length) // 2])
    return [(int(first), int(first) + length) for first in firsts]


def _width(photons: list[NDArray[np.float32]], camera: Camera, sigma: float, threshold: float) -> float:
    """Median width of the spots that stand alone, found with that very width."""
    for _ in range(4):
        seen = observe(apart(photons), camera=camera, sigma_nm=sigma, threshold=threshold)
        widths = chosen(seen, "sigma_nm")
        if len(widths) < _FEW:
            return sigma
        new = float(np.median(widths))
        if abs(new / sigma - 1) < 0.02:
            return new
        sigma = new
    return sigma


def chosen(seen: Observed, name: str) -> Floats:
    """A column of the isolated spots, or of all where hardly any is."""
    return seen.alone(name) if int(seen.isolated.sum()) >= _FEW else seen.spots[name]


def flux_of(seen: Observed, like: Observed) -> Floats:
    """Photons per frame of molecules on for all of it; photons of spots where the movie `like` has few long runs."""
    return seen.flux if len(like.flux) >= 30 and len(seen.flux) >= 5 else chosen(seen, "photons")


def _spread(values: Floats) -> float:
    """Robust standard deviation."""
    if len(values) < _FEW:
        return 0.0
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2


def _first_numbers(real: Observed, sigma: float, psf: SplinePSF | None, longest: int) -> Numbers:
    flux = flux_of(real, real)
    widths, errors = chosen(real, "sigma_nm"), chosen(real, "sigma_error_nm")
    own = float(np.sqrt(max(0.0, _spread(widths) ** 2 - np.median(errors) ** 2))) if psf is None else 0.0
    length = real.run_length if np.isfinite(real.run_length) else 10.0 * longest
    share = min(1.0, real.least_photons / float(np.median(flux)))
    z = chosen(real, "z_nm")
    return Numbers(
        flux=float(np.median(flux)),
        flux_spread=min(_MOST_FLUX_SPREAD, _spread(np.log(flux))),
        background=float(max(np.median(chosen(real, "background")), 0.01)),
        sigma_nm=float(np.median(widths)) if psf is None else sigma,
        sigma_spread=min(_MOST_WIDTH_SPREAD, own / float(np.median(widths))) if psf is None else 0.0,
        # Rows of a molecule on for m frames on average, parts of a frame below a share e unseen: 1 + m - e.
        on_frames=max(0.1, length - 1 + share),
        density_um2=real.candidates_um2,
        z_range_nm=(0.0, 0.0) if psf is None else tuple(np.round(np.quantile(z, [0.02, 0.98]), 1).tolist()),
    )


def _simulated(recipe: Recipe, turn: int, like: _Analysis) -> Observed:
    """What a movie of the recipe shows: a part of its field, as many frames as give some hundred spots."""
    cut = (min(recipe.size[0], 128), min(recipe.size[1], 128))
    camera = recipe.camera.crop(slice(0, cut[0]), slice(0, cut[1]))
    pixels = cut[0] * cut[1]
    area = pixels * float(np.prod(camera.pixel_size_nm)) * 1e-6
    most = min(1000, max(64, _MOST_PIXELS // 8 // pixels))
    frames = int(np.clip(800 / max(float(recipe.density_um2) * area, 1e-3), 64, most))  # type: ignore[arg-type]
    small = recipe.with_(size=cut, frames=frames, camera=camera.model_dump())
    photons = simulate(small, np.random.default_rng([recipe.seed, turn])).photons()
    step = max(2, _CHUNK // pixels)
    blocks = ((first, photons[first : first + step]) for first in range(0, frames, step))
    return observe(blocks, camera=camera, sigma_nm=like.sigma_nm, psf=like.psf, threshold=like.threshold)


def _refined(
    numbers: Numbers,
    real: Observed,
    make: Callable[[Numbers], Recipe],
    like: _Analysis,
    say: Callable[[str, float], None],
) -> Numbers:
    """Numbers whose simulated movie shows what the real one shows: the best of some rounds of correction."""
    best, least = numbers, np.inf
    for turn in range(_ROUNDS):
        say("simulated movie", 0.6 + 0.3 * turn / _ROUNDS)
        seen = _simulated(make(numbers), turn, like)
        if len(seen.spots["frame"]) < _FEW:
            break
        away = _distance(real, seen)
        if away < least:
            best, least = numbers, away
        numbers = _corrected(numbers, real, seen, like.psf)
    return best


def _distance(real: Observed, seen: Observed) -> float:
    """Sum of the absolute logarithms of the ratios of what the numbers are corrected by."""
    pairs = [
        (real.candidates_um2, seen.candidates_um2),
        (real.run_length, seen.run_length),
        (float(np.median(flux_of(real, real))), float(np.median(flux_of(seen, real)))),
        *(
            (float(np.median(chosen(real, name))), float(np.median(chosen(seen, name))))
            for name in ("background", "sigma_nm")
        ),
    ]
    return sum(abs(float(np.log(a / b))) for a, b in pairs if a > 0 and b > 0 and np.isfinite(a / b))


def _corrected(numbers: Numbers, real: Observed, seen: Observed, psf: SplinePSF | None) -> Numbers:
    def ratio(ours: float, theirs: float) -> float:
        return float(np.clip(ours / theirs, 0.5, 2.0)) if theirs > 0 and ours > 0 else 1.0

    def excess(now: float, ours: Floats, theirs: Floats) -> float:
        return float(np.sqrt(max(0.0, now**2 + _spread(ours) ** 2 - _spread(theirs) ** 2)))

    flux, other = flux_of(real, real), flux_of(seen, real)
    on = numbers.on_frames
    if np.isfinite(real.run_length) and np.isfinite(seen.run_length):
        on = max(0.05, on + real.run_length - seen.run_length)
    widths, their_widths = chosen(real, "sigma_nm"), chosen(seen, "sigma_nm")
    return replace(
        numbers,
        flux=numbers.flux * ratio(float(np.median(flux)), float(np.median(other))),
        flux_spread=min(_MOST_FLUX_SPREAD, excess(numbers.flux_spread, np.log(flux), np.log(other))),
        background=numbers.background
        * ratio(float(np.median(chosen(real, "background"))), float(np.median(chosen(seen, "background")))),
        sigma_nm=numbers.sigma_nm * ratio(float(np.median(widths)), float(np.median(their_widths)))
        if psf is None
        else numbers.sigma_nm,
        sigma_spread=min(
            _MOST_WIDTH_SPREAD,
            excess(numbers.sigma_spread, widths / np.median(widths), their_widths / np.median(their_widths)),
        )
        if psf is None
        else 0.0,
        on_frames=on,
        density_um2=numbers.density_um2 * ratio(real.candidates_um2, seen.candidates_um2),
    )


def _background(
    real: Observed, simulated: Observed, stretches: list[tuple[int, int]], size: tuple[int, int], camera: Camera
) -> tuple[Floats, Floats, float, float]:
    """Background over the field and over time; log spread of both together; relative contrast over the field."""
    dark, x, y = (chosen(real, name) for name in ("background", "x_nm", "y_nm"))
    frame = chosen(real, "frame")
    column = np.clip(x / (size[1] * camera.pixel_size_nm[0]) * _GRID, 0, _GRID - 1e-9).astype(int)
    row = np.clip(y / (size[0] * camera.pixel_size_nm[1]) * _GRID, 0, _GRID - 1e-9).astype(int)
    field = np.full((_GRID, _GRID), np.nan)
    for i in range(_GRID):
        for j in range(_GRID):
            here = dark[(row == i) & (column == j)]
            if len(here) >= 10:
                field[i, j] = np.median(here)
    middle = float(np.median(dark))
    if len(stretches) == 1:
        edges = np.linspace(*stretches[0], 9).astype(int)
        stretches = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    time = [
        (float(begin), float(np.median(dark[(frame >= begin) & (frame < stop)])))
        for begin, stop in stretches
        if ((frame >= begin) & (frame < stop)).sum() >= 10
    ]
    # What single fits scatter, a median of n scatters 1.25 / sqrt(n) of.
    own = _spread(chosen(simulated, "background"))
    per_cell = max(10.0, len(dark) / _GRID**2)
    seen = field[np.isfinite(field)]
    noise = 1.25 * own / np.sqrt(per_cell)
    waves = 0.0
    if len(seen) >= 4 and middle > 0:
        waves = float(np.sqrt(max(0.0, seen.var() - noise**2)) * 2 / middle)
    all_spread = np.sqrt(max(0.0, _spread(dark) ** 2 - own**2)) / middle if middle > 0 else 0.0
    return field, np.array(time).reshape(-1, 2), float(all_spread), waves


def _camera_notes(transfer: Transfer, *, gain_known: bool, offset_known: bool) -> list[str]:
    camera = transfer.camera
    notes = []
    if not gain_known:
        notes.append(
            f"Gain from the noise: e_per_adu {camera.e_per_adu:.4g} (variance rises by "
            f"{transfer.slope:.4g} per count, +- {100 * transfer.slope_error / transfer.slope:.1f} %). "
            + (
                "If the camera has an EM register that was on, give --camera.em-gain: its excess noise looks like "
                "gain, and photons come out half without it. "
                if camera.em_gain is None
                else "EM gain as given; its excess noise of 2 is allowed for. "
            )
            + "An sCMOS has a gain of its own in each pixel; this is their mean."
        )
    if not offset_known:
        notes.append(
            f"Offset from the noise: baseline {camera.baseline:.4g} counts. Read noise cannot be told apart from it: "
            "with read noise the true baseline is higher and the background lower; photons of spots do not change."
        )
    if not gain_known and transfer.slope_error > 0.1 * transfer.slope:
        notes.append(
            "The points that the gain comes from lie beside their line, as where spots overlap: do not trust it; give "
            "--camera.baseline and --camera.e-per-adu."
        )
    if transfer.lever < 0.3:
        notes.append(
            f"The means that gain and offset come from differ by {100 * transfer.lever:.0f} % only: take them as "
            "rough, and give the maker's numbers if there are any."
        )
    return notes
