"""The whole path: train, compare, export, quantise, report. Each stage reads and leaves a folder."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness.models import load_network, open_model
from harness.quantization import TUNED, Tuning, quantize, training_of
from leaderboard.statistics import Blocks, compare

from .edge import edge_name, edge_rows, pareto, plot_pareto
from .limits import Limits, pick
from .plan import DistillPlan, keep_plan
from .report import write_report
from .stages import Say, export_student, once, score_model, scores_of, test_movie, train_student

SCORE_KEYS = ("efficiency", "jaccard", "rmse_lateral_nm")


def distill(
    plan: DistillPlan,
    folder: Path,
    *,
    limits: Limits | None = None,
    threads: int = 1,
    device: str = "auto",
    progress: bool = True,
    say: Say = print,
) -> Path:
    """Train a student by a teacher, compare it, export it, quantise it, and write a report.

    The folder holds `distill.yaml` (the plan), `distilled-SEED/` and `alone-SEED/` (trainings), `scores/` and
    `edge.json` (of one thread; of more, `edge-THREADS.json`, with 200 MB for data `edge-1-200MB.json`), `teacher/` and
    `student/` (exports, the student's with its smaller forms), `report.md` and `report.png`.
    What is there already is not done again; a training that was stopped goes on.

    Args:
        plan: what to do.
        folder: to write.
        limits: of a small machine; the report and `say` name the best model within them. Memory and processor time are
            measured within its `memory_mb`.
        threads: that time and memory are measured with.
        device: auto, cpu, cuda; of the trainings and the scores.
        progress: show the trainings' bars.
        say: told what happens.

    Returns:
        Path of report.md.

    Raises:
        ValueError: the folder holds another plan, or teacher and student cannot be compared.
        KeyboardInterrupt: Ctrl-C; what is learned is saved first.
    """
    keep_plan(plan, folder)
    memory_mb = limits.memory_mb if limits else None
    models: dict[str, Path | str] = {"teacher": plan.teacher}
    for seed in plan.seeds:
        for kind in ("distilled", *(("alone",) if plan.compare else ())):
            say(f"training the student {'by its teacher' if kind == 'distilled' else 'alone'}, seed {seed}")
            models[f"{kind}-{seed}"] = train_student(
                plan, folder / f"{kind}-{seed}", seed=seed, taught=kind == "distilled", device=device, progress=progress
            )
    movie = test_movie(plan.test, frames=plan.test_frames, size=plan.test_size)
    scores = scores_of(plan, models, folder / "scores", movie, device=device, say=say)
    kept = max((name for name in models if name.startswith("distilled")), key=lambda n: scores[n]["efficiency"])
    say(f"exporting {kept} and the teacher")
    exported = export_student(Path(models[kept]), folder / "student", threshold=scores[kept]["threshold"])
    reference = export_student(Path(plan.teacher), folder / "teacher", threshold=scores["teacher"]["threshold"])
    forms = {"teacher": (reference, "model.onnx"), "student": (exported, "model.onnx")}
    if plan.quantize:
        tuning = None
        if plan.tune_minutes:
            network, card = load_network(models[kept])
            tuning = Tuning(network=network, config=training_of(card), minutes=plan.tune_minutes, progress=progress)
        smaller = _quantized(exported, folder, movie, scores[kept]["threshold"], tuning, say)
        scores |= smaller
        made = [form for form in ("int8", TUNED, "float16") if f"student {form}" in smaller]
        forms |= {f"student {form}": (exported, f"model.{form}.onnx") for form in made}

    def measured() -> dict[str, Any]:
        say(f"measuring time and memory, {threads} thread{'s' if threads > 1 else ''}, interleaved")
        with tempfile.TemporaryDirectory() as scratch:
            return edge_rows(forms, movie.frames, scratch=Path(scratch), threads=threads, memory_mb=memory_mb)

    edge = once(folder / edge_name(threads, memory_mb), measured)
    scores["student"] = scores[kept]
    rows = {name: {**_figures(scores[name]), **edge[name]} for name in edge}
    picked = None if limits is None or limits == Limits() else pick(rows, limits, threads=threads)
    plot_pareto(
        rows,
        folder / "report.png",
        title=f"{Path(plan.teacher).name} -> {plan.model}, {plan.test}",
        threads=threads,
        max_ms=math.inf if limits is None else limits.max_ms,
    )
    comparisons = compared(scores, plan.seeds) if plan.compare else []
    say(f"writing {folder / 'report.md'}")
    if picked is not None:
        say(str(picked))
    return write_report(
        folder / "report.md",
        plan=plan,
        scores=scores,
        rows=rows,
        comparisons=comparisons,
        front=pareto(rows),
        kept=kept,
        threads=threads,
        memory_mb=memory_mb,
        picked=picked,
    )


def _quantized(
    exported: Path, folder: Path, movie: Any, threshold: float, tuning: Tuning | None, say: Say
) -> dict[str, dict[str, Any]]:
    """Scores of the smaller forms of the exported student, made unless they were."""
    found: dict[str, dict[str, Any]] = {}

    def work() -> dict[str, Any]:
        def scored(path: Path) -> dict[str, Any]:
            result = score_model(open_model(path, device="cpu", threads=1), movie, threshold=threshold)
            found[path.name] = result
            return {name: result[name] for name in SCORE_KEYS}

        rows = quantize(exported, scores=scored, tuning=tuning, say=say)
        return {"rows": rows, "scores": {row["form"]: found[row["file"]] for row in rows}}

    kept = once(folder / "scores" / "quantized.json", work)
    return {f"student {form}": result for form, result in kept["scores"].items() if form != "float32"}


def _figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a score for a table, with the efficiency's interval."""
    interval = scores["intervals"]["efficiency"]
    return {
        **{name: scores[name] for name in SCORE_KEYS},
        "efficiency_low": interval["low"],
        "efficiency_high": interval["high"],
    }


def joined(blocks: list[Blocks]) -> Blocks:
    """Blocks of several seeds as those of one longer movie."""
    names = ("tp", "fp", "fn", "lateral_nm2", "axial_nm2")
    whole = {name: np.concatenate([getattr(one, name) for one in blocks]) for name in names}
    return Blocks(**whole, dimensions=blocks[0].dimensions, frames=blocks[0].frames)


def compared(scores: Mapping[str, Mapping[str, Any]], seeds: tuple[int, ...], *, seed: int = 0) -> list[dict[str, Any]]:
    """Distilled against alone, paired by test blocks: each seed, and all seeds together.

    Args:
        scores: with "blocks", by name: "distilled-SEED" and "alone-SEED".
        seeds: of the trainings.
        seed: of the bootstrap.
    """
    pairs = {f"seed {number}": [number] for number in seeds}
    if len(seeds) > 1:
        pairs["all seeds"] = list(seeds)
    rows = []
    for label, numbers in pairs.items():
        blocks = {
            kind: joined([Blocks.from_dict(scores[f"{kind}-{number}"]["blocks"]) for number in numbers])
            for kind in ("distilled", "alone")
        }
        for score in ("efficiency", "jaccard"):
            (one,) = compare(blocks, rng=np.random.default_rng(seed), score=score)
            rows.append({"pair": label, "score": score, **asdict(one)})
    return rows
