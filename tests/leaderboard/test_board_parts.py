"""2D and 3D apart, conditions, marks, seeds, noisy times, pages of models, and a page that stays small."""

import math
from dataclasses import replace

import pytest

from leaderboard import Dataset, Detail, Model, Picture, Result, Runtime, Scores, Timing, build_page
from leaderboard.board import markdown_page
from leaderboard.labels import all_labels
from leaderboard.page import pictures as page_pictures
from leaderboard.page.charts import MOST_POINTS, charts
from leaderboard.page.models import anchors_of, model_pages
from leaderboard.page.tables import sections
from leaderboard.ranking import GREYS, entry_colors, make_board
from leaderboard.table import summary

EVIL = "</script><script>alert('x')</script>\"><img src=x onerror=alert(1)>"
MOVIES = ["tubes-2d-ld", "tubes-2d-hd", "tubes-2d-uhd"]


@pytest.fixture(scope="module")
def board(rich_results):
    return make_board(rich_results)


def table_of(board, section, label=None):
    one = next(s for s in sections(board, anchors_of(board)) if s.label == section)
    return next(t for t in one.tables if label in (None, t.label))


def column(table, label):
    index = next(i for i, c in enumerate(table.columns) if c.label == label)
    return {row.entry: row.cells[index] for row in table.rows}


def test_2d_3d_and_conditions_have_tables_of_their_own(board, rich_results):
    assert [group.label for group in board.groups] == ["2D", "3D", "2D · density"]
    names = [s.label for s in sections(board, anchors_of(board))]
    assert names == ["2D", "3D", "2D · density", "Images", "Speed", "Seeds", "Models"]
    assert {row.entry for row in table_of(board, "3D").rows} == {"decode · as", "single fit · as"}
    flat, density = table_of(board, "2D", "Overview"), table_of(board, "2D · density", "Overview")
    assert {row.entry for row in density.rows} == {"decode", "fid_storm", "dsir", "single fit"}
    assert "decode · as" not in {row.entry for row in flat.rows}
    # the mean is over the three matched movies alone, by hand
    own = [r.scores.efficiency for r in rich_results if r.scores and r.model.name == "decode" and r.timing]
    assert len(own) == 3
    assert column(flat, "Mean")["decode"].value == pytest.approx(sum(own) / 3)
    assert list(summary(rich_results)["model"])[: len(flat.rows)] == [row.entry for row in flat.rows]
    markdown = markdown_page(board)
    assert "## 2D" in markdown
    assert "## 3D" in markdown
    assert board.groups[2].conditions == [f"tubes-2d-hd · density · {v:g}" for v in (0.1, 0.3, 1, 3)]


def test_cells_have_intervals_and_shared_ranks(board):
    cell = column(table_of(board, "2D", "Overview"), "tubes-2d-ld")["decode"]
    scores = board.scored["decode", "tubes-2d-ld"].scores
    interval, rank = cell.small.splitlines()[:2]
    assert interval == f"{scores.efficiency_low:.1f} to {scores.efficiency_high:.1f}"
    places = board.shared["tubes-2d-ld"]["decode"]
    assert places.best < places.worst  # 99 molecules tell little apart
    assert rank == f"rank {places.best}\u2013{places.worst}"


def test_marks_say_what_to_know_before_comparing(board):
    table = table_of(board, "2D", "Overview")
    rows = {row.entry: row for row in table.rows}
    assert {name: [m.text for m in rows[name].marks] for name in ("decode", "fid_storm", "single fit", "dsir")} == {
        "decode": ["3 frames"],
        "fid_storm": [],
        "single fit": ["baseline"],
        "dsir": ["check"],
    }
    assert "over-confident" in rows["dsir"].marks[0].help
    assert column(table, "Trained on")["decode"].text == "epfl-2d"


def test_a_noisy_time_is_in_no_speed_ranking(board):
    assert board.fastest("dsir") == (54.0, "torch")  # onnxruntime's 27 ms are noisy
    assert board.fastest("fid_storm") == (41.0, "onnxruntime")
    view = charts(board)["speed"][0]
    front = {tuple(p) for p in view["front"]}
    on_it = {p["entry"] for p in view["points"] if (p["ms"], p["e"]) in front}
    assert on_it == {"fid_storm", "decode"}  # the baseline is faster, dsir's noisy time too
    rows = table_of(board, "Speed").rows
    noisy = [row for row in rows if "noisy" in [m.text for m in row.marks]]
    assert [row.entry for row in noisy] == ["dsir"]
    assert not any(cell.best for cell in noisy[0].cells)


def test_a_baseline_is_never_the_best():
    results = [
        Result(
            model=Model(name=name, baseline=name == "fit"),
            dataset=Dataset(name="ld"),
            runtime=Runtime(name="torch"),
            scores=Scores(efficiency=value),
            timing=Timing(ms_p50=ms),
        )
        for name, value, ms in (("fit", 90.0, 1.0), ("a", 80.0, 5.0), ("b", 70.0, 6.0))
    ]
    cells = column(table_of(make_board(results), "Accuracy", "Overview"), "Mean")
    assert [cells[name].best for name in ("fit", "a", "b")] == [False, True, False]
    assert charts(make_board(results))["speed"][0]["front"] == [[5.0, 80.0]]


def test_seeds_show_median_range_and_what_governs(board, rich_results):
    rows = table_of(board, "Seeds").rows
    assert [row.cells[0].text for row in rows] == MOVIES
    values = {
        r.model.training_seed: r.scores.efficiency
        for r in rich_results
        if r.model.training_seed and r.dataset.name == MOVIES[1]
    }
    low, middle, high = sorted(values.values())
    cells = rows[1].cells
    assert [c.value for c in cells[1:6]] == pytest.approx([3, middle, low, high, high - low])
    assert cells[7].text == ("seeds" if high - low > cells[6].value else "frames")
    assert cells[8].text == ", ".join(f"{seed}: {value:.1f}" for seed, value in sorted(values.items()))


def test_labels_are_as_short_as_they_can_be():
    def one(**dataset):
        data = Dataset(name="hd", **dataset)
        return Result(model=Model(name="a"), dataset=data, runtime=Runtime(name="x"), scores=Scores(efficiency=1.0))

    results = [
        one(recipe_hash="0011", density=1.0),
        one(recipe_hash="1122", density=0.1, condition="density", value=0.1),
        one(recipe_hash="2233", density=0.3, condition="density", value=0.3),
        one(recipe_hash="3344", dimensions=3),
        one(recipe_hash="4455", dimensions=3),
    ]
    short = ["hd · 2D", "hd · density · 0.1", "hd · density · 0.3", "hd · 3D · recipe 3344", "hd · 3D · recipe 4455"]
    assert all_labels(results)[1] == short


def test_images_of_others_are_shown_but_not_ranked(board):
    table = table_of(board, "Images", "tubes-2d-ld")
    row = next(row for row in table.rows if row.entry == "someone's image")
    assert [m.text for m in row.marks][-1] == "image only"
    assert column(table, "SNR")["someone's image"].value == 2.1
    assert not any("someone's image" in board.part(group).entries for group in board.groups)


def test_pages_of_models_hold_card_training_scores_and_failures(board):
    pages, raw = model_pages(board, anchors_of(board), {("tubes-2d-ld", 5): "data:image/png;base64,AA"})
    page = next(p for p in pages if p["entry"] == "decode")
    assert ("Trained on", "epfl-2d") in page["card"]
    assert [line for line in page["training"] if line[0] in ("steps", "minutes")] == [
        ("steps", "200000"),
        ("minutes", "108.1"),
    ]
    assert [row.entry for row in page["scores"].rows][:3] == MOVIES
    case = page["failures"][0]
    given = board.scored["decode", "tubes-2d-ld"].detail.worst[0]
    assert case["words"] == f"{given['tp']} hits, {given['fn']} missed, 3 false alarms"
    assert [kind for *_, kind in case["truth"]].count("bad") == given["fn"]
    assert case["background"] == "raw-0"
    assert raw == [{"id": "raw-0", "uri": "data:image/png;base64,AA"}]
    axes = page["reliability"][0]["axes"]
    assert [a["axis"] for a in axes] == ["x", "y"]
    assert axes[0]["points"][0][1] == pytest.approx(1.1 * axes[0]["points"][0][0])
    assert set(page["commands"]) == {f"smlm-zoo leaderboard decode --dataset {movie}" for movie in MOVIES}


def test_curves_and_sweeps_are_drawn_thinned(board, rich_results):
    data = charts(board)
    kinds = {kind["label"]: kind for kind in data["curves"][0]["kinds"]}
    assert list(kinds) == ["threshold", "photons", "density"]
    line = kinds["density"]["lines"]["decode"]
    rows = board.scored["decode", "tubes-2d-ld"].detail.curves["density"]
    assert line["x"][0] == pytest.approx((rows[0]["low"] + rows[0]["high"]) / 2, rel=1e-3)
    assert line["recall"][0] == pytest.approx(rows[0]["recall"], rel=1e-3)
    sweep = data["sweeps"][0]["lines"]["decode"]
    assert sweep["x"] == [0.1, 0.3, 1, 3]
    ends = zip(*(sweep[f"efficiency{end}"] for end in ("_low", "", "_high")), strict=True)
    assert all(low < value < high for low, value, high in ends)
    long = [{"threshold": i / 1000, "recall": 50.0} for i in range(1000)]
    one = replace(rich_results[0], detail=Detail(curves={"threshold": long}))
    thinned = charts(make_board([one]))["curves"][0]["kinds"][0]["lines"]["decode"]
    assert len(thinned["x"]) <= MOST_POINTS
    assert thinned["x"][0] == 0


JUNK = [EVIL, None, math.inf, -1, [EVIL], {EVIL: EVIL}, {"frame": EVIL}, True]


def test_details_that_are_no_such_things_do_no_harm(rich_results, tmp_path):
    counts = {"tp": 1, "fp": 1, "fn": 1}
    junk = Detail(
        curves={"threshold": JUNK, "z": EVIL, "photons": [{"low": EVIL, "high": 1, "recall": EVIL}] * 3, EVIL: [1]},
        calibration={"x": EVIL, "y": {"bins": JUNK, "z_std": EVIL}, "z": {"bins": EVIL}},
        images={"snr_db": EVIL, EVIL: 1},
        card={"training": {EVIL: EVIL, "deep": {"a": {"b": {"c": {"d": {"e": {"f": EVIL}}}}}}}, EVIL: JUNK[:2]},
        flags=EVIL,
        worst=[
            EVIL,
            {"frame": 1, "tp": EVIL, "fp": 1, "fn": 1},
            {"frame": 2, **counts, "field_nm": [10, 10], "truth": [[EVIL, 1, 1], [1, 2, 7], [1, 2, 0]], "found": JUNK},
        ],
    )
    evil = replace(rich_results[0], model=Model(name=EVIL, trained_on=EVIL), detail=junk)
    text = build_page([*rich_results, evil], tmp_path).read_text(encoding="utf-8")
    clean = build_page(rich_results, tmp_path / "clean").read_text(encoding="utf-8")
    assert text.count("<script") == clean.count("<script")
    assert text.count("onerror=alert(1)&gt;") > 5
    assert "<img src=x" not in text
    assert 'id="m-script-script-alert-x-script-img-src-x-onerror-alert-1"' in text
    page = next(p for p in model_pages(make_board([evil]), {EVIL: "m"}, {})[0])
    assert [(case["frame"], case["truth"], case["found"]) for case in page["failures"]] == [(2, [(1, 2, "bad")], [])]


def test_a_page_holds_so_many_pictures_and_says_so(rich_results, tmp_path, monkeypatch):
    monkeypatch.setattr(page_pictures, "MAX_PAGE_BYTES", 3500)
    pictures = []
    for i, model in enumerate(["raw", "truth", "decode", "dsir", "fid_storm"]):
        path = tmp_path / f"{i}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 1000)
        pictures.append(Picture(dataset="tubes-2d-ld", model=model, path=path))
    text = build_page(rich_results, tmp_path / "out", pictures=pictures).read_text(encoding="utf-8")
    assert text.count('class="shot"') == 3
    assert "2 pictures were left out" in text


def test_the_page_of_many_records_stays_small(rich_results, tmp_path):
    many = [replace(r, model=replace(r.model, name=f"{r.model.name} {i}")) for i in range(3) for r in rich_results]
    assert build_page(many, tmp_path).stat().st_size < 9_000_000  # 156 records; 4.9 MB of it is plotly


def test_models_have_colours_of_their_own_and_baselines_are_grey():
    entries = {**{f"model {i}": False for i in range(10)}, "fit": True, "blank": True}
    colors = entry_colors(entries)
    assert len(set(colors.values())) == 12
    assert {colors["fit"], colors["blank"]} <= set(GREYS)
    assert entry_colors({**entries, "a baseline": True})["model 3"] == colors["model 3"]
