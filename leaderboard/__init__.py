"""Result records -> tables, plots and one offline web page.

Imports none of the project's other packages and no torch. `leaderboard.record` needs the standard library
only; pandas, seaborn and Jinja2 are loaded when a table, a plot or the page is asked for.

    results = read_results("results/")          # one JSON file per (weights, dataset, runtime, machine)
    write_all(results, "board/")                # results.csv, leaderboard.md, *.png, index.html
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .record import (
    Agreement,
    Dataset,
    Detail,
    Environment,
    Model,
    RecordError,
    Result,
    Runtime,
    Scores,
    Settings,
    Timing,
    read_results,
    shipped_results,
    write_result,
)

if TYPE_CHECKING:
    from .board import write_all
    from .comparison import Paired, compare
    from .page import Picture, build_page
    from .page.comparison import build_comparison
    from .table import results_frame, summary, to_csv, to_markdown

_LAZY = {
    "write_all": "board",
    "Paired": "comparison",
    "compare": "comparison",
    "build_comparison": "page.comparison",
    "Picture": "page",
    "build_page": "page",
    "results_frame": "table",
    "summary": "table",
    "to_csv": "table",
    "to_markdown": "table",
}

__all__ = [
    "Agreement",
    "Dataset",
    "Detail",
    "Environment",
    "Model",
    "Paired",
    "Picture",
    "RecordError",
    "Result",
    "Runtime",
    "Scores",
    "Settings",
    "Timing",
    "build_comparison",
    "build_page",
    "compare",
    "read_results",
    "results_frame",
    "shipped_results",
    "summary",
    "to_csv",
    "to_markdown",
    "write_all",
    "write_result",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
