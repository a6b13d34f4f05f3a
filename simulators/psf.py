"""Point spread functions: expected photons per pixel for a table of emitters.

Everything here is torch: batched over frames, on any device, differentiable by positions, photons and
widths. The cost grows with the number of emitters: frames are cut into tiles, and an emitter is drawn only
where its light falls.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ._model import Positive, PositiveQuantity, StrictModel, highest

_TILE = 64  # pixels; frames up to this size are one tile
_REACH = 5.0  # standard deviations; beyond lie 3e-7 of the light
_CHUNK = 1 << 21  # numbers in one padded product


class Unit(NamedTuple):
    """Images of single emitters of one photon, and their derivatives; each (n, height, width).

    Args:
        image: share of the photon in each pixel.
        d_x: derivative by `x_nm`, per nm; likewise `d_y`, `d_z`.
    """

    image: Tensor
    d_x: Tensor
    d_y: Tensor
    d_z: Tensor


class PSF(Protocol):
    """What a point spread function can do."""

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
    ) -> Tensor:
        """Expected photons per pixel, (frames, height, width), float32 on the emitters' device.

        Args:
            frame: frame number of each emitter, 0..frames-1, int64.
            x_nm: position, nm from the outer corner of the first pixel; likewise `y_nm`.
            z_nm: height above focus, nm.
            photons: photons of the emitter over an unbounded sensor.
            frames: number of frames.
            shape: (height, width), pixels.
            pixel_size_nm: (along x, along y).
        """

    def values_and_derivatives(
        self,
        x_nm: Tensor,
        y_nm: Tensor,
        z_nm: Tensor,
        *,
        shape: tuple[int, int],
        pixel_size_nm: tuple[float, float],
    ) -> Unit:
        """Each emitter alone on a region of its own: `(image, d_x, d_y, d_z)`, what fits and bounds are made of.

        With N photons and b background photons per pixel the region's expectation is mu = N image + b, so
        dmu/dx = N d_x (likewise y, z), dmu/dN = image, dmu/db = 1.

        Args:
            x_nm: positions, nm from the outer corner of the **region's** first pixel, (n,); likewise `y_nm`.
                They may lie outside the region.
            z_nm: heights above focus, nm, (n,).
            shape: (height, width) of every region, pixels.
            pixel_size_nm: (along x, along y).

        Returns:
            `Unit`, four tensors (n, height, width) of the dtype and on the device of `x_nm`; analytic, not by
            autograd, and differentiable themselves.
        """


class _Gaussian(StrictModel):
    """A Gaussian per axis, integrated over each pixel, whose widths depend on z."""

    sigma_nm: PositiveQuantity

    def widths(self, z_nm: Tensor, sigma_nm: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """Standard deviations along x and y at heights z, nm.

        Args:
            z_nm: heights above focus, nm.
            sigma_nm: width in focus, one number or one per emitter, where `sigma_nm` of the PSF is a range.
        """
        raise NotImplementedError

    def width_slopes(self, z_nm: Tensor, sigma_nm: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """Derivatives by z of the standard deviations along x and y, nm per nm; arguments as in `widths`."""
        raise NotImplementedError

    def _in_focus(self, z_nm: Tensor, sigma_nm: Tensor | float | None) -> Tensor | float:
        if sigma_nm is not None:
            return sigma_nm
        if not isinstance(self.sigma_nm, float):
            raise ValueError(
                f"sigma_nm of this PSF is a range, {self.sigma_nm.low:g} to {self.sigma_nm.high:g} nm; "
                "give the width to use as sigma_nm="
            )
        return self.sigma_nm

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
        """As `PSF.expected`; `sigma_nm` exchanges the width in focus, one number or one per emitter.

        Example:
            >>> spot = {"x_nm": 850.0, "y_nm": 850.0, "z_nm": 0.0, "photons": 1000.0}
            >>> image = GaussianPSF(sigma_nm=115).expected(
            ...     frame=torch.tensor([0]), frames=1, shape=(17, 17), pixel_size_nm=(100, 100),
            ...     **{name: torch.tensor([value]) for name, value in spot.items()},
            ... )
            >>> round(image.sum().item(), 1), image.argmax().item() == 8 * 17 + 8
            (1000.0, True)
        """
        wide_x, wide_y = self.widths(z_nm, sigma_nm)
        return _render(
            frame,
            x_nm / pixel_size_nm[0],
            y_nm / pixel_size_nm[1],
            wide_x / pixel_size_nm[0],
            wide_y / pixel_size_nm[1],
            photons,
            frames,
            shape,
        )

    def values_and_derivatives(
        self,
        x_nm: Tensor,
        y_nm: Tensor,
        z_nm: Tensor,
        *,
        shape: tuple[int, int],
        pixel_size_nm: tuple[float, float],
        sigma_nm: Tensor | float | None = None,
    ) -> Unit:
        """As `PSF.values_and_derivatives`; `sigma_nm` exchanges the width in focus, one number or one per emitter.

        Example:
            >>> where = torch.tensor([450.0], dtype=torch.float64)
            >>> unit = GaussianPSF(sigma_nm=115).values_and_derivatives(
            ...     where, where, 0 * where, shape=(9, 9), pixel_size_nm=(100, 100)
            ... )
            >>> round(unit.image.sum().item(), 3), round(unit.d_x.sum().item(), 6)
            (1.0, 0.0)
        """
        wide_x, wide_y = self.widths(z_nm, sigma_nm)
        slope_x, slope_y = self.width_slopes(z_nm, sigma_nm)
        across, across_x, across_wide = _integrals(x_nm, wide_x, shape[1], pixel_size_nm[0])
        down, down_y, down_wide = _integrals(y_nm, wide_y, shape[0], pixel_size_nm[1])
        across_z, down_z = across_wide * slope_x[:, None], down_wide * slope_y[:, None]
        return Unit(
            image=_outer(down, across),
            d_x=_outer(down, across_x),
            d_y=_outer(down_y, across),
            d_z=_outer(down_z, across) + _outer(down, across_z),
        )


class GaussianPSF(_Gaussian):
    """Round Gaussian, integrated over the pixel, wider out of focus: sigma * sqrt(1 + (z / defocus)^2).

    Args:
        sigma_nm: standard deviation in focus, nm; in a recipe also a range, drawn per frame or block of
            frames.
        defocus_nm: height at which the width has grown by sqrt 2, nm; infinite if left out.
    """

    kind: Literal["gaussian"] = "gaussian"
    defocus_nm: Positive | None = None

    def widths(self, z_nm: Tensor, sigma_nm: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        sigma = self._in_focus(z_nm, sigma_nm)
        if self.defocus_nm is None:
            wide = sigma + torch.zeros_like(z_nm)
        else:
            wide = sigma * torch.sqrt(1 + (z_nm / self.defocus_nm) ** 2)
        return wide, wide

    def width_slopes(self, z_nm: Tensor, sigma_nm: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        if self.defocus_nm is None:
            slope = torch.zeros_like(z_nm)
        else:
            slope = _slope(self._in_focus(z_nm, sigma_nm), z_nm / self.defocus_nm) / self.defocus_nm
        return slope, slope

    def widest_nm(self, z_nm: float) -> float:
        """The largest width up to height z, nm."""
        grown = sqrt(1 + (z_nm / self.defocus_nm) ** 2) if self.defocus_nm else 1.0
        return highest(self.sigma_nm) * grown


class AstigmaticPSF(_Gaussian):
    """Gaussian whose foci along x and y lie at different heights (a cylindrical lens).

    Along x sigma * sqrt(1 + ((z - focal_shift) / defocus)^2), along y with + focal_shift: above focus the
    spot is narrow along x, below along y.

    Args:
        sigma_nm: standard deviation in either focus, nm.
        defocus_nm: depth of either focus, nm.
        focal_shift_nm: height of the x focus, nm; the y focus lies as far on the other side.
    """

    kind: Literal["astigmatic"] = "astigmatic"
    defocus_nm: Positive = 420.0
    focal_shift_nm: float = 250.0

    def widths(self, z_nm: Tensor, sigma_nm: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        sigma = self._in_focus(z_nm, sigma_nm)
        wide_x = sigma * torch.sqrt(1 + ((z_nm - self.focal_shift_nm) / self.defocus_nm) ** 2)
        wide_y = sigma * torch.sqrt(1 + ((z_nm + self.focal_shift_nm) / self.defocus_nm) ** 2)
        return wide_x, wide_y

    def width_slopes(self, z_nm: Tensor, sigma_nm: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        sigma, depth = self._in_focus(z_nm, sigma_nm), self.defocus_nm
        return (
            _slope(sigma, (z_nm - self.focal_shift_nm) / depth) / depth,
            _slope(sigma, (z_nm + self.focal_shift_nm) / depth) / depth,
        )

    def widest_nm(self, z_nm: float) -> float:
        """The largest width up to height z, nm."""
        return highest(self.sigma_nm) * sqrt(1 + ((abs(z_nm) + abs(self.focal_shift_nm)) / self.defocus_nm) ** 2)


def _slope(sigma: Tensor | float, u: Tensor) -> Tensor:
    """Derivative of sigma * sqrt(1 + u^2) by u."""
    return sigma * u / torch.sqrt(1 + u**2)


def _outer(down: Tensor, across: Tensor) -> Tensor:
    return down[:, :, None] * across[:, None, :]


def _integrals(centre: Tensor, wide: Tensor, pixels: int, pixel_nm: float) -> tuple[Tensor, Tensor, Tensor]:
    """Share of a Gaussian's light in each pixel along one axis, its derivatives by centre and width; (n, pixels)."""
    edges = torch.arange(pixels + 1, device=centre.device, dtype=centre.dtype) * pixel_nm
    steps = (edges - centre[:, None]) / wide[:, None]
    height = torch.exp(-0.5 * steps**2) / (sqrt(2 * pi) * wide[:, None])
    share = 0.5 * torch.diff(torch.erf(steps * 0.5**0.5), dim=1)
    return share, -torch.diff(height, dim=1), -torch.diff(steps * height, dim=1)


def check_frames(frame: Tensor, frames: int) -> None:
    """Refuse frame numbers outside 0..frames-1.

    Raises:
        IndexError: with the lowest and the highest.
    """
    if frame.numel():
        low, high = (int(number) for number in torch.aminmax(frame))
        if low < 0 or high >= frames:
            raise IndexError(f"emitters lie in frames {low} to {high}; there are 0 to {frames - 1}")


def compilable(*columns: Tensor) -> bool:
    """Whether the compiled loops of `_spots` take these: single precision on the CPU, no gradient wanted."""
    return all(c.device.type == "cpu" and c.dtype == torch.float32 and not c.requires_grad for c in columns)


def _render(
    frame: Tensor,
    x: Tensor,
    y: Tensor,
    wide_x: Tensor,
    wide_y: Tensor,
    photons: Tensor,
    frames: int,
    shape: tuple[int, int],
) -> Tensor:
    """Sum of separable pixel-integrated Gaussians, all lengths in pixels.

    Compiled where it can be. Else each tile's emitters stand in one padded row; the image is the batched product of
    their profiles along y and x.
    """
    check_frames(frame, frames)
    if compilable(x, y, wide_x, wide_y, photons):
        from ._spots import gaussians

        return gaussians(frame, x, y, wide_x, wide_y, photons, frames=frames, shape=shape, reach=_REACH)
    height, width = shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    # Equal tiles, so that small overhangs do not cost a whole one.
    tall, broad = -(-height // rows), -(-width // columns)
    place_x, place_y = x.detach(), y.detach()
    reach_x, reach_y = _REACH * wide_x.detach(), _REACH * wide_y.detach()
    near = (place_x > -reach_x) & (place_x < width + reach_x) & (place_y > -reach_y) & (place_y < height + reach_y)
    if rows == columns == 1:
        member = near.nonzero().squeeze(1)
        tile = frame[member]
    else:
        members, tiles = [], []
        for row in range(rows):
            close_y = near & (place_y > row * tall - reach_y) & (place_y < (row + 1) * tall + reach_y)
            some = close_y.nonzero().squeeze(1)
            for column in range(columns):
                spot, far = place_x[some], reach_x[some]
                here = some[(spot > column * broad - far) & (spot < (column + 1) * broad + far)]
                members.append(here)
                tiles.append((frame[here] * rows + row) * columns + column)
        member, tile = torch.cat(members), torch.cat(tiles)
    count = frames * rows * columns
    image = x.new_zeros((count, tall, broad))
    if member.numel():
        per_tile = torch.bincount(tile, minlength=count)
        order = torch.argsort(tile, stable=True)
        member, tile = member[order], tile[order]
        first = torch.cumsum(per_tile, 0) - per_tile
        # Position within the tile, reciprocal widths and light, side by side: one gather for all.
        left, top = tile % columns * broad, tile // columns % rows * tall
        columns_of = (x[member] - left, y[member] - top, 0.5**0.5 / wide_x[member], 0.5**0.5 / wide_y[member])
        packed = torch.stack([*columns_of, 0.25 * photons[member].to(x.dtype)], dim=1)
        for some, most in _alike(per_tile):
            image[some] = _products(packed, first[some], per_tile[some], most, tall, broad)
    image = (
        image.reshape(frames, rows, columns, tall, broad).transpose(2, 3).reshape(frames, rows * tall, columns * broad)
    )
    return image[:, :height, :width]


def _alike(per_tile: Tensor) -> list[tuple[Tensor, int]]:
    """Tiles in groups of similar emitter numbers, so that padding costs at most about a quarter."""
    counts, tiles = torch.sort(per_tile)
    sizes = counts.tolist()
    groups, begin = [], next((i for i, n in enumerate(sizes) if n > 0), len(sizes))
    while begin < len(sizes):
        most = max(int(sizes[begin] * 1.5), sizes[begin] + 8)
        end = begin
        while end < len(sizes) and sizes[end] <= most and (end - begin) * most * _TILE <= _CHUNK:
            end += 1
        groups.append((tiles[begin:end], sizes[end - 1]))
        begin = end
    return groups


def _products(packed: Tensor, first: Tensor, held: Tensor, most: int, tall: int, broad: int) -> Tensor:
    """Images of tiles that hold `held` emitters each, from row `first` of `packed` on."""
    slot = torch.arange(most, device=packed.device)
    rows = packed[(first[:, None] + slot).clamp_(max=len(packed) - 1)]
    x, y, scale_x, scale_y, light = rows.unbind(2)
    light = light * (slot < held[:, None])
    down = _profile(y, scale_y, tall) * light[..., None]
    return torch.bmm(down.transpose(1, 2), _profile(x, scale_x, broad))


def _profile(centre: Tensor, scale: Tensor, pixels: int) -> Tensor:
    """Twice the share of the light in each pixel along one axis, (..., pixels)."""
    edges = torch.arange(pixels + 1, device=centre.device, dtype=centre.dtype)
    steps = edges - centre[..., None]
    if steps.requires_grad or scale.requires_grad:
        steps = torch.erf(steps * scale[..., None])
    else:
        steps.mul_(scale[..., None]).erf_()
    return steps[..., 1:] - steps[..., :-1]
