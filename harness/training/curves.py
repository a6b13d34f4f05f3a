"""Learning curves: the validation scores of trainings against the time and the frames that they took.

They come from the cards of weights (`training.curve`), so that shipped weights tell how they were learned.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import zoo
from harness.io.atomic import atomic_path

AXES = (("minutes", "training time, minutes"), ("frames", "frames seen"))
SCORES = ("efficiency", "jaccard", "rmse_lateral_nm", "validation_loss")


def learning_curves(sources: Sequence[str | Path] = ()) -> pd.DataFrame:
    """One row per validation: model, step, minutes, frames, scores.

    Args:
        sources: folders of trainings, or shipped weights; default: every shipped weight that has a curve.

    Raises:
        ValueError: a source named explicitly has no curve, or none has.
    """
    parts = []
    for source in sources or zoo.list_weights():
        card = zoo.read_card(source)
        curve = card.get("training", {}).get("curve")
        if curve:
            path = Path(source)
            name = f"{card['model']} ({path.resolve().name})" if path.is_dir() else str(source)
            parts.append(pd.DataFrame(curve).assign(model=name))
        elif sources:
            raise ValueError(f"the card of {source} holds no learning curve; trainings write one at every validation")
    if not parts:
        raise ValueError("no shipped weights hold a learning curve; name folders of trainings")
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *(column for column in table.columns if column != "model")]]


LOWEST = -20.0  # efficiency that is drawn
LONG = 30.0  # times the first validation's time or frames: drawn in decades


def plot_curves(table: pd.DataFrame, path: Path, *, score: str = "efficiency") -> Path:
    """A picture: the score against time and against frames (in decades where they span more than 1.5), a line
    per training.

    Efficiencies below -20 are drawn there, at the lower edge.

    Raises:
        ValueError: no such score in the table.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import EngFormatter, NullFormatter, StrMethodFormatter

    if score not in table or table[score].notna().sum() == 0:
        there = [name for name in SCORES if name in table and table[name].notna().any()]
        raise ValueError(f"no curve holds {score!r}; there are: {', '.join(there)}")
    label_y = score.replace("_", " ")
    if score == "efficiency" and (table[score] < LOWEST).any():
        table = table.assign(efficiency=table[score].clip(lower=LOWEST))
        label_y += f" ({LOWEST:g}: that or less)"
    sns.set_theme(style="whitegrid", context="notebook")
    figure, axes = plt.subplots(1, len(AXES), figsize=(11, 4.2), sharey=True, layout="constrained")
    for number, (axis, (column, label)) in enumerate(zip(axes, AXES, strict=True)):
        sns.lineplot(
            table,
            x=column,
            y=score,
            hue="model",
            style="model",
            markers=True,
            dashes=False,
            markersize=6,
            ax=axis,
            legend=number == 0,
        )
        axis.set(xlabel=label, ylabel=label_y)
        later = table.loc[table["step"] > 0, column]
        if later.max() > LONG * later.min():
            if len(later) < len(table):  # weights that a training began from, scored at 0
                axis.set_xscale("symlog", linthresh=10 ** math.floor(math.log10(later.min())), linscale=0.5)
                axis.set_xlim(left=0)
            else:
                axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_xlim(left=0)
        axis.xaxis.set_major_formatter(EngFormatter(sep="") if column == "frames" else StrMethodFormatter("{x:g}"))
    if score == "efficiency":
        axes[0].set_ylim(max(LOWEST - 1, float(table[score].min()) - 5), 100)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
    return path
