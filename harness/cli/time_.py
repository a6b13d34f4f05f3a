"""smlm-zoo time"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins, print_table

if TYPE_CHECKING:
    from harness.timing_forms import ModelTimes
    from harness.timing_process import TimingPlan


@dataclass(frozen=True)
class Time:
    """Time models in every form that runs here: PyTorch float32 and bfloat16, ONNX Runtime, int8, OpenVINO, GPUs.

    Each form has a process of its own with a fixed number of threads, is warmed up until its times are stable (medians
    of three calls and of the three before within 5 %), and takes turns with the others. Network only: one 64x64 frame
    at a time, then the batch of largest throughput, with its share of the machine's peak (a matrix multiplication).
    Then from movie file to table file. A form is noisy and gets no rank where its two halves differ by more than 10 %,
    or where the matrix multiplication beside it ran by so much faster or slower than beside most others.
    """

    model: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Shipped models, names in the zoo, folders or ONNX files; default: every model of the zoo."""
    output: OptionalOutput = None
    """JSON file for everything that was measured."""
    repeat_check: bool = False
    """Do everything twice and show how far the two runs differ; ends with an error if the rule of 10 % fails."""
    train: bool = False
    """Time the training step instead: plain float32 against bfloat16 in channels-last, with GFLOP/s."""
    movie: bool = False
    """Time DECODE from movie file to table instead: as its program does it against our forms, with scores."""
    batch: int | None = None
    """With --train: frames in the batch; default 1 (DECODE: 64 windows)."""
    largest_batch: int = 64
    """Largest batch that is tried; 1: none but single frames."""
    size: int | None = None
    """Side of a frame, camera pixels; default 64 (training step of DECODE: 40)."""
    frames: int = 1000
    """Longest movie from file to table; 0: none."""
    seconds: float = 5.0
    """Time of the calls of one form."""
    rounds: int = 6
    """Turns of each form; even."""
    threads: int | None = None
    """Threads of every form; default: as many as PyTorch takes."""
    price_per_hour: float | None = None
    """What an hour of this machine costs, in any currency, to show what a million frames cost."""
    device: str = "auto"
    """auto, cpu, cuda."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        load_plugins(self.plugin)
        if self.movie or self.train:
            return self._compare()
        import torch

        import zoo
        from harness.environment import environment
        from harness.timing_forms import compared, latency_rows, model_rows, repeat_rows, throughput_rows
        from harness.timing_process import TimingPlan

        plan = TimingPlan(
            threads=self.threads or torch.get_num_threads(),
            size=self.size or 64,
            seconds=self.seconds,
            rounds=self.rounds,
            largest_batch=self.largest_batch,
            movie_frames=self.frames,
        )
        names = self.model or tuple(zoo.list_models())
        models = compared(self._measure(names, plan))
        print_table(latency_rows(models), title="One frame at a time, network only")
        throughput = throughput_rows(models, price_per_hour=self.price_per_hour)
        print_table(throughput, title="Best batch, network only; from movie file to table; cost")
        print_table(model_rows(models), title="Models")
        if self.output is not None:
            from harness.io.json_files import write_json

            runs = [model.to_dict(price_per_hour=self.price_per_hour) for model in models]
            document = {"environment": environment(), "plan": vars(plan), "models": runs}
            write_json(self.output, document)
        if not self.repeat_check:
            return 0
        rows, right = repeat_rows(models, self._measure(names, plan))
        print_table(rows, title="Two runs")
        print(f"{right} of {len(rows)} rows differ by less than 10 % or are marked noisy")
        return 0 if right >= 0.8 * len(rows) else 1

    def _measure(self, names: tuple[str, ...], plan: "TimingPlan") -> "list[ModelTimes]":
        from rich.console import Console

        from harness.timing_forms import time_source

        with Console(stderr=True).status("starting") as status:
            return [time_source(name, plan, device=self.device, step=status.update) for name in names]

    def _compare(self) -> int:
        import zoo
        from harness.timing import time_training
        from harness.timing_maps import time_movie_to_table

        if self.movie:
            for name in self.model or ("decode",):
                print_table(time_movie_to_table(name, frames=self.frames, size=self.size or 64))
            return 0
        shape = {key: value for key, value in (("batch", self.batch), ("size", self.size)) if value is not None}
        rows = []
        for name in self.model or zoo.list_models():
            rows += time_training(name, seconds=self.seconds, device=self.device, **shape)
        print_table(rows)
        return 0
