"""Times of every form of a model, each in a process of its own, in turns; as tables; and how well they repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import zoo
from harness.forms import Form, forms_of, kept_source
from harness.models import load_network, receptive_field
from harness.timing_figures import NOISY_BEYOND, FormTimes, as_one_run, relative_difference, speed_ranks
from harness.timing_process import TimingPlan, Turn, start, take_movie, take_turn, timed_movie
from harness.workers import Worker


def time_model(
    forms: Sequence[Form], plan: TimingPlan, *, step: Callable[[str], None] = lambda text: None
) -> dict[str, FormTimes]:
    """Time the forms of one model, each in its own process, which has the machine to itself in its turn.

    They start one after the other: load, first call, calls until the times are stable (`warm_up`), memory, best batch.
    Then they take turns (A B C A B C ...) of `plan.seconds / plan.rounds`. At the end each turns a movie file into a
    table.

    Args:
        forms: from `harness.forms.forms_of`.
        plan: how long.
        step: told what is done now.

    Raises:
        WorkerLost: a process was killed.
    """
    workers = {form.name: Worker(threads=plan.threads) for form in forms}
    try:
        opened = {}
        for form in forms:
            step(f"{form.name}: warming up")
            opened[form.name] = workers[form.name].call(start, form, plan)
        turns = {form.name: list[Turn]() for form in forms}
        movies = dict[str, float | None].fromkeys(workers)
        for number in range(plan.rounds):
            for name, worker in workers.items():
                step(f"{name}: round {number + 1} of {plan.rounds}")
                turns[name].append(worker.call(take_turn, plan.seconds / plan.rounds))
        if plan.movie_frames:
            movie = timed_movie(plan.size, plan.movie_frames)
            for name, worker in workers.items():
                step(f"{name}: from movie file to table")
                movies[name] = worker.call(take_movie, plan.seconds / 2, movie)
    finally:
        for worker in workers.values():
            worker.close()
    return {
        name: FormTimes(form=name, opened=opened[name], turns=tuple(turns[name]), movie=movies[name])
        for name in workers
    }


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """One model: what it is, and the times of its forms."""

    source: str
    size: int
    parameters: int | None
    macs: int | None
    receptive_field_px: float | None
    file_bytes: int
    forms: dict[str, FormTimes]

    def to_dict(self, *, price_per_hour: float | None = None) -> dict[str, Any]:
        """Plain numbers: of each form what really ran it, and the section that a record holds."""
        return {
            **{key: value for key, value in vars(self).items() if key != "forms"},
            "forms": {
                name: {
                    "runtime": asdict(times.info),
                    "warm_up_calls": times.opened.warm_calls,
                    "warm_up_stable": times.opened.stable,
                    "timing": self.section(name, price_per_hour=price_per_hour).to_dict(),
                }
                for name, times in self.forms.items()
            },
        }

    def section(self, form: str, *, price_per_hour: float | None = None) -> Any:
        """The timing section of a form's record."""
        return self.forms[form].section(size=self.size, macs=self.macs, price_per_hour=price_per_hour)


def time_source(
    source: str, plan: TimingPlan, *, device: str = "auto", step: Callable[[str], None] = lambda text: None
) -> ModelTimes:
    """Time a model in every form that runs here.

    Args:
        source: a shipped model, a name of the zoo (without shipped weights: random ones, and no movie), a folder, or an
            ONNX file.
        plan: how long.
        device: auto, cpu, cuda.
        step: told what is done now.

    Raises:
        ValueError: no such model.
    """
    with tempfile.TemporaryDirectory() as folder:
        step(f"{source}: exporting")
        kept = kept_source(source, Path(folder))
        file = Path(kept) if kept.endswith(".onnx") else Path(folder) / "model.onnx"
        forms = forms_of(kept, file, device=device)
        network = None if kept.endswith(".onnx") else load_network(kept)[0]
        times = time_model(forms, plan, step=lambda text: step(f"{source}, {text}"))
        return ModelTimes(
            source=source,
            size=plan.size,
            parameters=None if network is None else zoo.count_parameters(network),
            macs=None if network is None else zoo.count_macs(network, plan.size, plan.size).done,
            receptive_field_px=None if network is None else receptive_field(network),
            file_bytes=file.stat().st_size,
            forms=times,
        )


def compared(models: Sequence[ModelTimes]) -> list[ModelTimes]:
    """The models as one run: times beside which the machine was unusually fast or slow are noisy."""
    forms = as_one_run([model.forms for model in models])
    return [replace(model, forms=own) for model, own in zip(models, forms, strict=True)]


def latency_rows(models: Sequence[ModelTimes]) -> list[dict[str, Any]]:
    """A table of one frame at a time, network only; noisy rows have no rank."""
    every = [(model, times) for model in models for times in model.forms.values()]
    ranks = speed_ranks([times for _, times in every])
    rows = []
    for (model, times), rank in zip(every, ranks, strict=True):
        t = model.section(times.form)
        rows.append(
            {
                "model": model.source,
                "form": times.form,
                "provider": times.info.provider,
                "threads": times.info.threads,
                "ms p50": f"{t.ms_p50:.2f}",
                "p90": f"{t.ms_p90:.2f}",
                "p99": f"{t.ms_p99:.2f}",
                "calls": t.repeats,
                "halves differ": f"{100 * times.spread:.1f} %",
                "machine, GFLOP/s": f"{t.machine_gflops:.0f}",
                "first call, ms": f"{t.first_call_ms:.0f}",
                "memory, MB": _shown(t.peak_memory_mb, ".0f"),
                "rank": "noisy" if rank is None else rank,
            }
        )
    return rows


def throughput_rows(models: Sequence[ModelTimes], *, price_per_hour: float | None = None) -> list[dict[str, Any]]:
    """A table of the best batch, network only; the time from file to table; and what a million frames cost."""
    rows = []
    for model in models:
        for times in model.forms.values():
            t = model.section(times.form, price_per_hour=price_per_hour)
            row = {
                "model": model.source,
                "form": times.form,
                "best batch": t.best_batch,
                "frames/s": f"{t.best_frames_per_second:.1f}",
                "Mpixel/s": f"{t.megapixels_per_second:.3f}",
                "GFLOP/s": _shown(t.gflops, ".1f"),
                "of peak": "" if t.peak_share is None else f"{100 * t.peak_share:.0f} % of {t.peak_gflops:.0f}",
                "file to table, frames/s": _shown(t.movie_frames_per_second, ".1f"),
                "CPU s / 1000 frames": f"{t.cpu_seconds_per_1000_frames:.1f}",
                "hours / million": f"{t.hours_per_million_frames:.2f}",
            }
            if price_per_hour is not None:
                row["cost / million"] = f"{t.cost_per_million_frames:.2f}"
            rows.append(row)
    return rows


def model_rows(models: Iterable[ModelTimes]) -> list[dict[str, Any]]:
    """A table of what the models are."""
    return [
        {
            "model": model.source,
            "parameters": _shown(model.parameters, ","),
            f"GMAC per {model.size}x{model.size} frame": _shown(model.macs and model.macs / 1e9, ".2f"),
            "field of view, px": _shown(model.receptive_field_px, ".3g"),
            "ONNX file, MB": f"{model.file_bytes / 1e6:.2f}",
        }
        for model in models
    ]


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def repeat_rows(first: Sequence[ModelTimes], second: Sequence[ModelTimes]) -> tuple[list[dict[str, Any]], int]:
    """Two runs of the same command side by side, compared as one.

    Returns:
        A row for each form, and the number of forms whose medians differ by less than 10 % or that either run marked
        as noisy: those that the rule for rankings leaves right.
    """
    rows, right = [], 0
    both = compared([*first, *second])
    for one, other in zip(both[: len(first)], both[len(first) :], strict=True):
        for name, times in one.forms.items():
            again = other.forms[name]
            differ = relative_difference(times.median, again.median)
            noisy = times.noisy or again.noisy
            right += differ < NOISY_BEYOND or noisy
            verdict = "noisy" if noisy else "repeats" if differ < NOISY_BEYOND else "DIFFERS"
            rows.append(
                {
                    "model": one.source,
                    "form": name,
                    "first, ms": f"{1e3 * times.median:.2f}",
                    "second, ms": f"{1e3 * again.median:.2f}",
                    "differ": f"{100 * differ:.1f} %",
                    "halves differ": f"{100 * times.spread:.1f} % / {100 * again.spread:.1f} %",
                    "machine, GFLOP/s": f"{times.machine / 1e9:.0f} / {again.machine / 1e9:.0f}",
                    "": verdict,
                }
            )
    return rows, right
