"""Attention over time in every pixel, in pieces of bounded memory.

Source: program SMLM-AttentionAI (Reinhard et al. 2025, doi:10.1101/2025.04.05.647262).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITIONS = 2000  # longest block
_TOKENS_AT_ONCE = 1 << 14  # pixels x frames in one piece of attention, where no gradient is asked for
_PIXELS_AT_ONCE = 1 << 16  # pixels of all frames that pass a U-Net together, likewise


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision numbers widened; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _in_parts(module: nn.Module) -> bool:
    """Whether frames may be treated one after the other: not in training, and not in a graph."""
    return not (module.training or torch.is_grad_enabled() or torch.compiler.is_compiling())


def in_parts(module: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`function(images)` along the first axis, a few images at a time where no gradient is asked for."""
    if not _in_parts(module):
        return function(images)
    per_part = max(1, _PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1]))
    result: Tensor | None = None
    for first in range(0, len(images), per_part):
        part = function(images[first : first + per_part])
        if len(part) == len(images):
            return part
        if result is None:
            result = part.new_empty((len(images), *part.shape[1:]))
            if part.is_contiguous(memory_format=torch.channels_last) and part.ndim == 4:
                result = result.contiguous(memory_format=torch.channels_last)
        result[first : first + per_part] = part
    assert result is not None
    return result


def _full_precision(function: Callable[[], tuple[Tensor, Tensor]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Call it outside of any mixed precision."""
    if torch.compiler.is_compiling() or not torch.amp.is_autocast_available(like.device.type):
        return function()
    with torch.autocast(like.device.type, enabled=False):
        return function()


class Attention(nn.Module):
    """Self-attention over the sequence, (n, T, E) -> (n, T, E), without the residual.

    Its queries, keys and values pass two linear layers each, as published; they are multiplied into one first, and
    the products run fused.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def folded(self) -> tuple[Tensor, Tensor]:
        """The two projections as one: weight (3 E, E) and bias (3 E,)."""
        outer = self.in_proj_weight.unflatten(0, (3, -1))
        inner = torch.stack([layer.weight for layer in (self.query, self.key, self.value)])
        shift = torch.stack([layer.bias for layer in (self.query, self.key, self.value)])
        weight = outer @ inner
        return weight.flatten(0, 1), (outer @ shift[..., None]).flatten() + self.in_proj_bias

    def forward(self, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`weight` and `bias` are those of `folded`."""
        parts = F.linear(self.norm(y), weight, bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (n, heads, T, E / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    """(n, T, E) -> (n, T, E), without the residual; the gate looks at the sequence before the norm."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.lift = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, 2 * width)
        self.lower = nn.Linear(2 * width, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.lower(self.lift(self.norm(y)) * F.gelu(self.gate(y)))


class PositionCode(nn.Module):
    """Sines and cosines of the frame's place in the block: `pe`, (positions, E)."""

    pe: Tensor

    def __init__(self, width: int, positions: int = POSITIONS):
        super().__init__()
        place = torch.arange(positions, dtype=torch.float64)[:, None]
        angle = place * 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float())


class TemporalAttention(nn.Module):
    """Each pixel's features look at the same pixel in the other frames: (B T, E, H, W) -> the same.

    Args:
        width: features E, a multiple of `heads`.
        heads: of the attention, and groups of the norm.
        dropout: in training, of the coded sequence (with a position code) and of the attention's result.
        positions: longest block, with a position code; 0 for none.
        context: frames for which `macs` counts.
    """

    def __init__(self, width: int, *, heads: int = 8, dropout: float = 0.1, positions: int = POSITIONS, context: int):
        super().__init__()
        self.dropout, self.context = dropout, context
        self.norm = nn.GroupNorm(heads, width, eps=1e-6)
        self.enter = nn.Conv2d(width, width, 1)
        self.position = PositionCode(width, positions) if positions else None
        self.attention = Attention(width, heads)
        self.mlp = GatedMLP(width)
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, frames: int, *, out: Tensor | None = None) -> Tensor:
        """(B T, E, H, W) -> the same, T frames a block; a few rows of pixels at a time where no gradient is asked for.

        `out` takes the result then, and may be `x` itself.
        """
        blocks = x.unflatten(0, (-1, frames))
        moments = in_parts(self, self._moments, x).unflatten(0, (-1, frames))  # (B, T, 2, E)
        fold = _full_precision(self.attention.folded, x)
        if not _in_parts(self):
            return self._piece(blocks, moments, *fold).flatten(0, 1)
        out = torch.empty_like(x) if out is None else out
        results = out.unflatten(0, (-1, frames))
        height, width = x.shape[-2:]
        columns = max(1, min(width, _TOKENS_AT_ONCE // frames))
        rows = max(1, _TOKENS_AT_ONCE // (frames * columns))
        for block, moment, result in zip(blocks.split(1), moments.split(1), results.split(1), strict=True):
            for top in range(0, height, rows):
                for left in range(0, width, columns):
                    part = (..., slice(top, top + rows), slice(left, left + columns))
                    result[part] = self._piece(block[part], moment, *fold)
        return out

    def _moments(self, x: Tensor) -> Tensor:
        """The group norm's mean and 1 / standard deviation for each image and channel of (N, E, H, W), (N, 2, E)."""
        groups = at_least_float32(x).unflatten(1, (self.norm.num_groups, -1)).flatten(2)
        mean = groups.mean(2, keepdim=True)
        inverse = torch.rsqrt((groups - mean).square().mean(2, keepdim=True) + self.norm.eps)
        each = x.shape[1] // self.norm.num_groups
        return torch.stack([part.expand(-1, -1, each).flatten(1) for part in (mean, inverse)], dim=1)

    def _piece(self, x: Tensor, moments: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, T, E, h, w) -> the same."""
        batch, frames, _, height, _ = x.shape
        mean, inverse = moments[:, None, None].unbind(-2)  # (B, 1, 1, T, E)
        y = torch.addcmul(self.norm.bias, x.permute(0, 3, 4, 1, 2) - mean, inverse * self.norm.weight)
        y = F.linear(y.flatten(0, 2), self.enter.weight.flatten(1), self.enter.bias)  # (pixels, T, E)
        if self.position is not None:
            code = self.position.pe[torch.arange(frames, device=x.device)]  # no slice: frames stay free in a graph
            y = F.dropout(y + code, self.dropout, self.training)
        y = y + F.dropout(self.attention(y, weight, bias), self.dropout, self.training)
        y = y + self.mlp(y)
        y = F.linear(y, self.leave.weight.flatten(1), self.leave.bias)
        return x + y.unflatten(0, (batch, height, -1)).permute(0, 3, 4, 1, 2)

    def macs(self, pixels: int) -> tuple[int, int]:
        """Multiply-accumulates of one frame of a block of `context` frames, as published and as done."""
        width = self.norm.num_channels
        rest = 2 * width**2 + width**2 + 6 * width**2 + 2 * self.context * width
        return pixels * (rest + 6 * width**2), pixels * (rest + 3 * width**2)
