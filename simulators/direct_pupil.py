"""A pupil as a PSF of its own, without a spline in between: slow, for bounds and fits of few emitters."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from .psf import Unit
from .pupil import PupilPSF

_CHUNK = 1 << 22  # complex numbers in one block of fields


class DirectPupil:
    """`values_and_derivatives` of a `PupilPSF`, each emitter's fields computed at its very place.

    Moving an emitter turns the phases of its plane waves, so the derivatives are exact for the sum over fine points.

    Args:
        pupil: the optics.
        z_range_nm: heights that a fit may give.
        fine_nm: largest distance of the points whose mean is a pixel's light.

    Example:
        >>> at = torch.tensor([750.0], dtype=torch.float64)
        >>> direct = DirectPupil(PupilPSF(na=1.4, model="scalar", samples=48))
        >>> direct.values_and_derivatives(at, at, 0 * at, shape=(15, 15), pixel_size_nm=(100, 100)).image.shape
        torch.Size([1, 15, 15])
    """

    def __init__(
        self, pupil: PupilPSF, *, z_range_nm: tuple[float, float] = (-750.0, 750.0), fine_nm: float = 25.0
    ) -> None:
        self.pupil, self.z_range_nm, self.fine_nm = pupil, z_range_nm, fine_nm

    def values_and_derivatives(
        self,
        x_nm: Tensor,
        y_nm: Tensor,
        z_nm: Tensor,
        *,
        shape: tuple[int, int],
        pixel_size_nm: tuple[float, float],
    ) -> Unit:
        """As `PSF.values_and_derivatives`, float64."""
        pupil = self.pupil._pupil(x_nm.device)
        k, kz = pupil.k, pupil.k_medium
        inner = [ceil(size / self.fine_nm) for size in pixel_size_nm]
        waves = []
        for count, size, points in zip(shape[::-1], pixel_size_nm, inner, strict=True):
            place = (torch.arange(count * points, dtype=torch.float64, device=x_nm.device) + 0.5) * (size / points)
            waves.append(torch.exp(1j * place[:, None] * k))
        across, down = waves
        area = pixel_size_nm[0] * pixel_size_nm[1]

        def pixels(light: Tensor) -> Tensor:
            """Sum over the fields, mean over a pixel's points, times its area."""
            whole = light.sum(1)
            return torch.nn.functional.avg_pool2d(whole[:, None], (inner[1], inner[0]))[:, 0] * area

        step = max(1, _CHUNK // (len(pupil.fields) * max(k.numel(), len(across)) * max(k.numel(), len(down))))
        parts: list[tuple[Tensor, ...]] = []
        for begin in range(0, max(1, len(x_nm)), step):
            x, y, z = (v[begin : begin + step].to(torch.float64)[:, None, None] for v in (x_nm, y_nm, z_nm))
            phase = torch.exp(1j * (z * kz - x * k[None, :] - y * k[:, None]))
            fields = pupil.fields * phase[:, None]
            rows = down @ fields
            field = rows @ across.T
            by_x = (rows * (-1j * k)) @ across.T
            by_y = (down * (-1j * k)) @ fields @ across.T
            by_z = down @ (fields * (1j * kz)) @ across.T
            slopes = (pixels(2 * (field.conj() * part).real) for part in (by_x, by_y, by_z))
            parts.append((pixels(field.abs().square()), *slopes))
        image, d_x, d_y, d_z = (torch.cat(part) for part in zip(*parts, strict=True))
        return Unit(image=image, d_x=d_x, d_y=d_y, d_z=d_z)
