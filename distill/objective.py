"""The objective that the trainer calls instead of a loss: truth, teacher, hints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import EmitterMaps, EmitterTargets, SRImage

from .alternatives import MODES, combine
from .grids import CommonGrid, common_grid, density, draw, drawn_maps
from .hints import Hints, frames_asked
from .imitation import teacher_confidence
from .maps import emitter_imitation, soft_detection
from .teacher import Network, Tap, Teacher, neighbours, run_on_blocks

CONFIDENCES = ("sample", "pixel", "none")
WINDOW_PX = 3  # camera pixels over which a pixel's teacher error is averaged


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a student is taught.

    Args:
        mode: attentive, sum, minimum or bound, see `combine`.
        alpha: weight of the truth, 0 to 1; the rest is the teacher's.
        confidence: of the teacher: "sample", "pixel" (images: its error in the window round each pixel) or "none".
        blur_px: common blur, camera pixels; None takes the least that the contracts allow.
        location_weight, background_weight: between localization networks, see `emitter_imitation`.
        hints: pairs (teacher's layer, student's layer).
        hint_weight: of the hints beside the outputs.
        hint_steps: steps in which the hints alone are learned first; 0 learns all together.
        freeze: the layers that the hints taught are not changed afterwards (with `hint_steps`).

    Raises:
        ValueError: an unknown mode or confidence, or a number out of range.
    """

    mode: str = "attentive"
    alpha: float = 0.5
    confidence: str = "sample"
    blur_px: float | None = None
    location_weight: float = 1.0
    background_weight: float = 1.0
    hints: tuple[tuple[str, str], ...] = ()
    hint_weight: float = 1.0
    hint_steps: int = 0
    freeze: bool = True

    def __post_init__(self) -> None:
        for what, value, known in (("mode", self.mode, MODES), ("confidence", self.confidence, CONFIDENCES)):
            if value not in known:
                raise ValueError(f"{what} is {value!r}; known are: {', '.join(known)}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; it must lie between 0 (teacher only) and 1 (truth only)")
        if self.hint_steps and not self.hints:
            raise ValueError(f"hint_steps is {self.hint_steps}, but no hints are given; name layers of both networks")


@dataclass(frozen=True, kw_only=True)
class TeacherRecord:
    """What one pass of the teacher over labelled frames showed.

    Attributes:
        gain: factor on an image teacher's density that fits the truth best (least squares).
        error_range: largest minus smallest error of a sample (eta).
        pixel_range: the same for windows round pixels.
        mean_error: mean error of a sample. samples: how many.
    """

    gain: float = 1.0
    error_range: float = 1.0
    pixel_range: float = 1.0
    mean_error: float = 0.0
    samples: int = 0


class Distillation(nn.Module):
    """Called as `objective(student, frames, target)`; gives the loss of a batch.

    Frames are blocks (B, T, H, W) in which `before` and `after` frames are neighbours only (0 and 0 where neither
    network needs any). Targets are of the asked frames: unit spikes (n, 1, sH, sW) for image students, `EmitterTargets`
    for localization networks, None for frames without a known truth: there the teacher alone is imitated, as far as it
    agrees with itself under flips and shifts.

    Only the hints' regressors are parameters of this module.

    Args:
        student: the network to be trained (looked at, not kept).
        teacher: frozen.
        loss: the student's own loss, `(output, target) -> number`.
        settings: how to teach.
        record: from `survey`; the default trusts the teacher everywhere.
        size: side of the training frames, camera pixels, where there are hints.

    Raises:
        ValueError: contracts that cannot be compared, layers that are not there, a mode that the student cannot have.
    """

    steps: Tensor

    def __init__(
        self,
        student: Network,
        teacher: Teacher,
        loss: Callable[[Tensor, Any], Tensor],
        *,
        settings: Settings,
        record: TeacherRecord | None = None,
        size: int = 32,
    ) -> None:
        super().__init__()
        self.teacher, self.loss, self.settings = teacher, loss, settings
        self.record = record or TeacherRecord()
        self.output: SRImage | EmitterMaps = student.output
        own_before, own_after = neighbours(student)
        self.before, self.after = max(teacher.before, own_before), max(teacher.after, own_after)
        self.grid: CommonGrid = common_grid(teacher.output, student.output, blur_px=settings.blur_px)
        if settings.mode == "minimum" and isinstance(student.output, EmitterMaps):
            raise ValueError(
                "mode 'minimum' compares distances to truth and teacher, which have different units for a localization "
                "network; use attentive, sum or bound"
            )
        if settings.confidence == "pixel" and isinstance(student.output, EmitterMaps):
            raise ValueError(
                "confidence 'pixel' is for image students; a localization network takes 'sample' or 'none'"
            )
        # a published loss may ask the prediction for less than the target's scale
        self.student_gain = float(getattr(loss, "keywords", {}).get("gain", 1.0))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.last: dict[str, float] = {}
        self.field = (0, 0)  # camera pixels, of the batch
        self.frozen: list[str] = []  # parameters fixed after the hints
        self.hints: Hints | None = None
        if settings.hints:
            self.teacher_tap = Tap(teacher.network, tuple(pair[0] for pair in settings.hints))
            self.student_layers = tuple(pair[1] for pair in settings.hints)
            self.hints = self._prepared_hints(student, size)

    def forward(self, student: Network, frames: Tensor, target: Tensor | EmitterTargets | None) -> Tensor:
        """The loss of a batch, a number."""
        self.field = (frames.shape[-2], frames.shape[-1])
        staged = self.hints is not None and bool(self.settings.hint_steps)
        alone = staged and int(self.steps) < self.settings.hint_steps
        if staged and not alone and self.settings.freeze:
            self._freeze_front(student, frames)
        if self.training and torch.is_grad_enabled():
            self.steps += 1
        raw, given, guided, taught = self._run_both(student, frames)
        dense = self._flat(raw)
        lesson = self._teacher_density(given)
        if target is None:
            confidence = self.agreement(frames, lesson)
            loss = (confidence * self._imitation(dense, given, lesson, None)).mean()
            self.last = {"confidence": confidence.mean().item(), "imitation": loss.item()}
        else:
            loss, confidence = self._with_truth(raw, dense, given, lesson, target)
        if self.hints is not None:
            hint = self.hints(taught, guided, confidence)
            self.last["hint"] = hint.item()
            if alone:
                loss = hint
            elif not self.frozen:
                loss = loss + self.settings.hint_weight * hint
        return loss

    def _run_both(
        self, student: Network, frames: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Outputs of student and teacher, and the outputs of the hinted layers for the asked frames."""
        around = {"before": self.before, "after": self.after}
        if self.hints is None:
            return run_on_blocks(student, frames, **around).float(), self.teacher(frames, **around), {}, {}
        tap = Tap(student, self.student_layers)
        with tap.open() as guided:
            raw = run_on_blocks(student, frames, **around).float()
        with self.teacher_tap.open() as taught:
            given = self.teacher(frames, **around)
        return raw, given, self._asked(guided, student, frames), self._asked(taught, self.teacher.network, frames)

    def _asked(self, features: dict[str, Tensor], network: Network, frames: Tensor) -> dict[str, Tensor]:
        blocks, length = frames.shape[:2]
        count = length - self.before - self.after
        first, last = neighbours(network)
        seen = count + first + last
        return {
            name: frames_asked(value, blocks=blocks, frames=seen, first=first, count=count)
            for name, value in features.items()
        }

    def _prepared_hints(self, student: Network, size: int) -> Hints:
        frames = torch.zeros(1, self.before + 1 + self.after, size, size)
        frames = frames.to(next(student.parameters()).device)
        training = student.training
        student.eval()  # statistics stay as they are
        tap = Tap(student, self.student_layers)
        with torch.no_grad(), tap.open() as guided:
            run_on_blocks(student, frames, before=self.before, after=self.after)
        student.train(training)
        with self.teacher_tap.open() as taught:
            self.teacher(frames, before=self.before, after=self.after)
        own, theirs = self._asked(guided, student, frames), self._asked(taught, self.teacher.network, frames)
        return Hints(self.settings.hints, teacher=theirs, student=own).to(frames.device)

    def _freeze_front(self, student: Network, frames: Tensor) -> None:
        """Fix what the hinted layers depend on; once."""
        if self.frozen:
            return
        tap = Tap(student, self.student_layers)
        with torch.enable_grad(), tap.open() as guided:
            run_on_blocks(student, frames, before=self.before, after=self.after)
            total = torch.stack([value.float().sum() for value in guided.values()]).sum()
        named = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
        slopes = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
        self.frozen = [name for (name, _), slope in zip(named, slopes, strict=True) if slope is not None]
        if len(self.frozen) == len(named):
            raise ValueError(
                "the hinted layers depend on the whole student, nothing is left to train; set freeze to false"
            )
        for (_, parameter), slope in zip(named, slopes, strict=True):
            if slope is not None:
                parameter.requires_grad_(False)
                parameter.grad = None

    def _with_truth(
        self, raw: Tensor, dense: Tensor, given: Tensor, lesson: Tensor, target: Tensor | EmitterTargets
    ) -> tuple[Tensor, Tensor]:
        truth = self.true_density(target)
        off = (lesson - truth).square()
        error = off.flatten(1).mean(1)
        kind = self.settings.confidence
        confidence = torch.ones_like(error) if kind == "none" else self._trust(error, self.record.error_range)
        per_pixel = None
        if kind == "pixel":
            per_pixel = self._trust(self._windowed(off), self.record.pixel_range)
            confidence = torch.ones_like(error)
        imitation = self._imitation(dense, given, lesson, per_pixel)
        own = self.loss(raw, target)
        errors: dict[str, Tensor] = {}
        if self.settings.mode in ("minimum", "bound"):
            scale = self._unit**2
            distance = (self._student_density(dense) - truth).square().flatten(1).mean(1)
            errors = {"student_error": distance * scale, "teacher_error": error * scale}
        loss = combine(
            self.settings.mode,
            truth=own,
            imitation=imitation,
            alpha=self.settings.alpha,
            confidence=confidence,
            **errors,
        )
        trusted = confidence if per_pixel is None else per_pixel.flatten(1).mean(1)
        self.last = {
            "confidence": trusted.mean().item(),
            "confidence_low": trusted.min().item(),
            "truth": own.item(),
            "imitation": imitation.mean().item(),
            "teacher_error": error.mean().item(),
        }
        return loss, trusted.detach()

    @staticmethod
    def _trust(error: Tensor, error_range: float) -> Tensor:
        return teacher_confidence(error, error_range=error_range)

    @property
    def _unit(self) -> float:
        """What a lone emitter counts in the student's own loss."""
        return self.output.target_scale if isinstance(self.output, SRImage) else 1.0

    def _windowed(self, squares: Tensor) -> Tensor:
        side = WINDOW_PX * self.grid.upsampling // 2 * 2 + 1
        return F.avg_pool2d(squares, side, stride=1, padding=side // 2, count_include_pad=False)

    @staticmethod
    def _flat(raw: Tensor) -> Tensor:
        return raw.flatten(0, 1) if raw.ndim == 5 else raw

    def _student_density(self, dense: Tensor, also: Tensor | None = None) -> Tensor:
        if isinstance(self.output, SRImage):
            return density(dense, self.output, self.grid, gain=self.student_gain)
        return drawn_maps(dense, self.output, self.grid, also=also)

    def _teacher_density(self, given: Tensor) -> Tensor:
        """What the teacher says, on the common grid."""
        output = self.teacher.output
        if isinstance(output, SRImage):
            return density(given, output, self.grid, gain=self.record.gain)
        return drawn_maps(given, output, self.grid)

    def true_density(self, target: Tensor | EmitterTargets) -> Tensor:
        """The truth on the common grid, (n, 1, gH, gW)."""
        if isinstance(target, EmitterTargets):
            height, width = self.field
            return draw(
                frame=target.frame,
                x=target.x,
                y=target.y,
                weight=torch.ones_like(target.x),
                count=target.count,
                height=height,
                width=width,
                grid=self.grid,
            )
        assert isinstance(self.output, SRImage)
        plain = SRImage(upsampling=self.output.upsampling, target_scale=1.0)
        return density(target, plain, self.grid)

    def _imitation(self, dense: Tensor, given: Tensor, lesson: Tensor, per_pixel: Tensor | None) -> Tensor:
        """Distance of the student from the teacher on each sample, in the unit of the student's own loss, (n,)."""
        if isinstance(self.output, SRImage):
            gap = (self._student_density(dense) - lesson).square()
            gap = gap if per_pixel is None else per_pixel * gap
            return self._unit**2 * gap.flatten(1).mean(1)
        if isinstance(self.teacher.output, EmitterMaps):
            return emitter_imitation(
                dense,
                given,
                student=self.output,
                teacher=self.teacher.output,
                location_weight=self.settings.location_weight,
                background_weight=self.settings.background_weight,
            )
        # an image teaches a localization network: how many emitters in each camera pixel, and where they are
        there = (F.avg_pool2d(lesson, self.grid.upsampling) * self.grid.upsampling**2)[:, 0].clamp(0, 1)
        drawn = self._student_density(dense, also=there > 0.05)
        where = (drawn - lesson).square().flatten(1).sum(1) / self.grid.lone_energy
        return soft_detection(dense[:, self.output.index("probability")], there) + self.settings.location_weight * where

    def agreement(self, frames: Tensor, lesson: Tensor) -> Tensor:
        """Trust in the teacher where the truth is unknown, (n,): 1 where it says the same of the flipped and of the
        shifted frames, 0 where it differs from itself as much as its errors differ on labelled frames (eta)."""
        s, border = self.grid.upsampling, 2
        worst = torch.zeros(len(lesson), device=lesson.device)

        def asked(changed: Tensor) -> Tensor:
            return self._teacher_density(self.teacher(changed, before=self.before, after=self.after))

        views = (
            (asked(frames.flip(-1)).flip(-1), 0),
            (asked(frames.flip(-2)).flip(-2), 0),
            (asked(frames.roll((1, 1), (-2, -1))).roll((-s, -s), (-2, -1)), border * s),
        )
        for view, cut in views:
            gap = (view - lesson).square()
            gap = gap[..., cut : gap.shape[-2] - cut, cut : gap.shape[-1] - cut] if cut else gap
            worst = torch.maximum(worst, gap.flatten(1).mean(1))
        return self._trust(worst, self.record.error_range)

    def survey(self, batches: Iterable[tuple[Tensor, Any]]) -> TeacherRecord:
        """One pass of the teacher over labelled batches: its gain, and the range of its errors."""
        lessons, truths = [], []
        self.record = TeacherRecord()
        for frames, target in batches:
            self.field = (frames.shape[-2], frames.shape[-1])
            lessons.append(self._teacher_density(self.teacher(frames, before=self.before, after=self.after)))
            truths.append(self.true_density(target))
        lesson, truth = torch.cat(lessons), torch.cat(truths)
        if isinstance(self.teacher.output, SRImage):
            gain = float((lesson * truth).sum() / lesson.square().sum().clamp(min=1e-12))
            if gain <= 0:
                raise ValueError(
                    "the teacher's images have nothing in common with the truth; is it trained for this data?"
                )
        else:
            gain = 1.0
        off = (gain * lesson - truth).square()
        errors, windows = off.flatten(1).mean(1), self._windowed(off)
        self.record = TeacherRecord(
            gain=gain,
            error_range=max(float(errors.max() - errors.min()), 1e-12),
            pixel_range=max(float(windows.max() - windows.min()), 1e-12),
            mean_error=float(errors.mean()),
            samples=len(errors),
        )
        return self.record
