"""smlm-zoo distill"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ._limits import LimitOptions, SmallMachine
from ._shared import CameraOptions, OptionalOutput, Plugins, load_plugins, parse_options


@dataclass(frozen=True)
class Distill:
    """Train a small student by a large teacher; compare it, export it, quantise it, and write a report.

    Finished stages are not repeated: give the same command again to go on after a stop. With limits (--max-mb,
    --max-ms, --max-peak-mb, --memory-mb) the best model within them is named; `smlm-zoo pick` asks a finished folder
    for others. Examples:

        smlm-zoo distill fid_storm fid-dsir-size --minutes 10 --compare -o runs/small
        smlm-zoo distill decode compact-48 --seeds 1 2 3 --compare -o runs/compact
        smlm-zoo distill drl_storm fid-5 --hint core.first.up3=core.body --hint-steps 300
        smlm-zoo distill fid_storm fid-dsir-size -o runs/small --max-mb 5 --max-ms 20 --threads 1
        smlm-zoo distill decode fid-5 --data cells.tif --camera.pixel-size-nm 100 --camera.baseline 100
    """

    teacher: Annotated[str, tyro.conf.Positional]
    """A shipped model, or a folder written by train or import."""
    student: Annotated[str, tyro.conf.Positional]
    """A student (see `smlm-zoo students`), or a model of the zoo with --option."""
    output: OptionalOutput = None
    """Folder; default: smlm-zoo-distill-TEACHER-STUDENT."""
    data: str = "epfl-2d"
    """A recipe (simulated frames with a truth), or a TIFF movie without one, taught by the teacher alone."""
    unlabelled: Path | None = None
    """A movie without a truth to mix in, beside a recipe."""
    unlabelled_share: float = 0.25
    """Share of the batches from it."""
    camera: CameraOptions = field(default_factory=CameraOptions)
    """How that movie was recorded."""
    option: tuple[str, ...] = ()
    """Further options of the student's model, key=value."""
    mode: Literal["attentive", "sum", "minimum", "bound"] = "attentive"
    """How truth and teacher are put together."""
    alpha: float = 0.5
    """Weight of the truth, 0..1; the rest is the teacher's."""
    confidence: Literal["sample", "pixel", "none"] = "sample"
    """What the trust in the teacher is asked of."""
    hint: tuple[str, ...] = ()
    """Pairs of layers, teacher=student, e.g. core.first.up3=core.body."""
    hint_steps: int = 0
    """Steps that learn the hints alone, first; the layers they teach then stay as they are."""
    steps: int | None = None
    """Steps of each training."""
    minutes: float | None = None
    """Minutes of each training."""
    training: tuple[str, ...] = ()
    """Further settings of the training, key=value, e.g. size=24 batch_size=8."""
    seeds: tuple[int, ...] = (1,)
    """A training for each."""
    compare: bool = False
    """Train the same student alone with the same budget, too."""
    test: str = "tubes-2d-hd"
    """Recipe of the test movie."""
    test_frames: int = 200
    """Its frames."""
    quantize: bool = True
    """Also make int8 and half-precision files."""
    tune_minutes: float = 3.0
    """Fine-tuning of the student's weights for int8, where static int8 loses more than 1 point of Jaccard; 0: none."""
    machine: SmallMachine = field(default_factory=LimitOptions)
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from distill import find_student
        from harness.distillation import DistillPlan, distill

        load_plugins(self.plugin)
        student = find_student(self.student)
        folder = self.output or Path(f"smlm-zoo-distill-{Path(self.teacher).name}-{self.student}")
        recipe, movie, share = self.data, self.unlabelled, self.unlabelled_share
        if Path(self.data).suffix.lower() in {".tif", ".tiff"} or Path(self.data).is_dir():
            if movie is not None:
                raise ValueError("--data names a movie already; give --unlabelled beside a recipe only")
            recipe, movie, share = "epfl-2d", Path(self.data), 1.0
        pairs = []
        for words in self.hint:
            theirs, separator, own = words.partition("=")
            if not (theirs and separator and own):
                raise ValueError(f"hint {words!r} is not teacher=student, e.g. core.first.up3=core.body")
            pairs.append((theirs, own))
        plan = DistillPlan(
            teacher=self.teacher,
            model=student.model,
            options={**student.options, **parse_options(self.option)},
            recipe=recipe,
            movie=None if movie is None else str(movie),
            camera=None if movie is None else self.camera.camera(movie).model_dump(mode="json"),
            unlabelled_share=0.0 if movie is None else share,
            mode=self.mode,
            alpha=self.alpha,
            confidence=self.confidence,
            hints=tuple(pairs),
            hint_steps=self.hint_steps,
            steps=self.steps,
            minutes=self.minutes,
            training=parse_options(self.training),
            seeds=self.seeds,
            compare=self.compare,
            test=self.test,
            test_frames=self.test_frames,
            quantize=self.quantize,
            tune_minutes=self.tune_minutes,
        )
        try:
            report = distill(
                plan, folder, limits=self.machine.limits(), threads=self.machine.threads, device=self.device
            )
        except KeyboardInterrupt:
            print(f"stopped and saved; give the same command again to go on in {folder}")
            return 130
        print(report)
        return 0
