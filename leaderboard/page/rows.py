"""Rows of models, with what a reader must know of a model before comparing it."""

from ..ranking import Board
from .cells import Cell, Mark, Row, count


def marks(board: Board, entry: str, condition: str | None = None) -> list[Mark]:
    """What a reader must know of a model before comparing it: baseline, frames it sees, suspicious results.

    Args:
        condition: flags of this test only; None: of all.
    """
    model = board.of_entry[entry].model
    out = []
    if model.baseline:
        out.append(Mark(text="baseline", help="no model, but what any model is to be compared with"))
    if model.context_frames is not None and model.context_frames > 1:
        out.append(
            Mark(
                text=count(model.context_frames, "frame"),
                help="sees several consecutive frames at a time: more information than a single frame holds",
            )
        )
    flags = [
        f"{at}: {r.detail.flags}" if condition is None else r.detail.flags
        for (e, at), r in board.scored.items()
        if e == entry and condition in (None, at) and r.detail is not None and r.detail.flags
    ]
    if flags:
        out.append(Mark(text="check", help="\n".join(flags)[:2000], warning=True))
    return out


def make_row(board: Board, anchors: dict[str, str], entry: str, cells: list[Cell], condition: str | None = None) -> Row:
    """A row of a table of models."""
    return Row(
        entry=entry,
        color=board.colors[entry],
        cells=cells,
        anchor=anchors.get(entry, ""),
        marks=marks(board, entry, condition),
        ranked=not board.of_entry[entry].model.baseline,
    )
