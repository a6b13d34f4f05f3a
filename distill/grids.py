"""One grid for teacher and student: what each network's tensor says, as emitters per fine pixel under one common blur.

Networks differ in how fine their images are, in what a lone emitter counts (spikes of 100, spots of sum 1), in how
wide their spots are and in half-pixel offsets. Their output contracts say all of it, so that both can be brought to
the same density before they are compared. What the contracts leave incomparable is refused.

Conventions: lengths in camera pixels from the outer corner of pixel [0, 0]; fine pixel j stands for (j + 1/2) / s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import EmitterMaps, SRImage

Contract = SRImage | EmitterMaps
MAP_UPSAMPLING = 4  # of the grid on which two localization networks are compared
_MAP_BLUR = 0.25  # camera pixels


@dataclass(frozen=True, kw_only=True)
class CommonGrid:
    """Where outputs are compared.

    Args:
        upsampling: fine pixels per camera pixel.
        blur_px: width (sigma) of the Gaussian that every emitter is blurred by, camera pixels.
    """

    upsampling: int
    blur_px: float

    @property
    def lone_energy(self) -> float:
        """Sum of squares of a lone emitter's density, over an infinite grid."""
        return 1 / (4 * math.pi * (self.blur_px * self.upsampling) ** 2)


def common_grid(teacher: Contract, student: Contract, *, blur_px: float | None = None) -> CommonGrid:
    """The grid and blur on which two networks can be compared.

    Images of s and t fine pixels per camera pixel meet on the grid of gcd(s, t), where both are sums over whole fine
    pixels. Maps have positions, so they are drawn on the other's grid. The blur is at least one fine pixel, and at
    least the width of the spots that a network gives itself.

    Args:
        teacher, student: contracts of what the networks give.
        blur_px: a wider blur, camera pixels.

    Raises:
        ValueError: grids without a common one, an offset of a camera pixel or more, or a blur below the spots' own.
    """
    images = [output for output in (teacher, student) if isinstance(output, SRImage)]
    for output in images:
        if max(map(abs, output.offset_px)) >= output.upsampling:
            raise ValueError(
                f"an image's offset is {output.offset_px} of {output.upsampling} fine pixels: a camera pixel or more "
                "is no half-pixel convention; correct offset_px in the card"
            )
    scales = [output.upsampling for output in images]
    upsampling = math.gcd(*scales) if scales else MAP_UPSAMPLING
    if len(set(scales)) > 1 and upsampling == 1:
        raise ValueError(
            f"teacher and student enlarge {scales[0]} and {scales[1]} times; their pixels have no common grid "
            "finer than the camera's. Build the student with an upsampling that shares a factor with the teacher's"
        )
    own = [output.heatmap_sigma / output.upsampling for output in images if output.kind == "heatmap"]
    least = max([*own, 1 / upsampling if scales else _MAP_BLUR])
    if blur_px is not None and blur_px < max(own, default=0.0):
        raise ValueError(
            f"blur_px is {blur_px}, but a network gives spots of sigma {max(own):g} camera pixels already; give at "
            "least that"
        )
    return CommonGrid(upsampling=upsampling, blur_px=least if blur_px is None else blur_px)


def density(images: Tensor, output: SRImage, grid: CommonGrid, *, gain: float = 1.0) -> Tensor:
    """Images (N, 1, sH, sW) as emitters per fine pixel of the common grid, (N, 1, gH, gW); differentiable.

    Divided by `target_scale`, blurred by what is missing to the common blur, moved by `offset_px`, and summed over the
    common grid's pixels.

    Args:
        gain: factor on the images, for networks whose lone emitters do not come out as their contract says.

    Raises:
        ValueError: images that are not on the contract's grid.
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images are {tuple(images.shape)}; (N, 1, height, width) is needed")
    steps, rest = divmod(output.upsampling, grid.upsampling)
    if rest or images.shape[-2] % output.upsampling or images.shape[-1] % output.upsampling:
        raise ValueError(
            f"images are {tuple(images.shape)} at {output.upsampling} fine pixels per camera pixel; they cannot be "
            f"brought to {grid.upsampling}"
        )
    own = output.heatmap_sigma / output.upsampling if output.kind == "heatmap" else 0.0
    missing = output.upsampling * math.sqrt(max(grid.blur_px**2 - own**2, 0.0))
    result = images * (gain / output.target_scale)
    across, down = (_line(missing, shift).to(result) for shift in output.offset_px)
    with torch.autocast(images.device.type, enabled=False):
        if len(across) > 1:
            result = F.conv2d(result, across[None, None, None, :], padding="same")
        if len(down) > 1:
            result = F.conv2d(result, down[None, None, :, None], padding="same")
    return F.avg_pool2d(result, steps) * steps**2 if steps > 1 else result


def _line(sigma: float, shift: float) -> Tensor:
    """Kernel of a correlation that blurs by `sigma` and moves by `shift` pixels to the right; sum 1."""
    reach = math.ceil(4 * sigma + abs(shift))
    places = torch.arange(-reach, reach + 1, dtype=torch.float64) + shift
    weights = torch.exp(-0.5 * (places / sigma) ** 2) if sigma > 1e-3 else (1 - places.abs()).clamp(min=0)
    return (weights / weights.sum()).float()


def draw(
    *,
    frame: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    sigma_x: Tensor | float = 0.0,
    sigma_y: Tensor | float = 0.0,
    count: int,
    height: int,
    width: int,
    grid: CommonGrid,
    reach: int = 3,
) -> Tensor:
    """Emitters as Gaussians integrated over the fine pixels, (count, 1, gH, gW); differentiable.

    Args:
        frame: (E,) int64. x, y: positions, camera pixels (E,). weight: emitters each stands for (E,).
        sigma_x, sigma_y: how uncertain each position is, camera pixels; added in squares to the common blur.
        count, height, width: frames and field, camera pixels.
        reach: camera pixels on each side of an emitter's own that it is drawn on; what is wider is cut.
    """
    s = grid.upsampling
    rows, columns = (height + 2 * reach) * s, (width + 2 * reach) * s
    image = x.new_zeros(count * rows * columns)
    if not len(frame):
        return image.view(count, 1, rows, columns)[
            ..., reach * s : (reach + height) * s, reach * s : (reach + width) * s
        ]
    row, column = y.detach().floor().long().clamp(0, height - 1), x.detach().floor().long().clamp(0, width - 1)
    edges = torch.arange((2 * reach + 1) * s + 1, device=x.device) / s - reach

    def profile(position: Tensor, start: Tensor, sigma: Tensor | float) -> Tensor:
        wide = torch.sqrt(torch.as_tensor(sigma, device=x.device) ** 2 + grid.blur_px**2)
        step = (start[:, None] + edges - position[:, None]) / (math.sqrt(2) * wide.reshape(-1, 1))
        return torch.erf(step).diff(dim=1) / 2

    down, across = profile(y, row, sigma_y), profile(x, column, sigma_x)
    spots = weight[:, None, None] * down[:, :, None] * across[:, None, :]  # (E, K, K)
    steps = torch.arange(down.shape[1], device=x.device)
    corner = (frame * rows + row * s) * columns + column * s
    place = corner[:, None, None] + steps[:, None] * columns + steps
    image = image.index_add(0, place.reshape(-1), spots.reshape(-1))
    image = image.view(count, 1, rows, columns)
    return image[..., reach * s : (reach + height) * s, reach * s : (reach + width) * s]


def drawn_maps(
    maps: Tensor, output: EmitterMaps, grid: CommonGrid, *, floor: float = 0.02, also: Tensor | None = None
) -> Tensor:
    """Maps (N, C, H, W) of a localization network as emitters per fine pixel, (N, 1, gH, gW); differentiable.

    Each pixel is drawn as a Gaussian at its position, weighted by its probability, as wide as its predicted sigmas and
    the common blur; sigmas above one camera pixel count as one.

    Args:
        floor: pixels of a lower probability are left out.
        also: (N, H, W) bool, pixels that are drawn nevertheless.
    """
    count, _, height, width = maps.shape
    probability = maps[:, output.index("probability")]
    chosen = probability.detach() > floor
    if also is not None:
        chosen = chosen | also
    frame, row, column = torch.nonzero(chosen, as_tuple=True)
    picked = maps[frame, :, row, column]
    sigmas = {
        axis: picked[:, output.index(f"{axis}_sigma")].clamp(max=1.0) if f"{axis}_sigma" in output.channels else 0.0
        for axis in ("x", "y")
    }
    return draw(
        frame=frame,
        x=column + output.reference_px[0] + picked[:, output.index("x")],
        y=row + output.reference_px[1] + picked[:, output.index("y")],
        weight=picked[:, output.index("probability")],
        sigma_x=sigmas["x"],
        sigma_y=sigmas["y"],
        count=count,
        height=height,
        width=width,
        grid=grid,
    )
