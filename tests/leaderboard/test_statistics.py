"""Block bootstrap, paired comparisons, Holm's correction, shared ranks."""

import math

import numpy as np
import pytest

from leaderboard.statistics import (
    Blocks,
    Comparison,
    Interval,
    Rank,
    compare,
    holm,
    intervals,
    mean_rank,
    mean_score,
    over_seeds,
    ranks,
)


def movie(seed, *, blocks=50, molecules=40, recall=0.8, error_nm=30.0, dimensions=2, common=None):
    """Counts of a model on a movie whose blocks differ in their number of molecules."""
    rng = np.random.default_rng(seed)
    molecules = rng.poisson(molecules, blocks) if common is None else common
    blocks = len(molecules)
    tp = rng.binomial(molecules, recall)
    lateral = np.array([(rng.normal(0, error_nm / math.sqrt(2), (n, 2)) ** 2).sum() for n in tp])
    axial = np.array([(rng.normal(0, 60, n) ** 2).sum() for n in tp])
    return Blocks(
        tp=tp, fp=rng.poisson(3, blocks), fn=molecules - tp, lateral_nm2=lateral, axial_nm2=axial, dimensions=dimensions
    )


def test_scores_by_hand():
    one = Blocks(tp=[3, 1], fp=[1, 0], fn=[0, 5], lateral_nm2=[2500, 100], axial_nm2=[400, 0], dimensions=3)
    s = one.scores()
    assert (s["jaccard"], s["precision"], s["recall"]) == (40, 80, pytest.approx(400 / 9))
    assert s["f1"] == pytest.approx(100 * 8 / 14)
    assert s["rmse_lateral_nm"] == pytest.approx(math.sqrt(650))
    assert s["rmse_axial_nm"] == 10
    lateral, axial = 100 - math.hypot(60, math.sqrt(650)), 100 - math.hypot(60, 5)
    assert s["efficiency"] == pytest.approx((lateral + axial) / 2)
    nothing = Blocks(tp=[0], fp=[2], fn=[3], lateral_nm2=[0], axial_nm2=[0]).scores()
    assert nothing["efficiency"] == -100
    assert math.isnan(nothing["rmse_lateral_nm"])


def test_frames_are_summed_to_blocks_with_the_empty_ones():
    one = Blocks.of_frames(
        frame=[0, 19, 20, 61],
        tp=[1, 2, 3, 4],
        fp=[0, 1, 0, 0],
        fn=[0, 0, 0, 7],
        lateral_nm2=[1.0, 2, 3, 4],
        axial_nm2=[0.0] * 4,
        n_frames=70,
    )
    assert one.tp.tolist() == [3, 3, 0, 4]
    assert one.fn.tolist() == [0, 0, 0, 7]
    assert one.lateral_nm2.tolist() == [3, 3, 0, 4]
    again = Blocks.from_dict(one.to_dict())
    assert again.to_dict() == one.to_dict()
    with pytest.raises(ValueError, match="do not fit a movie of 30"):
        Blocks.of_frames(frame=[30], tp=[1], fp=[0], fn=[0], lateral_nm2=[0], axial_nm2=[0], n_frames=30)
    with pytest.raises(ValueError, match="tp missing"):
        Blocks.from_dict({**{k: v for k, v in one.to_dict().items() if k != "tp"}})
    with pytest.raises(ValueError, match="different lengths"):
        Blocks(tp=[1, 2], fp=[1], fn=[1], lateral_nm2=[1], axial_nm2=[1])


def test_the_interval_of_recall_is_the_binomial_one():
    same = np.full(200, 30)  # equally many molecules everywhere: recall is a plain share
    deviations = [
        intervals(movie(seed, common=same), rng=np.random.default_rng(0))["recall"].deviation for seed in range(10)
    ]
    assert np.mean(deviations) == pytest.approx(100 * math.sqrt(0.8 * 0.2 / 6000), rel=0.1)


def test_intervals_cover_the_true_score_as_often_as_they_say():
    many = movie(1, blocks=50_000).scores()
    covered = {"jaccard": 0, "efficiency": 0, "rmse_lateral_nm": 0}
    trials = 150
    for seed in range(trials):
        one = intervals(movie(seed + 10, blocks=60), rng=np.random.default_rng(seed), resamples=400)
        for name in covered:
            covered[name] += one[name].low <= many[name] <= one[name].high
    for name, count in covered.items():
        assert 0.89 <= count / trials <= 0.99, name


def test_the_same_seed_gives_the_same_interval():
    first, second, other = (intervals(movie(0), rng=np.random.default_rng(seed))["efficiency"] for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert first.low < first.value < first.high
    single = intervals(movie(0, blocks=1), rng=np.random.default_rng(0))["efficiency"]
    assert math.isnan(single.low)
    assert single.to_dict()["low"] is None


def test_equal_models_are_called_different_as_rarely_as_they_should():
    wrong = 0
    for seed in range(200):
        common = np.random.default_rng(seed).poisson(40, 50)
        pair = {"a": movie(100_000 + seed, common=common), "b": movie(900_000 + seed, common=common)}
        wrong += compare(pair, rng=np.random.default_rng(seed + 7_000))[0].better != ""
    assert 2 <= wrong <= 20  # 5 % of 200 is 10, with a standard deviation of 3


def test_pairing_finds_a_difference_that_intervals_hide():
    rng = np.random.default_rng(0)
    common = rng.poisson(np.where(np.arange(60) % 2, 10, 90))  # blocks that are hard and easy
    recall = np.where(np.arange(60) % 2, 0.95, 0.5)
    tp = rng.binomial(common, recall)
    lateral = tp * 900.0
    zero = np.zeros(60)
    a = Blocks(tp=tp, fp=zero, fn=common - tp, lateral_nm2=lateral, axial_nm2=zero)
    fewer = np.maximum(tp - (rng.random(60) < 0.6), 0)
    b = Blocks(tp=fewer, fp=zero, fn=common - fewer, lateral_nm2=fewer * 900.0, axial_nm2=zero)
    ia, ib = (intervals(x, rng=np.random.default_rng(1))["efficiency"] for x in (a, b))
    assert ia.low < ib.high  # the intervals overlap
    row = compare({"b": b, "a": a}, rng=np.random.default_rng(1))[0]
    assert row.better == "a"
    assert row.high < 0
    assert row.delta == pytest.approx(ib.value - ia.value)
    smaller = compare({"a": a, "b": b}, rng=np.random.default_rng(1), score="rmse_lateral_nm")[0]
    assert smaller.better == ""  # the errors are the same


def test_of_errors_the_smaller_is_better():
    pair = {"fine": movie(0, error_nm=20), "coarse": movie(0, error_nm=40)}
    assert compare(pair, rng=np.random.default_rng(0), score="rmse_lateral_nm")[0].better == "fine"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001, 0.02, 0.03]) == pytest.approx([0.5, 0.004, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_many_pairs_can_still_be_told_apart():
    models = {f"m{i}": movie(0, recall=0.3 + 0.05 * i) for i in range(12)}
    rows = compare(models, rng=np.random.default_rng(0))
    assert len(rows) == 66
    far = next(r for r in rows if (r.first, r.second) == ("m0", "m11"))
    assert far.better == "m11"
    assert far.adjusted >= far.p_value


def test_models_that_cannot_be_told_apart_share_a_rank():
    def says(first, second, better):
        return Comparison(first=first, second=second, delta=0, low=0, high=0, p_value=0.5, adjusted=1.0, better=better)

    rows = [says("a", "b", ""), says("a", "c", "a"), says("b", "c", ""), says("a", "d", "a"), says("b", "d", "b")]
    rows.append(says("c", "d", "c"))
    table = ranks("abcd", rows)
    assert table == {
        "a": Rank(best=1, worst=2),
        "b": Rank(best=1, worst=3),
        "c": Rank(best=2, worst=3),
        "d": Rank(best=4, worst=4),
    }
    assert [str(table[n]) for n in "abcd"] == ["1-2", "1-3", "2-3", "4"]
    same = ranks("xyz", [says("x", "y", ""), says("x", "z", ""), says("y", "z", "")])
    assert {r.mean for r in same.values()} == {2.0}
    assert sum(r.mean for r in table.values()) == 10


def test_missing_results_give_no_mean():
    first = {"a": Rank(best=1, worst=1), "b": Rank(best=2, worst=2)}
    second = {"a": Rank(best=1, worst=2)}
    table = mean_rank([first, second], ["a", "b"])
    assert table["a"] == 1.25
    assert math.isnan(table["b"])
    assert mean_score([60, 70.0]) == 65
    assert math.isnan(mean_score([60, None]))
    assert math.isnan(mean_score([60, math.nan]))
    assert math.isnan(mean_score([]))


def test_seeds():
    interval = Interval(value=70, low=69, high=71, deviation=0.5)
    wide, narrow = over_seeds([66, 70, 75], interval), over_seeds([70, 70.5, 71], interval)
    assert (wide.median, wide.low, wide.high, wide.governs) == (70, 66, 75, "seeds")
    assert narrow.governs == "frames"
    assert over_seeds([70.0], interval).governs == ""


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="compare models on one movie"):
        compare({"a": movie(0), "b": movie(0, blocks=49)}, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="no score named 'speed'"):
        compare({"a": movie(0), "b": movie(1)}, rng=np.random.default_rng(0), score="speed")
    with pytest.raises(ValueError, match="1 block"):
        compare({"a": movie(0, blocks=1), "b": movie(1, blocks=1)}, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="level is 95"):
        intervals(movie(0), rng=np.random.default_rng(0), level=95)
    assert compare({"a": movie(0)}, rng=np.random.default_rng(0)) == []
