"""From a map of detection probabilities to the pixels that are localizations, as tensor operations.

The same operations run on any device and inside an exported graph. Each rule turns probabilities into scores: 0
where a pixel is no candidate, else the probability gathered over the pixel and its four edge neighbours. A pixel is
a localization where its score reaches the threshold.

Source: Speiser, Mueller et al. 2021, doi:10.1038/s41592-021-01236-x: rule "program" is what the published program
does, "paper" what the text describes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._extraction import plus_scores

RULES = ("program", "paper", "plus")
_EARLIER = {8: ((-1, -1), (-1, 0), (-1, 1), (0, -1)), 4: ((-1, 0), (0, -1))}  # neighbours before a pixel, (row, column)
SECOND = 0.6  # above it, a pixel beside a higher one is a localization of its own


def scores(
    probability: Tensor,
    *,
    rule: str = "paper",
    candidate: float = 0.3,
    ties: str = "first",
    clip: bool = True,
) -> Tensor:
    """Scores of the pixels, (N, H, W), same type.

    With p the probability and S the sum of p over a pixel and its four edge neighbours (0 beyond the border), a pixel
    has score S when it is

    - "program": the highest of its 3x3 window, where probabilities up to `candidate` count as 0, or above 0.6;
    - "paper": above `candidate` and at least as high as its four edge neighbours, or above 0.6.

    The program uses one number for `candidate` and for the threshold on the score; the paper has 0.3 and 0.7. "plus" is
    the attention U-Net's rule, see `plus_scores`; it has no candidates, and equal neighbours take the first.

    Args:
        probability: (N, H, W), 0 to 1.
        rule: "program", "paper" or "plus".
        candidate: smallest probability of a candidate.
        ties: "first" lets one of equal neighbours live, the first in raster order; "all" lets all live, as the
            program does.
        clip: cut scores at 1.

    Raises:
        ValueError: an unknown rule or ties, or a wrong shape.

    Example:
        >>> p = torch.zeros(1, 3, 3)
        >>> p[0, 1, 1:] = torch.tensor([0.5, 0.4])
        >>> scores(p)[0, 1].tolist()
        [0.0, 0.8999999761581421, 0.0]
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; known are: {', '.join(RULES)}")
    if ties not in ("first", "all"):
        raise ValueError(f"ties is {ties!r}; known are: first, all")
    if probability.ndim != 3:
        raise ValueError(f"probability is {tuple(probability.shape)}; (frames, height, width) is needed")
    if rule == "plus":
        result, _ = plus_scores(probability)
        return result.clamp(0, 1) if clip else result
    p = probability[:, None]
    if rule == "program":
        # The program compares p itself with the window's highest candidate: a pixel of exactly 0 among others that
        # are no candidates passes there.
        highest = F.max_pool2d(torch.where(p > candidate, p, 0.0), 3, stride=1, padding=1)
        peak = p == highest
        if ties == "first":
            peak = peak & (p > candidate)
    else:
        highest = torch.maximum(
            F.max_pool2d(p, (3, 1), stride=1, padding=(1, 0)), F.max_pool2d(p, (1, 3), stride=1, padding=(0, 1))
        )
        peak = (p > candidate) & (p == highest)
    alive = peak | (p > SECOND)
    padded = F.pad(p, (1, 1, 1, 1))
    height, width = p.shape[-2:]
    if ties == "first":
        for row, column in _EARLIER[8 if rule == "program" else 4]:
            alive = alive & (p != padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width])
    total = p + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    result = torch.where(alive, total, 0.0)
    return (result.clamp(0, 1) if clip else result)[:, 0]
