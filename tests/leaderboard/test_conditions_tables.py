"""Tables and figures over conditions, from records made by hand."""

import io

import pytest
from PIL import Image

from leaderboard import Dataset, Detail, Model, Result, Runtime, Scores
from leaderboard.conditions import condition_figures, conditions_frame, order_over_seeds


def record(model, value, seed, efficiency, *, condition="density", dimensions=2, baseline=False, dataset="epfl-2d"):
    return Result(
        model=Model(name=model, baseline=baseline, context_frames=1, trained_on="epfl-2d"),
        dataset=Dataset(name=dataset, seed=seed, condition=condition, value=value, dimensions=dimensions),
        runtime=Runtime(name="torch"),
        scores=Scores(
            efficiency=efficiency,
            efficiency_low=efficiency - 5,
            efficiency_high=min(100.0, efficiency + 5),
            jaccard=50.0,
            rmse_lateral_nm=20.0,
            n_truth=100,
        ),
        detail=Detail(flags="x is off"),
    )


def test_the_table_has_a_row_per_record_and_names_what_a_sceptic_asks():
    frame = conditions_frame([record("a", 0.1, 1, 80.0), record("b", 0.1, 1, 70.0, dimensions=3)])
    assert frame.model.tolist() == ["a", "b"]
    assert frame.dimensions.tolist() == [2, 3]
    row = frame.iloc[0]
    assert (row.efficiency, row.efficiency_low, row.trained_on, row["flags"]) == (80, 75, "epfl-2d", "x is off")
    assert (row.context_frames, row.value) == (1, 0.1)
    assert len(conditions_frame([])) == 0


def test_the_order_is_stable_where_no_pair_changes_places():
    results = [
        record(model, value, seed, efficiency)
        for value, table in {
            0.1: {"a": (80, 81, 79), "b": (70, 71, 72), "c": (60, 61, 62)},
            1.0: {"a": (80, 70, 79), "b": (70, 71, 72), "c": (60, 61, 62)},  # a and b change in the second
        }.items()
        for model, values in table.items()
        for seed, efficiency in enumerate(values)
    ]
    results += [record("chance", v, s, e, baseline=True) for v in (0.1, 1.0) for s, e in enumerate((99.0, -90.0, 0.0))]
    table = order_over_seeds(results)
    assert table.value.tolist() == [0.1, 1.0]
    assert table.stable.tolist() == [True, False]
    assert table.changes.tolist() == ["", "a / b"]
    assert table.agreement.tolist() == pytest.approx([1, 1 / 3])  # one of three pairs reversed: (2 - 1) / 3
    assert table.seeds.tolist() == [3, 3]
    assert len(order_over_seeds(results[:1])) == 0


def test_a_figure_for_each_condition_and_dimension():
    results = [record(m, v, 1, e) for m, e in (("a", 80.0), ("b", 20.0)) for v in (0.1, 0.5, 2.0)]
    results += [record("chance", v, 1, -90.0, baseline=True) for v in (0.1, 0.5, 2.0)]
    results += [record("a", v, 1, 50.0, dimensions=3) for v in (0.1, 0.5)]
    results += [record("a", None, None, 50.0, condition="foreign", dataset=name) for name in ("theirs", "others")]
    real = Result(
        model=Model(name="a"),
        dataset=Dataset(name="cells", condition="real"),
        runtime=Runtime(name="torch"),
        detail=Detail(images={"found_per_frame": 7.5, "frc_halves_nm": None, "rsp": 0.8}),
    )
    figures = condition_figures([*results, real])
    assert set(figures) == {"density.png", "density-3d.png", "foreign.png", "real.png"}
    for picture in figures.values():
        with Image.open(io.BytesIO(picture)) as image:
            assert image.width > 1500
    assert condition_figures([]) == {}
