"""The attention U-Net's way from probabilities to localizations, rule "plus", as tensor operations.

The probability is gathered over a plus of five pixels; where the gathered value passes the threshold, the highest
pixel of the 3x3 window round it is a localization, and where it passes twice the threshold the second highest too.

Source: program SMLM-AttentionAI (Reinhard et al. 2025, doi:10.1101/2025.04.05.647262). There, windows at the first row
or column read the opposite edge; here they end at the border.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))


def plus_scores(probability: Tensor, *, repeat_border: bool = False) -> tuple[Tensor, Tensor]:
    """Scores of the pixels and what they gathered, both (N, H, W).

    A pixel is a localization at every threshold below its score, and at no other. The gathered value is the sum of the
    probability over the pixel and its four edge neighbours; it is what the program reports as probability and may
    exceed 1. Of equal pixels the first in raster order counts as the highest.

    Args:
        probability: (N, H, W), 0 to 1.
        repeat_border: as the program, a border pixel is its own neighbour beyond the border, where nothing is by
            default: a sure emitter there then counts twice and may be found twice.

    Raises:
        ValueError: wrong shape.
    """
    if probability.ndim != 3:
        raise ValueError(f"probability is {tuple(probability.shape)}; (frames, height, width) is needed")
    p = probability
    height, width = p.shape[-2:]

    def shifted(images: Tensor, row: int, column: int, beyond: float) -> Tensor:
        """Value at the pixel's neighbour (row, column)."""
        padded = F.pad(images, (1, 1, 1, 1), value=beyond)
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    around = F.pad(p[:, None], (1, 1, 1, 1), mode="replicate" if repeat_border else "constant")[:, 0]
    gathered = p + around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
    window = torch.stack([shifted(p, row, column, -1.0) for row, column in _WINDOW])  # (9, N, H, W)
    places = torch.arange(len(_WINDOW), device=p.device)[:, None, None, None]
    highest = window.argmax(0)
    second = window.masked_fill(places == highest, -2.0).argmax(0)
    score = torch.zeros_like(p)
    for place, (row, column) in enumerate(_WINDOW):
        worth = torch.maximum(
            torch.where(highest == place, gathered, 0.0), torch.where(second == place, gathered / 2, 0.0)
        )
        score = torch.maximum(score, shifted(worth, -row, -column, 0.0))  # to the pixel that the window points at
    if repeat_border:  # else no pixel gathers more than the frame holds
        score = torch.minimum(score, p.sum((1, 2), keepdim=True))
    return score, gathered


def extract_plus(
    probability: Tensor, *, threshold: float, repeat_border: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Localizations by rule "plus": frame, row, column (int64) and gathered probability, each (localizations,), sorted.

    Args:
        probability: (N, H, W), 0 to 1.
        threshold: gathered probability above which there is a localization, and above twice which there are two.
        repeat_border: see `plus_scores`.

    Raises:
        ValueError: wrong shape, or a threshold that is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold!r}; it must be positive")
    score, gathered = plus_scores(probability, repeat_border=repeat_border)
    frame, row, column = torch.nonzero(score > threshold, as_tuple=True)
    return frame, row, column, gathered[frame, row, column]
