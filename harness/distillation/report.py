"""The report of a distillation: one Markdown page beside its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.devices import describe_machine
from harness.io.atomic import atomic_path
from harness.io.json_files import write_json

from .edge import edge_name
from .limits import Choice
from .plan import DistillPlan


def write_report(
    path: Path,
    *,
    plan: DistillPlan,
    scores: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    front: Sequence[str],
    kept: str,
    threads: int = 1,
    memory_mb: float | None = None,
    picked: Choice | None = None,
) -> Path:
    """Write the page.

    Args:
        path: report.md; `report.png` lies beside it.
        plan: what was done.
        scores: of every model. rows: figures of the forms that were timed.
        comparisons: distilled against alone, paired. front: names that none beats.
        kept: which training was exported.
        threads: that time and memory were measured with.
        picked: what the limits of a small machine leave.
    """
    machine = describe_machine()
    options = ", ".join(f"{key}={value}" for key, value in plan.options.items())
    lines = [
        f"# {plan.teacher} teaches {plan.model}{f' ({options})' if options else ''}",
        "",
        f"Frames of `{plan.recipe}`; {_teaching(plan)}. Tested on `{plan.test}`, {plan.test_frames} frames of "
        f"{plan.test_size[1]}x{plan.test_size[0]} pixels, {scores['teacher']['molecules']} molecules. Thresholds were "
        f"found on {plan.validation_movies} validation movies, the same for all. The best distilled training was "
        f"exported: `{kept}`.",
        "",
        "## Scores",
        "",
        "| model | efficiency (95 % interval) | Jaccard | RMSE, nm |",
        "|---|---|--:|--:|",
    ]
    for name, one in scores.items():
        if name == "student":
            continue
        interval = one["intervals"]["efficiency"]
        ends = "" if interval["low"] is None else f" ({interval['low']:.1f} to {interval['high']:.1f})"
        rmse = "" if one["rmse_lateral_nm"] is None else f"{one['rmse_lateral_nm']:.1f}"
        lines.append(f"| {name} | {one['efficiency']:.1f}{ends} | {one['jaccard']:.1f} | {rmse} |")
    if comparisons:
        lines += [
            "",
            "## Taught or alone",
            "",
            "The same student with the same budget, differences on the same blocks of frames (paired bootstrap):",
            "",
            "| trainings | score | distilled - alone | 95 % interval | told apart |",
            "|---|---|--:|---|---|",
        ]
        for one in comparisons:
            lines.append(
                f"| {one['pair']} | {one['score']} | {one['delta']:+.2f} | {one['low']:+.2f} to {one['high']:+.2f} | "
                f"{one['better'] or 'no'} |"
            )
    lines += [
        "",
        "## On a small machine",
        "",
        f"{'One thread' if threads == 1 else f'{threads} threads'}, ONNX Runtime, all forms interleaved; memory and "
        "processor time are those of the whole program that localizes a movie"
        + ("." if memory_mb is None else f", with {memory_mb:g} MB for its data and one frame at a time."),
        "",
        "| form | efficiency | of the teacher's | ms per 64x64 frame | of the teacher's | frames/s | file, MB | "
        "peak memory, MB | CPU s per 1000 frames |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    teacher = rows["teacher"]
    for name, row in rows.items():
        share = f"{row['efficiency'] / teacher['efficiency']:.1%}" if teacher["efficiency"] > 0 else ""
        lines.append(
            f"| {name}{' *' if name in front else ''} | {row['efficiency']:.1f} | {share} | {row['ms']:.2f} | "
            f"{row['ms'] / teacher['ms']:.1%} | {row['frames_per_second']:.1f} | {row['mb']:.3f} | "
            f"{row['peak_mb']:.0f}{'' if row.get('fits', True) else ' (too much)'} | {row['cpu_s_per_1000']:.1f} |"
        )
    lines += [
        "",
        "\\* no other form is both faster and better. ![Efficiency over time](report.png)",
        "",
        *([f"**{str(picked)[0].upper()}{str(picked)[1:]}.**", ""] if picked is not None else []),
        enough(rows),
        "",
        f"Machine: {machine['cpu']}, {machine['system']}. Figures: `scores/*.json`, `{edge_name(threads, memory_mb)}`; "
        "plan: `distill.yaml`.",
        "",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    document = {
        "rows": rows,
        "comparisons": list(comparisons),
        "front": list(front),
        "threads": threads,
        "memory_mb": memory_mb,
        "limits": None if picked is None else picked.limits.given(),
        "best_within_limits": None if picked is None else picked.best,
    }
    write_json(path.with_suffix(".json"), document)
    return path


def enough(rows: Mapping[str, Mapping[str, Any]], *, keep: float = 0.95, time: float = 0.1) -> str:
    """Whether a form keeps 95 % of the teacher's efficiency at a tenth of its time; else what comes nearest."""
    teacher = rows["teacher"]
    if teacher["efficiency"] <= 0:
        return "The teacher finds nothing here that a student could keep."
    shares = {
        name: (row["efficiency"] / teacher["efficiency"], row["ms"] / teacher["ms"])
        for name, row in rows.items()
        if name != "teacher"
    }
    # By how much each misses the harder of its two aims; 1 or more: neither is missed.
    name = max(shares, key=lambda name: min(shares[name][0] / keep, time / shares[name][1]))
    score, spent = shares[name]
    missed = [*(["accuracy"] if score < keep else []), *(["time"] if spent > time else [])]
    aim = f"{keep:.0%} of the teacher at {time:.0%} of its time"
    verdict = f"short in {' and '.join(missed)}" if missed else "what was aimed at"
    return f"Nearest to {aim}: {name}, {score:.1%} at {spent:.1%} ({verdict})."


def _teaching(plan: DistillPlan) -> str:
    """How it was taught, in words."""
    words = [f"mode {plan.mode}, truth {plan.alpha:g}", f"confidence by {plan.confidence}"]
    if plan.hints:
        pairs = ", ".join(f"{theirs} -> {own}" for theirs, own in plan.hints)
        words.append(f"hints {pairs}, {plan.hint_steps} steps of them first")
    if plan.movie:
        words.append(f"{plan.unlabelled_share:.0%} of the batches from {Path(plan.movie).name}, without a truth")
    budget = (
        f"{plan.minutes:g} minutes" if plan.minutes else f"{plan.steps} steps" if plan.steps else "its recipe's budget"
    )
    return f"{'; '.join(words)}; each training had {budget}"
