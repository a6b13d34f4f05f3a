"""One offline web page: `index.html` with its style, script, plotly and pictures inside.

Every text from a record passes Jinja2's autoescape; the page's content security policy allows only the page's
own script and plotly (by their SHA-256) and no network, so nothing in a record can run or call out.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from .._files import write_whole
from ..ranking import make_board
from ..record import Result
from . import method
from .cells import count
from .charts import charts
from .models import anchors_of, model_pages
from .pictures import MAX_PAGE_BYTES, MAX_PICTURE_BYTES, Picture, backgrounds, load, strips
from .tables import sections

__all__ = ["MAX_PAGE_BYTES", "MAX_PICTURE_BYTES", "TITLE", "Picture", "build_page"]

TITLE = "Single-molecule localization leaderboard"
SCRIPTS = ("page.js", "pictures.js", "charts.js")


def build_page(
    results: Iterable[Result],
    output_folder: str | Path,
    *,
    pictures: Sequence[Picture | Mapping[str, Any]] = (),
    title: str = TITLE,
    notes: str = "",
) -> Path:
    """Write `index.html`: about 5 MB, and at most 30 MB of pictures. It needs no other file and no network.

    Args:
        results: records, at least one.
        output_folder: made if it is not there.
        pictures: `Picture` or mappings with its fields. Those with the same dataset and frame stand side by
            side: raw, truth, then models in the order of the ranking. Models are named as in the tables. A raw picture
            alone in its frame is drawn behind the failure cases of that frame.
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
    anchors = anchors_of(board)
    shown, left_out = load(pictures)
    pages, raw = model_pages(board, anchors, backgrounds(shown))
    drawn = charts(board)
    return render(
        "page.html.j2",
        Path(output_folder) / "index.html",
        scripts=SCRIPTS,
        plotly=drawn is not None,
        title=title,
        notes=notes,
        intro=method.introduction(board),
        facts=method.facts(board),
        sections=sections(board, anchors),
        chart=drawn,
        strips=strips(board, shown, anchors),
        left_out=left_out,
        most_pictures=f"{MAX_PAGE_BYTES / 1e6:g} MB",
        pages=pages,
        raw=raw,
        settings=method.settings(board),
        environments=method.environments(board),
        reproduce=method.reproduce(board, anchors),
        records=count(len(results), "record"),
    )


def render(template: str, path: Path, *, scripts: Sequence[str], plotly: bool, **values: Any) -> Path:
    """Fill a template of this folder and write it, with style, scripts and the policy that lets only them run.

    Args:
        template: its file name.
        path: of the page.
        scripts: files of this folder, run in this order as one script.
        plotly: whether the page needs it.
        values: what the template names.
    """
    script = "\n".join(map(_text, scripts))
    library = _plotly() if plotly else ""
    html = (
        _environment()
        .get_template(template)
        .render(
            style=Markup(_text("page.css")),
            script=Markup(script),
            plotly=Markup(library),
            policy=_policy(script, library),
            **values,
        )
    )
    return write_whole(path, html)


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
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
