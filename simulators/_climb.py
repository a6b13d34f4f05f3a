"""The likelihood of many regions, its slope and Fisher matrix, and the way to its top; see `simulators.fitting`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .crlb import standard_errors
from .psf import PSF, AstigmaticPSF, GaussianPSF, _integrals, _outer

PARAMETERS = ("x_nm", "y_nm", "z_nm", "photons", "background", "sigma_nm")
_LEAST = 1e-3  # electrons: smallest mean of a pixel
_STRETCH = (0.4, 1.8)
_FIRST_DAMPING, _MOST_DAMPING, _TRUSTED_DAMPING = 1e-3, 1e7, 0.1


@dataclass(frozen=True)
class Problem:
    """Scaled data (n, height, width), what was added to them in photons, and what is fitted."""

    psf: PSF
    pixel_size_nm: tuple[float, float]
    scaled: Tensor
    offset: Tensor
    excess: float
    names: tuple[str, ...]

    def evaluate(self, theta: Tensor, some: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-likelihood without its constant (n,), score (n, p), Fisher matrix (n, p, p), chi-square (n,)."""
        x, y, z, photons, background, sigma = theta.unbind(1)
        shape = (self.scaled.shape[1], self.scaled.shape[2])
        more = {"sigma_nm": sigma} if isinstance(self.psf, GaussianPSF | AstigmaticPSF) else {}
        unit = self.psf.values_and_derivatives(x, y, z, shape=shape, pixel_size_nm=self.pixel_size_nm, **more)
        bright = photons[:, None, None]
        by_name = {
            "x_nm": lambda: bright * unit.d_x,
            "y_nm": lambda: bright * unit.d_y,
            "z_nm": lambda: bright * unit.d_z,
            "photons": lambda: unit.image,
            "background": lambda: torch.ones_like(unit.image),
            "sigma_nm": lambda: bright * self._by_width(x, y, z, sigma, shape),
        }
        slopes = torch.stack([by_name[name]() for name in self.names], dim=1).flatten(2) / self.excess
        offset = self.offset if len(self.offset) == 1 else self.offset[some]
        mean = bright * unit.image + background[:, None, None]
        mean = ((mean + offset) / self.excess).clamp(min=_LEAST).flatten(1)
        data = self.scaled[some].flatten(1)
        value = (data * mean.log() - mean).sum(1)
        score = torch.bmm(slopes, (data / mean - 1)[..., None])[..., 0]
        information = torch.bmm(slopes / mean[:, None], slopes.transpose(1, 2))
        chi2 = ((data - mean).square() / mean).sum(1) / max(1, mean.shape[1] - len(self.names))
        return value, score, information, chi2

    def _by_width(self, x: Tensor, y: Tensor, z: Tensor, sigma: Tensor, shape: tuple[int, int]) -> Tensor:
        """Derivative of a Gaussian image by its width in focus."""
        wide_x, wide_y = self.psf.widths(z, sigma)  # type: ignore[attr-defined]
        across, _, across_wide = _integrals(x, wide_x, shape[1], self.pixel_size_nm[0])
        down, _, down_wide = _integrals(y, wide_y, shape[0], self.pixel_size_nm[1])
        grown_x, grown_y = (wide_x / sigma)[:, None], (wide_y / sigma)[:, None]
        return _outer(down, across_wide * grown_x) + _outer(down_wide * grown_y, across)


def climb(
    problem: Problem, theta: Tensor, low: Tensor, high: Tensor, max_iterations: int, tolerance: float
) -> tuple[Tensor, ...]:
    """Estimates (n, 6), errors (n, p), log-likelihood, chi2, iterations, converged."""
    n = len(theta)
    columns = [PARAMETERS.index(name) for name in problem.names]
    low, high = low[columns], high[columns]
    active = torch.arange(n, device=theta.device)
    value, score, information, chi2 = problem.evaluate(theta, active)
    damping = torch.full_like(value, _FIRST_DAMPING)
    iterations = torch.zeros_like(active)
    converged = torch.zeros_like(active, dtype=torch.bool)
    # Expected and actual curvature differ, more so for few photons: steps are stretched by what the last one showed.
    stretch = torch.ones_like(value)
    for _ in range(max_iterations):
        if not len(active):
            break
        now = theta[active][:, columns]
        here, slope = information[active], score[active]
        held = ((now <= low) & (slope < 0)) | ((now >= high) & (slope > 0))
        trial = (now + stretch[active, None] * _step(here, slope, damping[active], held)).clamp(low, high)
        move = trial - now
        length2 = torch.einsum("np,npq,nq->n", move, here, move)
        small = (length2 < tolerance**2) & (damping[active] <= _TRUSTED_DAMPING)
        whole = theta[active]
        whole[:, columns] = trial
        results = problem.evaluate(whole, active)
        better = (results[0] >= value[active]) | small
        better &= torch.isfinite(results[0])
        rows = active[better]
        theta[rows] = whole[better]
        for kept, new in zip((value, score, information, chi2), results, strict=True):
            kept[rows] = new[better]
        left = (results[1] * move).sum(1) / (slope * move).sum(1).clamp(min=1e-300)  # of the slope along the step
        longer = (stretch[active] / (1 - left).clamp(min=0.1)).clamp(*_STRETCH)
        stretch[active] = torch.where(better, longer, 1.0)
        damping[active] = torch.where(better, (damping[active] / 10).clamp(min=1e-9), damping[active] * 10)
        iterations[active] += 1
        converged[active[small]] = True
        active = active[~small & (damping[active] < _MOST_DAMPING)]
    constant = torch.lgamma(problem.scaled.clamp(min=0) + 1).sum((1, 2))
    return theta, standard_errors(information), value - constant, chi2, iterations, converged


def _step(information: Tensor, score: Tensor, damping: Tensor, held: Tensor) -> Tensor:
    """Solve (F + damping diag F) step = score; 0 for what is held at a limit."""
    scale = torch.diagonal(information, dim1=1, dim2=2).clamp(min=1e-300).sqrt()
    pair = ~(held[:, :, None] | held[:, None, :])
    eye = torch.eye(score.shape[1], dtype=score.dtype, device=score.device)
    matrix = torch.where(pair, information / (scale[:, :, None] * scale[:, None, :]), 0.0)
    matrix = matrix + eye * torch.where(held, 1.0, damping[:, None])[:, :, None]
    factor, _ = torch.linalg.cholesky_ex(matrix + 1e-12 * eye)
    step = torch.cholesky_solve((torch.where(held, 0.0, score) / scale)[..., None], factor)[..., 0]
    return torch.nan_to_num(step / scale)
