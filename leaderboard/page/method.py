"""Words of the page around its tables: what was measured, how, on what, and how to repeat it."""

from typing import Any

from ..ranking import Board
from ..record import Result
from .cells import DASH
from .tables import molecules


def introduction(board: Board) -> str:
    models, datasets = len(board.entries), len(board.conditions)
    return (
        f"{_spelled(models)} {'model reads' if models == 1 else 'models read'} the same frames of blinking "
        f"molecules{f' from {_spelled(datasets).lower()} datasets' if datasets > 1 else ''}. This page "
        "shows how many of the molecules each one finds, how exactly it places them, and how long "
        "it takes."
    )


def _spelled(n: int) -> str:
    names = (
        "No",
        "One",
        "Two",
        "Three",
        "Four",
        "Five",
        "Six",
        "Seven",
        "Eight",
        "Nine",
        "Ten",
        "Eleven",
        "Twelve",
    )
    return names[n] if n < len(names) else f"{n:,}"


def facts(board: Board) -> list[tuple[str, str]]:
    """(what, value) for the line under the headline."""
    total = 0
    for condition in board.conditions:
        total += max((n or 0 for n in molecules(board, condition).values()), default=0)
    dates = sorted({r.when.date().isoformat() for r in board.results if r.date})
    out = [("Models", f"{len(board.entries):,}"), ("Datasets", f"{len(board.conditions):,}")]
    if total:
        out.append(("Molecules", f"{total:,}"))
    if board.engines:
        out.append(("Runtimes", f"{len({board.timed[k].runtime.name for k in board.timed}):,}"))
    if dates:
        out.append(("Measured", dates[0] if len(dates) == 1 else f"{dates[0]} {DASH} {dates[-1]}"))
    return out


def settings(board: Board) -> list[tuple[str, str]]:
    """(setting, values in use) of the scored records."""
    scored = list(board.scored.values())

    def used(read: Any, unit: str = "") -> str:
        values = []
        for result in scored:
            value = read(result.settings)
            text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            if text and text not in values:
                values.append(text)
        return ", ".join(f"{value}{unit}" for value in values)

    rows = [
        ("Matching", used(lambda s: s.rule)),
        ("Tolerance", used(lambda s: s.tolerance_nm, " nm")),
        ("Border left out", used(lambda s: s.border_nm, " nm")),
        ("Weak molecules left out", used(lambda s: None if s.quantile is None else 100 * s.quantile, " %")),
        ("Threshold from", used(lambda s: s.threshold_source)),
        ("Wobble correction", used(lambda s: s.wobble)),
        ("Arithmetic of the scored run", used(lambda s: s.precision)),
    ]
    return [(name, value) for name, value in rows if value]


def environments(board: Board) -> list[list[tuple[str, str]]]:
    """One list of (what, value) for each machine and set of versions in the records."""
    out: list[list[tuple[str, str]]] = []
    names = {
        "machine": "Machine",
        "cpu": "Processor",
        "gpu": "GPU",
        "os": "System",
        "python": "Python",
        "torch": "torch",
        "onnxruntime": "ONNX Runtime",
        "smlm_zoo": "smlm-zoo",
        "commit": "Commit",
    }
    for result in reversed(board.results):
        env = [(label, getattr(result.environment, name)) for name, label in names.items()]
        env = [(label, value) for label, value in env if value]
        if env and env not in out:
            out.append(env)
    return out


def reproduce(board: Board, anchors: dict[str, str]) -> list[dict[str, Any]]:
    """Records grouped by the command that repeats them; every record in use is in one group."""
    cells = (*board.scored.items(), *board.timed.items(), *board.imaged.items())
    used: dict[str, Result] = {r.id: r for _, r in cells}
    label = {result.id: entry for (entry, _), result in cells}
    groups: dict[str, list[Result]] = {}
    for result in used.values():
        groups.setdefault(result.command, []).append(result)
    place = {entry: i for i, entry in enumerate(board.entries)}
    out = []
    for command, members in groups.items():
        members.sort(key=lambda r: (place[label[r.id]], r.dataset.name, r.runtime.name != "torch", r.runtime.name))
        rows = [
            {
                "entry": label[r.id],
                "anchor": anchors[label[r.id]],
                "dataset": r.dataset.name,
                "runtime": r.runtime.name,
                "date": r.date[:10],
                "commit": r.environment.commit[:10],
                "record": r.id,
            }
            for r in members
        ]
        out.append({"command": command, "rows": rows})
    return sorted(out, key=lambda group: (not group["command"], -len(group["rows"])))
