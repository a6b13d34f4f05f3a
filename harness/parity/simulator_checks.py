"""Cameras, samplers of molecules, rates, photophysics and dropout boxes against DECODE's and the attention U-Net's.

What is random is compared in standard errors, ours and theirs together: a row is equal up to `MANY` of them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .files import Case
from .rows import Row, compare, not_covered

MANY = 4.0  # standard errors
EXACT_TOLERANCE = 1e-6
RATE_TOLERANCE = 1e-5
_PIXELS = 200_000  # of ours for each level of light
_REPEATS = 30  # of ours for each random table
_MOLECULES, _EVENTS = 300, 40_000  # of the photophysics files
_FLUX, _FLUX_SPREAD = 7000.0, 3000.0  # of the sampler's statistics
_FINE = 61  # parts of a pixel's side, so small that the integral over one is a sample

# pixel nm, PSF sigma nm, exposure s, dark counts per s, quantum efficiency
MICROSCOPES = {
    "airyscan": (100.0, 186.0, 0.040, 10.0, 0.80),
    "contest": (100.0, 139.6, 0.020, 10.0, 0.80),
    "flim": (206.0, 186.0, 0.020, 100.0, 0.99),
    "highpower": (128.0, 186.0, 0.020, 10.0, 0.80),
}

Floats = npt.NDArray[np.float64]


def random_row(file: str, item: str, ours: float, theirs: float, error: float) -> Row:
    """Equal if the two differ by at most `MANY` standard errors of the difference, which is the deviation shown."""
    apart = abs(ours - theirs)
    deviation = 0.0 if apart == 0 else apart / error if error > 0 else float("inf")
    return Row(
        file=file,
        item=item,
        status="equal" if deviation <= MANY else "off",  # nan is off
        deviation=deviation,
        tolerance=MANY,
        note=f"in standard errors: {ours:.6g}, theirs {theirs:.6g}",
    )


def _rng(*words: str) -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng([zlib.crc32(word.encode()) for word in words])


# ------------------------------------------------------------------------------------------------- cameras


def is_camera(case: Case) -> bool:
    return {"specs_json", "level"} <= case.arrays.keys()


def check_camera(case: Case) -> Iterator[Row]:
    """Moments and quantiles of counts and of photons at each level of light; exact way back from counts."""
    from simulators import Camera

    file, arrays = case.path.name, case.arrays
    drawn = int(np.asarray(arrays["n"]).reshape(-1)[0])
    for name, values in json.loads(str(np.asarray(arrays["specs_json"]).reshape(-1)[0])).items():
        given = values or {"qe": 1.0, "spur_noise": 0.0, "em_gain": None, "e_per_adu": 1.0, "baseline": 0.0,
                           "read_sigma": 0.0}  # fmt: skip
        camera = Camera(
            pixel_size_nm=(100.0, 100.0),
            baseline=given["baseline"],
            e_per_adu=given["e_per_adu"],
            quantum_efficiency=given["qe"],
            em_gain=given["em_gain"],
            read_noise_e=given["read_sigma"],
            spurious_charge_e=given["spur_noise"],
            max_adu=2**24,
            rounding="floor",
        )
        # Ours makes counts whole; theirs keeps the fraction of the baseline.
        whole = camera.model_copy(update={"baseline": float(int(camera.baseline))})
        fraction = camera.baseline - whole.baseline
        lost = 0.5 / camera.counts_per_photon if values else 0.0  # theirs does not give back what floor took
        for number, level in enumerate(np.asarray(arrays["level"], np.float64)):
            light = torch.full((1, _PIXELS), float(level))
            counts = whole.expose(light, _rng(name, str(number))).numpy().reshape(-1).astype(np.float64) + fraction
            for unit, numbers, step in (
                ("adu", counts, 1.0),
                ("photon_units", camera.to_photons(counts).astype(np.float64) - lost, 1 / camera.counts_per_photon),
            ):
                at = f"{name} {unit} at {level:g}"
                key = f"{name}_{unit}_mean_var_skew_fracmin_min"
                if key in arrays:
                    yield from _moments(file, at, numbers, np.asarray(arrays[key])[number], drawn, step)
                key = f"{name}_{unit}_quantiles"
                if key in arrays:
                    shares = np.asarray(arrays["quantile_at"], np.float64)
                    yield _quantiles(file, at, numbers, np.asarray(arrays[key])[number], shares, drawn, step)
        if f"{name}_backward_in" in arrays:
            back = camera.to_photons(np.asarray(arrays[f"{name}_backward_in"], np.float64)) - lost
            theirs = arrays[f"{name}_backward_out"]
            yield compare(file, f"{name} photons of counts", back, theirs, tolerance=EXACT_TOLERANCE)


def _moments(file: str, at: str, ours: Floats, theirs: Floats, drawn: int, step: float) -> Iterator[Row]:
    """Mean, variance, skewness and share of their smallest number; errors from the scatter of 30 parts of ours."""
    smallest = theirs[4] + 0.25 * step

    def figures(numbers: Floats) -> Floats:
        away = numbers - numbers.mean()
        spread = float(away.var()) or 1.0
        return np.array([numbers.mean(), spread, (away**3).mean() / spread**1.5])

    parts = np.array([figures(part) for part in np.array_split(ours, 30)])
    error = parts.std(0, ddof=1) / 30**0.5 * (1 + len(ours) / drawn) ** 0.5
    whole = figures(ours)
    constant = np.ptp(ours) == 0
    for number, item in enumerate(("mean", "variance", "skewness")):
        if constant and item != "mean":
            continue
        yield random_row(file, f"{at}: {item}", float(whole[number]), float(theirs[number]), float(error[number]))
    rare = (theirs[3] + 3 / drawn) * (1 / drawn + 1 / len(ours))  # three counts more: their own number was the least
    share = float((ours <= smallest).mean())
    yield random_row(file, f"{at}: share of the smallest", share, float(theirs[3]), float(rare**0.5))


def _quantiles(file: str, at: str, ours: Floats, theirs: Floats, shares: Floats, drawn: int, step: float) -> Row:
    """Cumulative shares of ours on both sides of their quantiles, the numbers being multiples of `step`."""
    ordered = np.sort(ours)
    below = np.searchsorted(ordered, theirs - 0.25 * step) / len(ours)
    upto = np.searchsorted(ordered, theirs + 0.25 * step) / len(ours)
    error = np.sqrt(shares * (1 - shares) * (1 / drawn + 1 / len(ours)))
    deviation = float((np.maximum(np.maximum(below - shares, shares - upto), 0) / error).max())
    return Row(
        file=file,
        item=f"{at}: quantiles",
        status="equal" if deviation <= MANY else "off",
        deviation=deviation,
        tolerance=MANY,
        note="in standard errors",
    )


# ------------------------------------------------------------------------------------ sampling of molecules


def is_emitter_sampling(case: Case) -> bool:
    return {"loose_t0", "loose_ontime", "binned_phot"} <= case.arrays.keys() or "sampler_stats" in case.arrays


def check_emitter_sampling(case: Case) -> Iterator[Row]:
    """Rows of given molecules, exactly; statistics of the random sampler."""
    from simulators.blinking import rows_of_spans

    file, arrays = case.path.name, case.arrays
    if "loose_t0" in arrays:
        start = np.asarray(arrays["loose_t0"], np.float64)
        stop = start + np.asarray(arrays["loose_ontime"], np.float64)
        first = int(np.floor(start.min()))
        rows = rows_of_spans(
            np.arange(len(start)), start - first, stop - first, frames=int(np.ceil(stop.max())) - first + 1, minimum=0.0
        )
        order = np.lexsort((arrays["binned_frame_ix"], arrays["binned_id"]))
        flux = np.asarray(arrays["loose_intensity"], np.float64)
        for item, ours, key in (
            ("molecule", rows.molecule, "binned_id"),
            ("frame", rows.frame + first, "binned_frame_ix"),
            ("photons", flux[rows.molecule] * rows.share, "binned_phot"),
            ("position", np.asarray(arrays["loose_xyz"])[rows.molecule], "binned_xyz"),
        ):
            yield compare(file, f"rows: {item}", ours, np.asarray(arrays[key])[order], tolerance=2e-6)
    if "sampler_stats" in arrays:
        names = [str(name) for name in arrays["sampler_stats_columns"]]
        for line in np.asarray(arrays["sampler_stats"], np.float64):
            yield from _sampler_rows(file, dict(zip(names, line.tolist(), strict=True)))


def _sampler_rows(file: str, theirs: Mapping[str, float]) -> Iterator[Row]:
    from simulators.blinking import OnTimeBlinking

    blinking = OnTimeBlinking(mean_on_frames=theirs["lifetime"], minimum_share=0.0)
    frames = 4001
    tables: list[dict[str, float]] = []
    for repeat in range(_REPEATS):
        rng = _rng(f"{theirs['lifetime']}", str(repeat))
        count = int(rng.poisson(25 * frames / blinking.expected_rows(frames)))
        rows = blinking.movie(np.ones(frames), count, rng)
        flux = np.maximum(rng.normal(_FLUX, _FLUX_SPREAD, count), 1e-8)
        light, per_frame = flux[rows.molecule] * rows.share, np.bincount(rows.frame, minlength=frames)
        tables.append(
            {
                "n_rows": len(light),
                "rows_per_frame_mean": per_frame.mean(),
                "rows_per_frame_var": per_frame.var(ddof=1),
                "phot_mean": light.mean(),
                "phot_sd": light.std(),
                "phot_median": float(np.median(light)),
                "frac_phot_below_50": (light < 50).mean(),
                "frac_phot_below_100": (light < 100).mean(),
                "frames_per_emitter": len(light) / len(np.unique(rows.molecule)),
            }
        )
    for name, value in theirs.items():
        if name in tables[0]:
            ours = np.array([table[name] for table in tables])
            error = float(ours.std(ddof=1)) * (1 + 1 / _REPEATS) ** 0.5
            yield random_row(file, f"on-time {theirs['lifetime']:g}: {name}", float(ours.mean()), value, error)


# ------------------------------------------------------------------------------- expectation and its noise


def is_rate(case: Case) -> bool:
    return any(key.endswith("_poisson_rate") for key in case.arrays)


def check_rate(case: Case) -> Iterator[Row]:
    """Sum of the spots and expected electrons of each microscope."""
    from simulators import Camera, GaussianPSF

    file, arrays = case.path.name, case.arrays
    for name in [key.removesuffix("_poisson_rate") for key in arrays if key.endswith("_poisson_rate")]:
        if name not in MICROSCOPES:
            yield not_covered(file, name, f"its constants are not known; known are {', '.join(MICROSCOPES)}")
            continue
        pixel, sigma, exposure, dark, efficiency = MICROSCOPES[name]
        theirs = np.asarray(arrays[f"{name}_psf_sum"], np.float64)
        x, y, photons = (torch.from_numpy(c.copy()) for c in np.asarray(arrays[f"{name}_x_y_photons"], np.float64).T)
        fine = pixel / _FINE
        # Their pixel centres are whole numbers, and their spots are samples at the centres.
        spots = (
            GaussianPSF(sigma_nm=sigma)
            .expected(
                frame=torch.zeros(len(x), dtype=torch.int64),
                x_nm=(x + 0.5) * pixel,
                y_nm=(y + 0.5) * pixel,
                z_nm=torch.zeros_like(x),
                photons=photons * _FINE**2,
                frames=1,
                shape=(theirs.shape[0] * _FINE, theirs.shape[1] * _FINE),
                pixel_size_nm=(fine, fine),
            )[0, _FINE // 2 :: _FINE, _FINE // 2 :: _FINE]
            .numpy()
        )
        tolerance = 3e-5  # of the brightest: what integrating over a 61st of a pixel changes, and float32
        yield compare(file, f"{name}: spots", spots, theirs, tolerance=tolerance)
        camera = Camera(pixel_size_nm=(pixel, pixel), quantum_efficiency=efficiency, spurious_charge_e=dark * exposure)
        background = np.asarray(arrays[f"{name}_bg_arg_int16"]).astype(np.int64) // 2 / efficiency
        rate = camera.mean_counts(theirs + background)
        yield compare(file, f"{name}: rate", rate, arrays[f"{name}_poisson_rate"], tolerance=RATE_TOLERANCE)


def is_noise(case: Case) -> bool:
    return _all_hold(case.document, {"draws", "pixels"})


def check_noise(case: Case) -> Iterator[Row]:
    """Mean and variance at the pixels given, by our formulas, and against as many draws of ours."""
    from simulators import Camera

    file, grain = case.path.name, 0.01
    for name, what in case.document.items():
        ratios: list[tuple[float, float]] = []
        for pixel in what["pixels"]:
            rate, draws = float(pixel["rate"]), int(what["draws"])
            gain = round(pixel["mean_analytic"] / rate, 3)
            readout = max(pixel["var_analytic"] - 2 * gain**2 * rate, 0.0) ** 0.5
            # Counts as fine as a hundredth of the gain, so that rounding is no part of it.
            camera = Camera(
                pixel_size_nm=(100.0, 100.0),
                em_gain=gain,
                read_noise_e=readout,
                e_per_adu=grain * gain,
                baseline=1000.0,
                max_adu=2**24,
            )
            unit = camera.e_per_adu
            at = f"{name} {pixel['rc']}"
            flat = np.array([rate])
            yield compare(file, f"{at}: mean by formula", (camera.mean_counts(flat) - 1000) * unit,
                          [pixel["mean_analytic"]], tolerance=RATE_TOLERANCE)  # fmt: skip
            variance = (camera.variance_counts(flat) - 1 / 12) * unit**2
            yield compare(file, f"{at}: variance by formula", variance, [pixel["var_analytic"]],
                          tolerance=RATE_TOLERANCE)  # fmt: skip
            counts = camera.expose(torch.full((1, _PIXELS), rate), _rng(at)).numpy().astype(np.float64)
            electrons = (counts.reshape(-1) - 1000) * unit
            both = (1 / draws + 1 / _PIXELS) ** 0.5
            away = electrons - electrons.mean()
            var = float(away.var())
            kurtosis = float((away**4).mean()) / var**2
            yield random_row(file, f"{at}: mean", float(electrons.mean()), pixel["mean"], var**0.5 * both)
            yield random_row(file, f"{at}: variance", var, pixel["var"], var * (kurtosis - 1) ** 0.5 * both)
            ratios.append((float(electrons.mean()) / (gain * rate), var / pixel["var_analytic"]))
        for number, (key, tolerance) in enumerate(
            (("all_pixels_mean_over_gain_rate", 0.005), ("all_pixels_var_over_analytic", 0.005))
        ):
            if key in what:
                ours = float(np.mean([ratio[number] for ratio in ratios]))
                yield compare(file, f"{name}: {key}", [ours], [what[key]], tolerance=tolerance)


# ------------------------------------------------------------------------------------------- photophysics


def is_photophysics(case: Case) -> bool:
    return {"rates_per_s", "frame_s"} <= case.document.keys()


def check_photophysics(case: Case) -> Iterator[Row]:
    """Excitations per frame of molecules that cycle through their states."""
    from simulators.photocycle import PhotoCycle, frame_counts

    file, document = case.path.name, case.document
    rates: dict[tuple[str, ...], Any] = {}  # numbers; a list for a rate that has several
    for name, rate in document["rates_per_s"].items():
        start, stop, *how = name.split("_")
        rates[(start, stop) if not how or how == ["radiative"] else (start, stop, *how)] = rate
    many = {step: rate for step, rate in rates.items() if isinstance(rate, list)}
    for step, values in many.items() or {(): [None]}.items():
        for value in values:
            key = f"{'_'.join(step)}_{value}" if step else "figures"
            theirs = document.get(key)
            if theirs is None:
                continue
            known: dict[tuple[str, ...], Any] = {**rates, step: value} if step else rates
            cycle = PhotoCycle(known)
            ours = _trace_figures(cycle, frame_counts, float(document["frame_s"]), _rng(key))
            for name, number in theirs.items():
                if name == "radiative_fraction":
                    share = cycle.share("S1", ("S1", "S0"))
                    error = (share * (1 - share) / theirs["excitations"]) ** 0.5
                    yield random_row(file, f"{key}: {name}", share, number, error + 0.5e-5)
                elif name == "excitations":
                    yield compare(file, f"{key}: {name}", [ours[name][0]], [number], tolerance=2e-4)
                elif name in ours:
                    yield random_row(file, f"{key}: {name}", ours[name][0], number, 2**0.5 * ours[name][1])
                elif name != "radiative":
                    yield not_covered(file, f"{key}: {name}", "no such figure of ours")


def _trace_figures(
    cycle: Any, binned: Callable[..., list[npt.NDArray[np.int64]]], frame_s: float, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Figures of all molecules and their standard errors, from the scatter over molecules (a jackknife)."""
    times = cycle.walk(_MOLECULES, _EVENTS, rng, count=("S0", "S1"))
    lines = []
    frames_on = []
    for counts in binned(times, frame_s):
        on = counts > 0
        edge = np.diff(np.concatenate([[False], on, [False]]).astype(np.int8))
        runs = int((edge == 1).sum())
        lines.append((counts.sum(), on.sum(), len(counts), runs, runs - 1, len(counts) - on.sum()))
        frames_on.append(counts[on])
    table = np.array(lines, np.float64)
    excitations = table[:, 0].sum()
    left = table.sum(0) - table  # without each molecule in turn

    def ratio(above: int, below: int) -> tuple[float, float]:
        without = left[:, above] / left[:, below]
        spread = float(((without - without.mean()) ** 2).sum() * (1 - 1 / len(without))) ** 0.5
        return float(table[:, above].sum() / table[:, below].sum()), spread

    light = np.concatenate(frames_on)
    resampled = [
        np.concatenate([frames_on[i] for i in rng.integers(len(frames_on), size=len(frames_on))]) for _ in range(40)
    ]

    def bootstrapped(figure: Callable[[npt.NDArray[Any]], float]) -> tuple[float, float]:
        # At least one count: theirs is rounded.
        return float(figure(light)), max(float(np.std([figure(sample) for sample in resampled])), 1.0)

    return {
        "excitations": (float(excitations), 0.0),
        "on_fraction_of_frames": ratio(1, 2),
        "counts_per_on_frame_mean": ratio(0, 1),
        "counts_per_on_frame_median": bootstrapped(lambda sample: float(np.median(sample))),
        "counts_per_on_frame_p95": bootstrapped(lambda sample: float(np.percentile(sample, 95))),
        "on_run_frames_mean": ratio(1, 3),
        "counts_per_on_run_mean": ratio(0, 3),
        "off_gap_frames_mean": ratio(5, 4),
    }


# --------------------------------------------------------------------------------------------- dropout box


def is_dropout_box(case: Case) -> bool:
    return {"box_xmin_xmax_ymin_ymax", "points", "kept_indices"} <= case.arrays.keys()


def check_dropout_box(case: Case) -> Iterator[Row]:
    """Which molecules stay outside of the box."""
    from simulators.augment import in_box

    file, arrays = case.path.name, case.arrays
    box = np.asarray(arrays["box_xmin_xmax_ymin_ymax"], np.float64) * float(arrays["scale"])
    some = np.asarray(arrays["indices"])
    point = np.asarray(arrays["points"], np.float64)[some]
    kept = np.flatnonzero(~in_box(point[:, 0], point[:, 1], box))
    yield compare(file, "molecules kept", some[kept], arrays["kept_indices"], tolerance=0.0)
    if "kept_relative" in arrays:
        yield compare(file, "their places in the list", kept, arrays["kept_relative"], tolerance=0.0)


def _all_hold(document: Mapping[str, Any], keys: set[str]) -> bool:
    return bool(document) and all(isinstance(part, dict) and keys <= part.keys() for part in document.values())
