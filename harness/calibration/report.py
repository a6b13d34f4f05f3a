"""What a calibration leaves on disk: the PSF, its wobble table, its figures and a picture of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.io.atomic import atomic_path
from harness.io.json_files import write_json
from simulators import save_spline

from .calibrate import Calibration


def save_calibration(calibration: Calibration, path: Path, *, title: str = "") -> list[Path]:
    """Write NAME.npz, and beside it NAME-wobble.csv, NAME-report.json and NAME-report.png; each whole or not at all.

    Args:
        calibration: from `calibrate`.
        path: NAME.npz.
        title: over the picture.
    """
    stem = path.with_suffix("")
    files = [path, *(stem.with_name(stem.name + end) for end in ("-wobble.csv", "-report.json", "-report.png"))]
    with atomic_path(files[0]) as temporary:
        save_spline(calibration.table, temporary)
    lines = ["dx_nm,dy_nm,z_nm", *(",".join(f"{value:.6g}" for value in row) for row in calibration.wobble)]
    with atomic_path(files[1]) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(files[2], figures(calibration))
    with atomic_path(files[3]) as temporary:
        _draw(calibration, temporary, title)
    return files


def figures(calibration: Calibration) -> dict[str, Any]:
    """Plain numbers of a calibration, for JSON."""
    curves = calibration.curves
    middle = int(np.abs(curves.z_nm).argmin())
    low, high = calibration.table.z_range_nm
    return {
        "z_range_nm": [round(low, 3), round(high, 3)],
        "beads": [
            {
                "x_nm": round(float(place[0]), 2),
                "y_nm": round(float(place[1]), 2),
                "shift_nm": round(float(shift), 2),
                "photons": round(float(np.median(one.light)), 1),
                "worst_correlation_600nm": round(_within(calibration, one.correlation).min().item(), 4),
                "chi2": round(float(np.mean(one.chi2)), 4),
                "left_out_of_its_psf": one.apart,
            }
            for place, shift, one in zip(
                calibration.position_nm, calibration.shift_nm, calibration.agreement, strict=True
            )
        ],
        "rejected": [
            {"centre_px": [round(c, 1) for c in spot.centre_px], "why": spot.why} for spot in calibration.rejected
        ],
        "worst_correlation_600nm": round(calibration.worst_correlation(), 4),
        "mean_chi2": round(float(np.mean([one.chi2.mean() for one in calibration.agreement])), 4),
        "wobble_largest_nm": round(float(np.hypot(*calibration.wobble[:, :2].T).max()), 2),
        "truth_scatter_nm": calibration.truth_scatter_nm,
        "bound_at_focus_nm": {
            f"{photons:g}": [round(float(getattr(curves, name)[middle, column]), 2) for name in _AXES]
            for column, photons in enumerate(curves.photons)
        },
        "settings": calibration.settings,
    }


_AXES = ("x_sigma_nm", "y_sigma_nm", "z_sigma_nm")


def _within(calibration: Calibration, values: np.ndarray) -> np.ndarray:
    return values[np.abs(calibration.z_nm) <= 600 + 1e-6]


def _draw(calibration: Calibration, path: Path, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = calibration.table
    samples = np.clip(table.coefficients[:, 0, 0, 0].astype(np.float64), 0, None)
    pixel = table.pixel_size_nm or (100.0, 100.0)
    knots = table.z_range_nm[0] + table.dz_nm * np.arange(len(samples))
    x, y = ((np.arange(n) - o) * p / table.oversampling for n, o, p in zip(
        samples.shape[:0:-1], table.origin[:2], pixel, strict=True
    ))  # fmt: skip
    figure = Figure(figsize=(13, 10), layout="constrained")
    FigureCanvasAgg(figure)
    rows: Any = figure.subfigures(3, 1, height_ratios=[1, 1.15, 1.15])
    if title:
        figure.suptitle(title)

    slices = rows[0].subplots(1, 9)
    levels = np.linspace(0.06 * (len(knots) - 1), 0.94 * (len(knots) - 1), 7).round().astype(int)
    extent = (x[0], x[-1], y[-1], y[0])
    for axes, level in zip(slices, levels, strict=False):
        axes.imshow(samples[level], extent=extent, cmap="inferno")
        axes.set_title(f"z {knots[level]:.0f} nm", fontsize=9)
        axes.axhline(0, color="white", lw=0.3)
        axes.axvline(0, color="white", lw=0.3)
    for axes, section, place, name in (
        (slices[7], samples.sum(1), x, "x"),
        (slices[8], samples.sum(2), y, "y"),
    ):
        axes.imshow(section, extent=(place[0], place[-1], knots[-1], knots[0]), cmap="inferno", aspect="auto")
        axes.set_title(f"{name} across, z down", fontsize=9)
        axes.invert_yaxis()
    for axes in slices:
        axes.tick_params(labelsize=6)

    left, middle, right = rows[1].subplots(1, 3)
    for number, one in enumerate(calibration.agreement):
        left.plot(calibration.z_nm, one.correlation, lw=1, label=f"bead {number + 1}")
        middle.plot(calibration.z_nm, one.chi2, lw=1)
        right.plot(calibration.z_nm, one.light, lw=1)
    apart = calibration.agreement[0].apart
    left.set(xlabel="z (nm)", ylabel="correlation", title="each bead and the PSF" + (" of the others" if apart else ""))
    left.axhline(0.97, color="grey", lw=0.8, ls="--")
    left.legend(fontsize=7, ncols=2)
    middle.set(xlabel="z (nm)", ylabel="reduced chi-square", title="residual over the camera's variance")
    middle.axhline(1, color="grey", lw=0.8, ls="--")
    right.set(xlabel="z (nm)", ylabel="photons", title="light of each bead")

    left, middle, right = rows[2].subplots(1, 3)
    curves = calibration.curves
    for column, (photons, style) in enumerate(zip(curves.photons, ("-", "--"), strict=False)):
        for name, colour in zip(_AXES, ("tab:blue", "tab:orange", "tab:green"), strict=True):
            label = f"{name[0]}, {photons:g} photons"
            left.plot(curves.z_nm, getattr(curves, name)[:, column], style, color=colour, label=label)
    left.set(
        xlabel="z (nm)",
        ylabel="smallest error (nm)",
        yscale="log",
        title=f"Cramér-Rao bound, background {calibration.background:g}",
    )
    left.legend(fontsize=7, ncols=2)
    left.grid(which="both", alpha=0.2)
    middle.plot(calibration.wobble[:, 2], calibration.wobble[:, 0], label="x")
    middle.plot(calibration.wobble[:, 2], calibration.wobble[:, 1], label="y")
    middle.set(xlabel="z (nm)", ylabel="centre minus place (nm)", title="wobble")
    middle.axhline(0, color="grey", lw=0.8)
    middle.legend(fontsize=8)
    places = right.scatter(*calibration.position_nm.T / 1000, c=calibration.shift_nm, cmap="coolwarm")
    for number, place in enumerate(calibration.position_nm / 1000):
        right.annotate(f" {number + 1}", place, fontsize=8)
    right.set(xlabel="x (µm)", ylabel="y (µm)", title="beads, colour: height (nm)", aspect="equal")
    right.invert_yaxis()
    rows[2].colorbar(places, ax=right, shrink=0.8)
    figure.savefig(path, dpi=100)
