"""Hints: layers inside the student learn to say what layers inside the teacher say.

Source: Romero et al. 2015 (FitNets), arXiv:1412.6550: a small regressor from the student's layer to the teacher's;
Saputra et al. 2019, arXiv:1908.00858: weighted by how far the teacher is to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def hint_loss(teacher: Tensor, guided: Tensor, *, confidence: Tensor | None = None) -> Tensor:
    """`(1/n) sum_i Phi_i mean (hint_T,i - guided_S,i)^2`, over n samples.

    Args:
        teacher, guided: (n, C, h, w); the teacher's layer, and the student's through its regressor.
        confidence: Phi, (n,); default 1.

    Raises:
        ValueError: shapes differ.
    """
    if teacher.shape != guided.shape:
        raise ValueError(f"the hint is {tuple(teacher.shape)}, the guided layer {tuple(guided.shape)}; give one shape")
    each = (teacher - guided).square().flatten(1).mean(1)
    return each.mean() if confidence is None else (confidence * each).mean()


def on_one_grid(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Both features on the coarser of their grids; the finer are averaged over its pixels.

    Pixels are counted from the outer corner, so whole ratios are exact and no half-pixel offset arises.

    Raises:
        ValueError: one is finer along rows, the other along columns.
    """
    (rows_t, columns_t), (rows_s, columns_s) = teacher.shape[-2:], student.shape[-2:]
    if (rows_t - rows_s) * (columns_t - columns_s) < 0:
        raise ValueError(
            f"a hint of {rows_t} x {columns_t} and a guided layer of {rows_s} x {columns_s} pixels are not of one field"
        )
    size = (min(rows_t, rows_s), min(columns_t, columns_s))
    return F.adaptive_avg_pool2d(teacher, size), F.adaptive_avg_pool2d(student, size)


def frames_asked(features: Tensor, *, blocks: int, frames: int, first: int, count: int) -> Tensor:
    """Features of the asked frames alone, (blocks x count, C, h, w).

    Args:
        features: a layer's output, for the asked frames or for all frames of the blocks.
        blocks: B. frames: frames of a block that the network was given. first: the first one asked. count: how many.

    Raises:
        ValueError: neither.
    """
    if features.ndim == 5:
        features = features.flatten(0, 1)
    if features.ndim != 4:
        raise ValueError(f"a hint layer gives {tuple(features.shape)}; a layer of images (N, C, h, w) is needed")
    if len(features) == blocks * count:
        return features
    if len(features) == blocks * frames:
        return features.unflatten(0, (blocks, frames))[:, first : first + count].flatten(0, 1)
    raise ValueError(
        f"a hint layer gives {len(features)} images for {blocks} blocks of {frames} frames, {count} of them asked; "
        "choose a layer that works on frames"
    )


class Hints(nn.Module):
    """Pairs of layers with their regressors (1x1 convolutions where the numbers of channels differ).

    The regressors are part of the training only: they are no part of the student, so that no export holds them.

    Args:
        pairs: (teacher's layer, student's layer).
        teacher, student: example outputs of those layers, by name.
    """

    scales: Tensor

    def __init__(
        self, pairs: Sequence[tuple[str, str]], *, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self.regressors = nn.ModuleList()
        for theirs, own in self.pairs:
            given, wanted = student[own].shape[-3], teacher[theirs].shape[-3]
            self.regressors.append(nn.Conv2d(given, wanted, 1) if given != wanted else nn.Identity())
        self.register_buffer("scales", torch.zeros(len(self.pairs)))

    def forward(
        self, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor], confidence: Tensor | None = None
    ) -> Tensor:
        """Mean over the pairs of `hint_loss`, each relative to the mean square of its hint in the first batch.

        Args:
            teacher, student: outputs of the layers, (n, C, h, w) of the same n frames.
            confidence: (n,).
        """
        total = torch.zeros((), device=self.scales.device)
        for number, ((theirs, own), regressor) in enumerate(zip(self.pairs, self.regressors, strict=True)):
            hint, guided = on_one_grid(teacher[theirs].detach().float(), student[own].float())
            if not self.scales[number]:
                self.scales[number] = hint.square().mean().clamp(min=1e-12)
            total = total + hint_loss(hint, regressor(guided), confidence=confidence) / self.scales[number].item()
        return total / len(self.pairs)
