"""Statistics of the real and the simulated movie side by side, with limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .estimate import Estimate, chosen, flux_of
from .observe import Observed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One statistic.

    Args:
        name: with its unit.
        real, simulated: its values.
        limit: largest relative difference that is no cause for concern.
    """

    name: str
    real: float
    simulated: float
    limit: float

    @property
    def difference(self) -> float:
        """Simulated over real, less 1; nan where either is missing."""
        if not (np.isfinite(self.real) and np.isfinite(self.simulated)) or self.real == 0:
            return float("nan")
        return self.simulated / self.real - 1

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond the limit."""
        return abs(self.difference) > self.limit


LIMITS = {
    "spots found per um2 and frame": 0.15,
    "photons of a molecule that is on, median": 0.1,
    "photons of spots, median": 0.2,
    "photons of spots, 90 % below": 0.2,
    "background, median (photons per pixel)": 0.1,
    "width of spots, median (nm)": 0.05,
    "chi-square of fits, median": 0.15,
    "frames that a spot stays": 0.15,
    "noise of dark pixels (photons)": 0.1,
    "pixel, 1 % below (photons)": 0.2,
    "pixel, median (photons)": 0.1,
    "pixel, 99 % below (photons)": 0.2,
    "pixel, 99.9 % below (photons)": 0.25,
}
"""Statistic -> largest relative difference without a warning."""


def statistics(seen: Observed, like: Observed) -> dict[str, float]:
    """The statistics of `LIMITS`; `like` is the real movie, which decides how the flux is taken."""
    photons = chosen(seen, "photons")
    quantiles = np.quantile(seen.pixels, [0.01, 0.5, 0.99, 0.999])
    values = (
        seen.candidates_um2,
        float(np.median(flux_of(seen, like))),
        float(np.median(photons)),
        float(np.quantile(photons, 0.9)),
        float(np.median(chosen(seen, "background"))),
        float(np.median(chosen(seen, "sigma_nm"))),
        float(np.median(chosen(seen, "chi2"))),
        seen.run_length,
        seen.noise,
        *quantiles.tolist(),
    )
    return dict(zip(LIMITS, values, strict=True))


def compare(estimate: Estimate) -> list[Row]:
    """One row per statistic; the width is left out where the PSF was given."""
    real, simulated = (statistics(seen, estimate.real) for seen in (estimate.real, estimate.simulated))
    rows = [Row(name=name, real=real[name], simulated=simulated[name], limit=limit) for name, limit in LIMITS.items()]
    return [row for row in rows if np.isfinite(row.real)]
