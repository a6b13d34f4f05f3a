"""The page that shows a movie beside its simulated likeness: one HTML file that needs no other and no network."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from .compare import Row, compare
from .estimate import Estimate, chosen

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; }
td { text-align: right; font-variant-numeric: tabular-nums; } td:first-child, th:first-child { text-align: left; }
tr.differs td, .warning { background: #fdecea; } .warning { padding: .6em 1em; border-left: 4px solid #c62828; }
.fine { background: #eaf5ea; padding: .6em 1em; border-left: 4px solid #2e7d32; } img { max-width: 100%; }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; }
</style></head><body>
<h1>{{ title }}</h1>
<p>Left or blue the movie, right or orange a movie simulated from the estimated recipe, found and fitted in the same
way. {{ frames }} frames of the movie were looked at, {{ spots }} spots fitted, {{ alone }} of them stand alone.</p>
{% if different %}
<p class="warning">The simulated movie differs from the real one beyond the limit in:
{{ different | join("; ") }}. Look at the pictures before you train on the recipe.</p>
{% else %}
<p class="fine">All statistics agree within their limits.</p>
{% endif %}
{% for note in notes %}<p>{{ note }}</p>
{% endfor %}
<img alt="Frames of the movie and of the simulated one" src="{{ pictures.frames }}">
<img alt="Histograms" src="{{ pictures.histograms }}">
<table><tr><th>statistic</th><th>real</th><th>simulated</th><th>difference</th><th>limit</th></tr>
{% for row in rows %}
<tr{% if row.differs %} class="differs"{% endif %}><td>{{ row.name }}</td><td>{{ number(row.real) }}</td>
<td>{{ number(row.simulated) }}</td><td>{{ percent(row.difference) }}</td><td>{{ "%.0f %%" | format(100 * row.limit) }}
</td></tr>
{% endfor %}</table>
<img alt="Background over field and time{{ ', camera' if camera else '' }}" src="{{ pictures.background }}">
<h2>Recipe</h2><pre>{{ recipe }}</pre>
<h2>Training recipe</h2><pre>{{ training }}</pre>
</body></html>
"""


def build_page(estimate: Estimate, *, title: str) -> str:
    """The whole page as text.

    Args:
        estimate: from `estimate`.
        title: headline; may hold anything, it is escaped.
    """
    rows = compare(estimate)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_PAGE).render(
        title=title,
        frames=estimate.real.frames,
        spots=len(estimate.real.isolated),
        alone=int(estimate.real.isolated.sum()),
        different=[_told(row) for row in rows if row.differs],
        notes=estimate.notes,
        rows=rows,
        number=lambda value: f"{value:.4g}",
        percent=lambda value: "" if np.isnan(value) else f"{100 * value:+.0f} %",
        camera=estimate.transfer is not None,
        recipe=_short(estimate.recipe.to_yaml()),
        training=_short(estimate.training.to_yaml()),
        pictures={"frames": _frames(estimate), "histograms": _histograms(estimate), "background": _places(estimate)},
    )


def _told(row: Row) -> str:
    return f"{row.name}, {row.real:.3g} real, {row.simulated:.3g} simulated"


def _short(text: str) -> str:
    """Without the maps of a sensor."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("- ") or len(line) < 40]
    return "\n".join(lines if len(lines) < 200 else [*lines[:200], "..."])


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _uri(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _frames(estimate: Estimate) -> str:
    """Two frames of each, on one scale of brightness."""
    pairs = [seen.pair[:, :128, :128] for seen in (estimate.real, estimate.simulated)]
    low, high = np.quantile(np.concatenate([pair.ravel() for pair in pairs]), [0.01, 0.999])
    count = max(len(pair) for pair in pairs)
    figure = _figure((12, 12.6 / (2 * count) * (pairs[0].shape[1] / pairs[0].shape[2]) + 0.5))
    axes = figure.subplots(1, 2 * count, squeeze=False)[0]
    for axis in axes:
        axis.set_axis_off()
    for side, (pair, name) in enumerate(zip(pairs, ("real", "simulated"), strict=True)):
        for number, frame in enumerate(pair):
            shown = axes[side * count + number].imshow(frame, cmap="inferno", vmin=low, vmax=high)
            axes[side * count + number].set_title(name)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="photons")
    return _uri(figure)


def _histograms(estimate: Estimate) -> str:
    real, simulated = estimate.real, estimate.simulated
    figure = _figure((12, 6.4))
    panels = figure.subplots(2, 3)
    longest = int(max(4, np.quantile(np.concatenate([real.runs, simulated.runs]), 0.99)))

    def both_of(name: str) -> tuple[Any, Any]:
        return chosen(real, name), chosen(simulated, name)

    kinds: list[tuple[str, tuple[Any, Any], Any]] = [
        ("pixels (photons)", (real.pixels, simulated.pixels), None),
        ("photons of spots", both_of("photons"), None),
        ("background at spots (photons per pixel)", both_of("background"), None),
        ("width of spots (nm)", both_of("sigma_nm"), None),
        ("chi-square of the fits", both_of("chi2"), None),
        ("frames that a spot stays", (real.runs, simulated.runs), np.arange(0.5, longest + 1)),
    ]
    for axis, (name, (ours, theirs), edges) in zip(panels.ravel(), kinds, strict=True):
        both = np.concatenate([ours, theirs])
        if not np.isfinite(both).all():  # the PSF was given: no widths
            axis.set_axis_off()
            continue
        low, high = np.quantile(both, [0.001, 0.999]).tolist()
        bins = np.linspace(low, high, 50) if edges is None else edges
        for values, label in ((ours, "real"), (theirs, "simulated")):
            axis.hist(values, bins=bins, density=True, histtype="step", lw=1.6, label=label)
        axis.set(xlabel=name, yscale="log" if name.startswith("pixels") else "linear")
        axis.set_yticks([])
    panels[0, 0].legend()
    return _uri(figure)


def _places(estimate: Estimate) -> str:
    """Background over the field and over time, and the mean-variance points of the camera."""
    figure = _figure((12, 3.4))
    left, middle, right = figure.subplots(1, 3)
    shown = left.imshow(estimate.background_field, cmap="viridis", vmin=0)
    left.set(title="background over the field", xticks=[], yticks=[])
    figure.colorbar(shown, ax=left, label="photons per pixel")
    middle.plot(estimate.background_time[:, 0], estimate.background_time[:, 1], "o-")
    middle.set(xlabel="frame", ylabel="photons per pixel", title="background over time")
    if len(estimate.background_time):
        middle.set_ylim(0, 1.3 * estimate.background_time[:, 1].max())
    transfer = estimate.transfer
    if transfer is None:
        right.set_axis_off()
    else:
        spots = transfer.signal > 0
        right.loglog(transfer.mean[~spots], transfer.variance[~spots], "o", label="dark pixels")
        right.loglog(transfer.mean[spots], transfer.variance[spots], ".", label="spots")
        line = np.geomspace(transfer.mean.min(), transfer.mean.max(), 50)
        right.loglog(line, transfer.camera.variance_counts((line - float(transfer.camera.mean_counts(np.zeros(1))[0]))
                     / transfer.camera.counts_per_photon), "k-", lw=1, label="camera found")  # fmt: skip
        right.set(xlabel="mean (counts)", ylabel="variance (counts squared)", title="gain and offset")
        right.legend(fontsize=8)
    return _uri(figure)
