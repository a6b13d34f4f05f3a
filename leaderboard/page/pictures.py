"""Pictures side by side, within a budget, and the raw frames behind failure cases."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ranking import Board
from .cells import DOT, number

MAX_PICTURE_BYTES = 16_000_000
MAX_PAGE_BYTES = 30_000_000
"""All pictures of a page together, as PNG; those beyond are left out, and the page says so."""
_PNG = b"\x89PNG\r\n\x1a\n"
_NOT_MODELS = {"raw": -2, "truth": -1}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of one frame. `model` is a model's name, or "raw" or "truth"; `path` a PNG file.

    A raw picture without others of its frame is drawn behind the failure cases of that frame.
    """

    dataset: str
    model: str
    path: str | Path
    frame: int = 0
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture and its data URI."""

    picture: Picture
    uri: str


def load(items: Sequence[Picture | Mapping[str, Any]]) -> tuple[list[Shown], int]:
    """Read pictures in their order until the page is full.

    Returns:
        The pictures, and how many were left out.

    Raises:
        ValueError: a picture is no PNG or larger than 16 MB.
        OSError: a picture cannot be read.
    """
    shown: list[Shown] = []
    total = left_out = 0
    for item in items:
        try:
            picture = item if isinstance(item, Picture) else Picture(**item)
        except TypeError as error:
            raise ValueError(
                f"picture {item!r} is not understood; expected dataset, model, path and perhaps frame, caption"
            ) from error
        path = Path(picture.path)
        with path.open("rb") as file:
            data = file.read(MAX_PICTURE_BYTES + 1)
        if not data.startswith(_PNG):
            raise ValueError(f"{path} is not a PNG file; save the picture as PNG")
        if len(data) > MAX_PICTURE_BYTES:
            raise ValueError(f"{path} is larger than {MAX_PICTURE_BYTES:,} bytes; save a smaller picture")
        if total + len(data) > MAX_PAGE_BYTES:
            left_out += 1
            continue
        total += len(data)
        shown.append(Shown(picture=picture, uri=f"data:image/png;base64,{base64.b64encode(data).decode()}"))
    return shown, left_out


def backgrounds(pictures: list[Shown]) -> dict[tuple[str, int], str]:
    """(dataset, frame) -> data URI of the raw frame."""
    return {(s.picture.dataset, s.picture.frame): s.uri for s in pictures if s.picture.model == "raw"}


def strips(board: Board, pictures: list[Shown], anchors: dict[str, str]) -> list[dict[str, Any]]:
    """Pictures of one dataset and frame side by side: raw, truth, models by rank, others by name."""
    groups: dict[tuple[str, int], list[Shown]] = {}
    for one in pictures:
        groups.setdefault((one.picture.dataset, one.picture.frame), []).append(one)
    groups = {key: items for key, items in groups.items() if {s.picture.model for s in items} != {"raw"}}
    order = dict(_NOT_MODELS)
    for i, entry in enumerate(board.entries):
        order[entry] = i
        order.setdefault(board.of_entry[entry].model.name, i)
    rank = {condition: i for i, condition in enumerate(board.conditions)}
    shared = Counter(dataset for dataset, _ in groups)
    out = []
    for dataset, frame in sorted(groups, key=lambda g: (rank.get(g[0], len(rank)), g[0], g[1])):
        items = sorted(groups[dataset, frame], key=lambda s: (order.get(s.picture.model, 10**6), s.picture.model))
        out.append(
            {
                "label": f"{dataset} {DOT} frame {frame}" if shared[dataset] > 1 else dataset,
                "dataset": dataset,
                "frame": frame,
                "items": [
                    {
                        "model": s.picture.model,
                        "caption": s.picture.caption,
                        "uri": s.uri,
                        "score": _score(board, s.picture),
                        "own": s.picture.model not in _NOT_MODELS,
                        "anchor": anchors.get(s.picture.model, ""),
                    }
                    for s in items
                ],
            }
        )
    return out


def _score(board: Board, picture: Picture) -> str:
    value = board.score(picture.model, picture.dataset)
    return "" if value != value else f"E {number(value).text}"
