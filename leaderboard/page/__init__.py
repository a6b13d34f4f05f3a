"""One offline web page: `index.html` with its style, script, plotly and pictures inside.

Every text from a record passes Jinja2's autoescape; the page's content security policy allows only the page's
own script and plotly (by their SHA-256) and no network, so nothing in a record can run or call out.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from .._files import write_whole
from ..record import Result
from ..table import make_board
from . import content

TITLE = "Single-molecule localization leaderboard"
MAX_PICTURE_BYTES = 16_000_000
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of one frame. `model` is a model's name, or "raw" or "truth"; `path` a PNG file."""

    dataset: str
    model: str
    path: str | Path
    frame: int = 0
    caption: str = ""


def build_page(
    results: Iterable[Result],
    output_folder: str | Path,
    *,
    pictures: Sequence[Picture | Mapping[str, Any]] = (),
    title: str = TITLE,
    notes: str = "",
) -> Path:
    """Write `index.html` (about 5 MB plus the pictures); it needs no other file and no network.

    Args:
        results: records, at least one.
        output_folder: made if it is not there.
        pictures: `Picture` or mappings with its fields. Those with the same dataset and frame stand side by
            side: raw, truth, then models in the order of the ranking. Models are named as in the tables.
        title: headline.
        notes: a paragraph under the introduction, plain text.

    Returns:
        Path of index.html.

    Raises:
        ValueError: no records, or a picture is no PNG or larger than 16 MB.
        OSError: a picture cannot be read or the folder cannot be written.
    """
    results = list(results)
    if not results:
        raise ValueError("there are no records to show; run `smlm-zoo leaderboard` or give a folder of records")
    board = make_board(results)
    script = _text("page.js")
    plotly = _plotly() if board.timed else ""
    html = _template().render(
        title=title,
        notes=notes,
        intro=content.introduction(board),
        facts=content.facts(board),
        tables=content.tables(board),
        chart=content.chart(board),
        strips=content.strips(board, [_loaded(item) for item in pictures]),
        settings=content.settings(board),
        environments=content.environments(board),
        reproduce=content.reproduce(board),
        records=content.count(len(results), "record"),
        style=Markup(_text("page.css")),
        script=Markup(script),
        plotly=Markup(plotly),
        policy=_policy(script, plotly),
    )
    return write_whole(Path(output_folder) / "index.html", html)


def _loaded(item: Picture | Mapping[str, Any]) -> tuple[Picture, str]:
    """The picture and its data URI."""
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
    return picture, f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _policy(*scripts: str) -> str:
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts if s]
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {' '.join(hashes)}; "
        "base-uri 'none'; form-action 'none'"
    )


@lru_cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _text(name: str) -> str:
    return (resources.files(__package__ or "leaderboard.page") / name).read_text(encoding="utf-8").replace("\r\n", "\n")


@lru_cache
def _template() -> Any:
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
