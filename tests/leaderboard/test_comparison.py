"""Two models compared on the same blocks: known differences, Holm by hand, what does not belong together."""

import re
from dataclasses import replace

import numpy as np
import pytest

import leaderboard
from leaderboard import Picture, compare
from leaderboard.comparison import ALL
from leaderboard.page.comparison import build_comparison, p_text
from leaderboard.statistics import Blocks, holm
from leaderboard.statistics import compare as compare_all


def movie(seed, recall, *, blocks=40, error_nm=30.0, dimensions=2):
    rng = np.random.default_rng(seed)
    molecules = np.random.default_rng(5).poisson(40, blocks) + 1
    tp = rng.binomial(molecules, recall)
    return Blocks(
        tp=tp,
        fp=rng.poisson(2, blocks),
        fn=molecules - tp,
        lateral_nm2=tp * error_nm**2,
        axial_nm2=tp * 4 * error_nm**2 if dimensions == 3 else 0 * tp,
        dimensions=dimensions,
    )


def answer(first, second, seed=0, **more):
    return compare(first, second, names=("a", "b"), rng=np.random.default_rng(seed), **more)


def test_the_same_counts_are_never_told_apart():
    one = answer({"ld": movie(0, 0.8)}, {"ld": movie(0, 0.8)})
    assert {d.score for d in one.differences} == {"efficiency", "jaccard", "rmse_lateral_nm"}
    assert all(d.delta == 0 and d.better == "" and d.p_value == 1 for d in one.differences)
    assert "cannot be told apart on ld" in one.verdict


def test_differences_are_those_of_the_scores_and_of_the_paired_bootstrap():
    first, second = movie(0, 0.85), movie(1, 0.75, error_nm=40)
    one = {d.score: d for d in answer({"ld": first}, {"ld": second}).differences}
    for name, d in one.items():
        assert d.delta == pytest.approx(first.scores()[name] - second.scores()[name])
        assert d.low < d.delta < d.high or name == "rmse_lateral_nm"
        assert d.better == "first"
    assert one["rmse_lateral_nm"].delta == pytest.approx(-10)
    other = compare_all({"a": first, "b": second}, rng=np.random.default_rng(9), resamples=4000)[0]
    assert one["efficiency"].low == pytest.approx(other.low, abs=0.25)
    assert one["efficiency"].high == pytest.approx(other.high, abs=0.25)
    back = answer({"ld": second}, {"ld": first}).differences[0]
    assert (back.better, back.delta) == ("second", -one["efficiency"].delta)


def test_holm_over_datasets_and_the_mean_over_all():
    first = {f"d{i}": movie(i, 0.80 + 0.01 * i) for i in range(4)}
    second = {f"d{i}": movie(100 + i, 0.79) for i in range(4)}
    rows = [d for d in answer(first, second).differences if d.score == "efficiency"]
    assert [d.dataset for d in rows] == ["d0", "d1", "d2", "d3", ALL]
    assert [d.adjusted for d in rows[:4]] == holm([d.p_value for d in rows[:4]])
    assert rows[4].delta == pytest.approx(np.mean([d.delta for d in rows[:4]]))
    assert rows[4].adjusted == rows[4].p_value
    # four movies: half the standard error of one
    width = np.mean([d.high - d.low for d in rows[:4]])
    assert rows[4].high - rows[4].low == pytest.approx(width / 2, rel=0.15)


def test_equal_models_are_rarely_called_different():
    wrong = sum(
        answer({"x": movie(2 * s, 0.8)}, {"x": movie(2 * s + 1, 0.8)}, seed=s, resamples=400).differences[0].better
        != ""
        for s in range(100)
    )
    assert wrong <= 12  # 5 of 100, standard deviation 2.2


def test_few_blocks_prove_nothing():
    one = answer({"x": movie(0, 0.9, blocks=5)}, {"x": movie(1, 0.3, blocks=5)}).differences[0]
    assert one.low > 0
    assert (one.p_value, one.better) == (2 / 2**5, "")  # 0.0625
    assert answer({"x": movie(0, 0.9, blocks=6)}, {"x": movie(1, 0.3, blocks=6)}).differences[0].better == "first"


def test_axial_scores_in_3d_only():
    scores = {
        d.score for d in answer({"x": movie(0, 0.8, dimensions=3)}, {"x": movie(1, 0.8, dimensions=3)}).differences
    }
    assert "rmse_axial_nm" in scores
    rows = answer(
        {"x": movie(0, 0.8, dimensions=3), "y": movie(0, 0.8)}, {"x": movie(1, 0.8, dimensions=3), "y": movie(1, 0.8)}
    ).differences
    assert [d.dataset for d in rows if d.score == "rmse_axial_nm"] == ["x"]


def test_records_are_compared_on_the_same_tests(rich_results):
    first = [r for r in rich_results if r.model.name == "decode" and r.model.tag == ""]
    second = [r for r in rich_results if r.model.name == "dsir"]
    one = leaderboard.compare(first, second, rng=np.random.default_rng(0))
    assert (one.first, one.second) == ("decode", "dsir")
    assert set(one.blocks) == {f"tubes-2d-{d}" for d in ("ld", "hd", "uhd")} | {
        f"tubes-2d-hd · density · {v:g}" for v in (0.1, 0.3, 1, 3)
    }
    assert one.verdict.startswith("decode has a higher efficiency than dsir over 7 datasets")
    other = [replace(r, dataset=replace(r.dataset, frames=77)) for r in second]
    with pytest.raises(ValueError, match="no test in common"):
        leaderboard.compare(first, other, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="2 models"):
        leaderboard.compare([*first, *second], second, rng=np.random.default_rng(0))
    bare = [replace(first[0], detail=None)]
    with pytest.raises(ValueError, match="no counts by blocks"):
        leaderboard.compare(bare, second, rng=np.random.default_rng(0))


def test_what_is_cut_differently_is_refused():
    with pytest.raises(ValueError, match="same truth"):
        answer({"x": movie(0, 0.8)}, {"x": movie(0, 0.8, blocks=39)})
    with pytest.raises(ValueError, match="at least 2"):
        answer({"x": movie(0, 0.8, blocks=1)}, {"x": movie(0, 0.8, blocks=1)})
    with pytest.raises(ValueError, match="carry no name"):
        compare({"x": movie(0, 0.8)}, {"x": movie(0, 0.8)}, rng=np.random.default_rng(0))


def test_the_page_has_bars_intervals_and_no_markup_of_names(tmp_path):
    evil = "<script>alert(1)</script>"
    first = {"ld": movie(0, 0.85), evil: movie(2, 0.7, blocks=1000)}
    second = {"ld": movie(1, 0.75), evil: movie(3, 0.7, blocks=1000)}
    paired = compare(first, second, names=("a", evil), rng=np.random.default_rng(0), resamples=300)
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    pictures = [Picture(dataset="ld", model=model, path=picture) for model in ("raw", "a", evil)]
    text = build_comparison(paired, tmp_path, pictures=pictures, command=evil).read_text(encoding="utf-8")
    assert text.count("<script") == 1
    ld, long = text.split('<figure class="blocks">')[1:]
    assert ld.count("<rect") == 40
    assert long.count("<rect") <= 200  # neighbouring blocks together
    assert text.count("forest-row") - text.count(".forest-row") >= 3
    assert "plotly" not in text.lower()
    own = [first["ld"].tp[i] / (first["ld"].tp + first["ld"].fp + first["ld"].fn)[i] for i in range(40)]
    other = [second["ld"].tp[i] / (second["ld"].tp + second["ld"].fp + second["ld"].fn)[i] for i in range(40)]
    ahead = int(re.search(r"a ahead in (\d+)", ld).group(1))
    assert ahead == sum(x > y for x, y in zip(own, other, strict=True))  # errors are equal: efficiency follows Jaccard
    assert [p_text(v) for v in (0.0002, 0.0312, 0.5)] == ["< 0.001", "0.031", "0.50"]
