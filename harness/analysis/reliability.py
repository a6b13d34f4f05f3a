"""Reliability plot: predicted sigma against the error that was made, axis by axis."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from harness.scoring.calibration import Calibration

from .uniformity import Uniformity


def reliability_png(calibrations: Mapping[str, Calibration], *, title: str = "") -> bytes:
    """A picture of the calibration of each axis, PNG.

    Points are bins of predicted sigma: RMSE against predicted sigma with the standard error of the RMSE; on the
    diagonal the predictions are right, above it the errors are larger than predicted.

    Args:
        calibrations: name -> calibration, at least one.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not calibrations:
        raise ValueError("no localization that was paired with an emitter has a predicted sigma: nothing to draw")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(calibrations), 4.2), layout="constrained")
    panels = figure.subplots(1, len(calibrations), squeeze=False)[0]
    for panel, (name, one) in zip(panels, calibrations.items(), strict=True):
        x = np.array([entry["rms_sigma"] for entry in one.bins])
        y = np.array([entry["rmse"] for entry in one.bins])
        error = np.array([entry["rmse_error"] for entry in one.bins])
        top = 1.1 * float(max(x.max(), (y + error).max()))
        panel.plot([0, top], [0, top], color="0.6", linewidth=1, zorder=0)
        panel.errorbar(x, y, yerr=error, fmt="o-", markersize=4, linewidth=1, capsize=2)
        unit = "photons" if name == "photons" else "nm"
        panel.set(xlim=(0, top), ylim=(0, top), xlabel=f"predicted sigma, {unit}", ylabel=f"RMSE, {unit}", aspect=1)
        panel.set_title(
            f"{name}: std of error/sigma {one.z_std:.2f}\nexpected calibration error {one.expected_error:.3g} {unit}, "
            f"{one.n:,} hits",
            fontsize=9,
        )
    if title:
        figure.suptitle(title)
    return _png(figure)


def uniformity_png(x: Uniformity, y: Uniformity, *, title: str = "") -> bytes:
    """Histograms of the position within the pixel, PNG; the line is what even positions give."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    for panel, name, one in zip(figure.subplots(1, 2, sharey=True), "xy", (x, y), strict=True):
        bins = len(one.counts)
        edges = np.linspace(0, 1, bins + 1)
        panel.stairs(one.counts / one.counts.mean(), edges, fill=True, alpha=0.6)
        panel.axhline(1, color="0.4", linewidth=1)
        panel.set(xlabel=f"{name} within the pixel", ylabel="density", xlim=(0, 1), ylim=(0, None))
        panel.set_title(f"unevenness {one.unevenness:.3f}, reduced chi2 {one.chi2_reduced:.2f}", fontsize=9)
    if title:
        figure.suptitle(title)
    return _png(figure)


def _png(figure: object) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)  # type: ignore[attr-defined]
    return out.getvalue()
