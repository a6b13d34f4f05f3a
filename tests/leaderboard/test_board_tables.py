"""Tables: ranking by hand-made cases, missing results, Markdown and CSV that nobody can break."""

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from leaderboard import Dataset, Detail, Environment, Model, Result, Runtime, Scores, Settings, Timing
from leaderboard.board import image_frame, markdown_page
from leaderboard.ranking import make_board, pareto
from leaderboard.statistics import Blocks
from leaderboard.table import escape_csv, results_frame, summary, to_csv, to_markdown


def scored(model, dataset, efficiency, *, day=1, runtime="torch", frames=400, density=None, **settings):
    return Result(
        model=Model(name=model),
        dataset=Dataset(name=dataset, frames=frames, density=density),
        runtime=Runtime(name=runtime),
        scores=Scores(efficiency=efficiency, n_truth=100),
        settings=Settings(**settings),
        date=f"2025-01-{day:02d}",
    )


def timed(model, runtime, ms, *, day=1, machine="lab"):
    return Result(
        model=Model(name=model),
        dataset=Dataset(name="ld"),
        runtime=Runtime(name=runtime),
        timing=Timing(ms_p50=ms),
        environment=Environment(machine=machine),
        date=f"2025-01-{day:02d}",
    )


def test_order_means_and_ranks():
    table = summary(
        [
            *(scored("a", d, e) for d, e in (("ld", 80.0), ("hd", 50.0), ("uhd", 20.0))),
            *(scored("b", d, e) for d, e in (("ld", 70.0), ("hd", 60.0), ("uhd", 50.0))),
            *(scored("c", d, e) for d, e in (("ld", 70.0), ("hd", -100.0), ("uhd", 60.0))),
            timed("a", "torch", 4.0),
            timed("a", "onnxruntime", 2.0),
        ]
    ).set_index("model")
    assert list(table.index) == ["b", "a", "c"]
    assert list(table["place"]) == [1, 2, 3]
    assert list(table["mean_efficiency"]) == pytest.approx([60, 50, 10])
    # ld: a 1, b and c share 2 and 3; hd: b, a, c; uhd: c, b, a
    assert list(table["mean_rank"]) == pytest.approx([(2.5 + 1 + 2) / 3, (1 + 2 + 3) / 3, (2.5 + 3 + 1) / 3])
    assert table.loc["a", "ms torch"] == 4
    assert table.loc["a", "ms onnxruntime"] == 2
    assert math.isnan(table.loc["b", "ms torch"])


def test_a_missing_result_gives_no_mean_and_the_last_place():
    table = summary([scored("a", "ld", 95.0), scored("b", "ld", 10.0), scored("b", "hd", 10.0)]).set_index("model")
    assert list(table.index) == ["b", "a"]
    assert math.isnan(table.loc["a", "mean_efficiency"])
    assert math.isnan(table.loc["a", "mean_rank"])
    assert pd.isna(table.loc["a", "place"])
    assert table.loc["b", "mean_efficiency"] == 10


def test_an_empty_list_gives_an_empty_table():
    assert len(summary([])) == 0
    assert len(results_frame([])) == 0


def test_the_newest_record_counts_and_torch_before_others():
    board = make_board([scored("a", "ld", 50.0, day=2), scored("a", "ld", 40.0, day=1)])
    assert board.score("a", "ld") == 50
    board = make_board([scored("a", "ld", 50.0), scored("a", "ld", 40.0, day=3, runtime="onnxruntime")])
    assert board.score("a", "ld") == 50
    board = make_board([timed("a", "torch", 5.0, day=1), timed("a", "torch", 6.0, day=2)])
    assert board.ms("a", "torch") == 6


def test_different_tests_are_not_mixed():
    board = make_board([scored("a", "ld", 50.0), scored("b", "ld", 60.0, frames=16)])
    assert len(board.conditions) == 2
    assert math.isnan(board.mean("a"))
    board = make_board([scored("a", "ld", 50.0, quantile=0.25), scored("b", "ld", 60.0, quantile=0.0)])
    assert board.conditions == ["ld · quantile 0", "ld · quantile 0.25"]


def test_records_with_times_only_do_not_split_datasets_or_machines():
    board = make_board([scored("a", "ld", 50.0, tolerance_nm=250), timed("a", "torch", 5.0)])
    assert board.conditions == ["ld"]
    assert board.engines == ["torch"]


def test_times_of_two_machines_stand_apart():
    board = make_board([timed("a", "torch", 5.0, machine="x"), timed("a", "torch", 6.0, machine="y")])
    assert board.engines == ["torch · x", "torch · y"]


def test_a_name_that_imitates_a_label_stays_its_own_row():
    first = Result(model=Model(name="a", tag="t1"), dataset=Dataset(name="ld"), runtime=Runtime(name="torch"))
    second = Result(model=Model(name="a", tag="t2"), dataset=Dataset(name="ld"), runtime=Runtime(name="torch"))
    fake = Result(model=Model(name="a · t1"), dataset=Dataset(name="ld"), runtime=Runtime(name="torch"))
    assert len(make_board([first, second, fake]).entries) == 3


def test_datasets_are_ordered_by_density():
    results = [scored("a", "x", 1.0, density=1.5), scored("a", "y", 1.0, density=0.05), scored("a", "z", 1.0)]
    assert make_board(results).conditions == ["y", "x", "z"]


def test_pareto_front():
    points = [
        (5.0, 50.0),
        (1.0, 40.0),
        (2.0, 30.0),
        (9.0, 60.0),
        (9.0, 55.0),
        (0.5, math.nan),
        (math.nan, 99.0),
    ]
    assert pareto(points) == [1, 0, 3]


def test_the_tidy_table_keeps_the_three_precisions_apart():
    result = Result(
        model=Model(name="a"),
        dataset=Dataset(name="ld"),
        runtime=Runtime(name="torch", precision="bfloat16"),
        scores=Scores(tp=1, fp=1, fn=0, precision=0.5),
        settings=Settings(precision="float16"),
    )
    frame = results_frame([result])
    assert frame.columns.is_unique
    assert frame.loc[0, "precision"] == 0.5
    assert frame.loc[0, "score_arithmetic"] == "float16"
    assert frame.loc[0, "runtime_arithmetic"] == "bfloat16"
    assert frame.loc[0, "record"] == result.id


HOSTILE = ["=cmd()", "+1", "-1+2", "@SUM(A1)", "\t=1", "\uff1d1", " =1", "\r=1", "\n=1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_cells_are_no_formulas(text):
    frame = pd.DataFrame({text: ["plain", text], "n": [-1.5, math.nan]})
    rows = list(csv.reader(io.StringIO(to_csv(frame), newline="")))
    shown = "'" + text.replace("\t", " ").replace("\r", " ").replace("\n", " ")
    assert rows[0][0] == shown
    assert rows[2][0] == shown
    assert rows[1] == ["plain", "-1.5"]  # numbers stay numbers
    assert rows[2][1] == ""
    assert escape_csv("a=b") == "a=b"
    assert escape_csv("a\r\n=b") == "a  =b"  # no line of its own that begins with a formula


def test_markdown_cells_stay_in_their_cell():
    evil = "a|b\n`c` <script>alert(1)</script> [x](http://y) **d**"
    text = to_markdown(pd.DataFrame({evil: [evil], "n": [1.25]}))
    assert text.count("\n") == 3
    assert "<script>" not in text
    assert r"a\|b \`c\` &lt;script&gt;" in text
    assert r"\[x\](http://y) \*\*d\*\*" in text
    for line in text.splitlines():
        assert line.replace(r"\|", "").count("|") == 3


def test_markdown_numbers():
    frame = pd.DataFrame({"x": [1234.56, 0.01234, math.nan], "n": pd.array([1234567, None, 3], dtype="Int64")})
    assert to_markdown(frame).splitlines()[2:] == [
        "| 1,234.6 | 1,234,567 |",
        "| 0.012 | - |",
        "| - | 3 |",
    ]


def with_blocks(model, dataset, recall, seed=0):
    rng = np.random.default_rng(seed)
    tp = rng.binomial(40, recall, 30)
    counts = {"tp": tp, "fp": [2] * 30, "fn": 40 - tp, "lateral_nm2": tp * 900.0, "axial_nm2": [0] * 30}
    blocks = Blocks(**counts)
    return replace(
        scored(model, dataset, blocks.scores()["efficiency"]),
        detail=Detail(blocks=blocks.to_dict()),
    )


def test_models_that_the_blocks_cannot_tell_apart_share_a_rank():
    results = [with_blocks("a", "ld", 0.9), with_blocks("b", "ld", 0.9, seed=1), with_blocks("c", "ld", 0.4)]
    board = make_board(results)
    assert board.score("a", "ld") != board.score("b", "ld")
    assert [board.rank(name, "ld") for name in "abc"] == [1.5, 1.5, 3]
    # one record without blocks: the plain order again
    board = make_board([*results[1:], scored("a", "ld", 60.0)])
    assert sorted(board.rank(name, "ld") for name in "abc") == [1, 2, 3]
    # a movie where one model lacks a result: it has no rank there, and no mean
    board = make_board([*results, with_blocks("a", "hd", 0.9), with_blocks("c", "hd", 0.4)])
    assert math.isnan(board.rank("b", "hd"))
    assert math.isnan(board.mean_rank("b"))
    assert board.mean_rank("a") == pytest.approx((1.5 + 1) / 2)


def test_details_survive_the_file_and_stay_out_of_the_csv():
    one = with_blocks("a", "ld", 0.9)
    again = Result.from_json(one.to_json())
    assert again == one
    assert Blocks.from_dict(again.detail.blocks).scores()["efficiency"] == pytest.approx(one.scores.efficiency)
    assert "blocks" not in to_csv(results_frame([one]))
    damaged = replace(one, detail=Detail(blocks={**one.detail.blocks, "tp": ["x"]}))
    assert make_board([damaged]).rank("a", "ld") == 1


def test_image_scores_have_a_table_of_their_own():
    results = [with_blocks("a", "ld", 0.9), with_blocks("b", "ld", 0.4)]
    assert image_frame(make_board(results), "ld").empty
    images = {"snr_db": 3.5, "nmse": 0.4, "nmse_percent": 45.0, "ssim": None, "fwhm_nm": 20}
    results[0] = replace(results[0], detail=replace(results[0].detail, images=images))
    board = make_board(results)
    table = image_frame(board, "ld")
    assert list(table["model"]) == ["a"]
    assert (table.loc[0, "NMSE"], table.loc[0, "NMSE unscaled %"], table.loc[0, "rendered FWHM nm"]) == (0.4, 45, 20)
    assert math.isnan(table.loc[0, "SSIM"])
    assert "images" in markdown_page(board)
