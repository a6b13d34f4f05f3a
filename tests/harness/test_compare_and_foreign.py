"""Tables and images of other programs as entries, and `smlm-zoo compare` of tables, records and models."""

import csv
import json

import numpy as np
import pytest
import tifffile

from harness.cli import main
from harness.io.tables import as_localizations, read_table, write_table
from harness.recording import dataset_record
from harness.scoring.images import render
from leaderboard import Model, Result, Runtime, build_page, read_results
from leaderboard.labels import all_labels
from leaderboard.ranking import make_board
from simulators import load_recipe


def run(capsys, *words):
    code = main([str(word) for word in words])
    done = capsys.readouterr()
    return code, done.out, done.err


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """A folder of `smlm-zoo simulate`, and two tables of it: errors of 20 nm, and of 45 nm with misses."""
    folder = tmp_path_factory.mktemp("movie")
    assert main(["simulate", "tubes-2d-hd", "-o", str(folder), "--frames", "140", "--size", "24", "24"]) == 0
    truth = as_localizations(read_table(folder / "emitters.csv"))
    rng = np.random.default_rng(0)

    def moved(deviation, keep):
        table = truth.pick(np.flatnonzero(rng.random(len(truth)) < keep))
        n = len(table)
        return table.replace(
            x_nm=table.x_nm + rng.normal(0, deviation, n), y_nm=table.y_nm + rng.normal(0, deviation, n)
        )

    return folder, {"fine": moved(20 / 2**0.5, 0.95), "coarse": moved(45 / 2**0.5, 0.7)}


@pytest.mark.parametrize("form", ["csv", "thunderstorm", "challenge", "parquet"])
def test_tables_of_every_format_become_entries_of_the_same_test(capsys, movie, tmp_path, form):
    folder, tables = movie
    path = tmp_path / ("theirs.parquet" if form == "parquet" else "theirs.csv")
    write_table(tables["fine"], path, format=form)
    record = tmp_path / "theirs.json"
    code, out, err = run(
        capsys, "score", path, "--truth", folder, "--name", "Theirs", "--record", record, "--resamples", 200
    )
    assert code == 0, err
    assert "smlm-zoo leaderboard --add" in out
    (result,) = read_results(record)
    assert result.model.name == "Theirs"
    assert result.runtime.name == "table"
    assert result.scores.rmse_lateral_nm == pytest.approx(20, rel=0.15)
    assert result.scores.efficiency_low < result.scores.efficiency < result.scores.efficiency_high
    assert result.scores.n_truth > 120
    assert {"density", "crowding"} <= result.detail.curves.keys()
    assert result.detail.worst[0]["fn"] + result.detail.worst[0]["fp"] > 0
    assert result.detail.images["snr_db"] is not None
    # the same test as that of a model that reads the movie
    recipe = load_recipe("tubes-2d-hd").with_(frames=140, size=24)
    model = Result(
        model=Model(name="decode"),
        dataset=dataset_record(recipe),
        runtime=Runtime(name="torch"),
        scores=result.scores,
        settings=result.settings,
    )
    assert all_labels([result, model])[1] == ["tubes-2d-hd", "tubes-2d-hd"]
    assert result.settings.tolerance_nm == 250
    assert "--name Theirs" in result.command


def test_an_image_becomes_an_entry_without_a_rank(capsys, movie, tmp_path):
    folder, tables = movie
    write_table(tables["coarse"], tmp_path / "theirs.csv")
    image = render(tables["fine"], field_nm=(2400, 2400), pixel_nm=10, fwhm_nm=20)
    tifffile.imwrite(tmp_path / "theirs.tif", image)
    for name, file in (("Table", "theirs.csv"), ("Picture", "theirs.tif")):
        words = ("score", tmp_path / file, "--truth", folder, "--name", name, "--record", tmp_path / f"{name}.json")
        assert run(capsys, *words)[0] == 0
    results = read_results([tmp_path / "Table.json", tmp_path / "Picture.json"])
    board = make_board(results)
    assert board.conditions == ["tubes-2d-hd"]
    assert [entry for entry, _ in board.scored] == ["Table"]
    assert {entry for entry, _ in board.imaged} == {"Table", "Picture"}
    snr = {entry: result.detail.images["snr_db"] for (entry, _), result in board.imaged.items()}
    assert snr["Picture"] > snr["Table"]  # drawn from the finer table
    text = build_page(results, tmp_path / "page").read_text(encoding="utf-8")
    assert "image only" in text


def test_a_record_needs_a_name_and_the_right_movie(capsys, movie, tmp_path):
    folder, tables = movie
    path = tmp_path / "t.csv"
    write_table(tables["fine"], path)
    assert "--name" in run(capsys, "score", path, "--truth", folder, "--record", tmp_path / "r.json")[2]
    words = ("score", path, "--truth", folder, "--name", "a", "--record", tmp_path / "r.json")
    code, _, err = run(capsys, *words, "--dataset", "tubes-2d-hd")
    assert code == 2
    assert "the truth's own recipe is tubes-2d-hd (140 frames of 24x24" in err
    code, _, err = run(capsys, *words, "--field-nm", 4000, 4000)
    assert code == 2
    assert "makes movies of 2400 x 2400 nm" in err
    (tmp_path / "alone").mkdir()
    write_table(read_table(folder / "emitters.csv"), tmp_path / "alone" / "gt.csv")
    assert "--field-nm" in run(capsys, "score", path, "--truth", tmp_path / "alone" / "gt.csv")[2]
    words = ("score", path, "--truth", tmp_path / "alone" / "gt.csv", "--field-nm", 2400, 2400)
    assert run(capsys, *words, "--name", "a", "--record", tmp_path / "r.json")[0] == 0
    (result,) = read_results(tmp_path / "r.json")
    assert (result.dataset.name, result.dataset.condition) == ("gt", "foreign")
    assert len(result.dataset.recipe_hash) == 16
    assert not (tmp_path / "r2.json").exists()


def test_two_tables_are_compared_in_the_terminal_and_on_a_page(capsys, movie, tmp_path):
    folder, tables = movie
    for name, table in tables.items():
        write_table(table, tmp_path / f"{name}.csv", format="thunderstorm")
    pair = (tmp_path / "fine.csv", tmp_path / "coarse.csv")
    code, out, err = run(capsys, "compare", *pair, "--truth", folder, "-o", tmp_path / "out", "--resamples", 500)
    assert code == 0, err
    assert "fine.csv has a higher efficiency than coarse.csv on tubes-2d-hd" in out
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Block by block" in page
    assert page.count('class="shot"') == 3  # truth and both
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    efficiency = next(row for row in rows if row["score"] == "efficiency")
    assert efficiency["better"] == "fine.csv"
    assert float(efficiency["low"]) > 0
    # a table against itself
    code, out, _ = run(capsys, "compare", pair[0], pair[0], "--truth", folder, "-o", tmp_path / "same")
    assert code == 0
    assert "cannot be told apart" in out
    code, _, err = run(capsys, "compare", *pair, "-o", tmp_path / "no")
    assert code == 2
    assert "--truth" in err


def test_records_are_compared_by_file_and_by_name(capsys, movie, tmp_path):
    folder, tables = movie
    for name, table in tables.items():
        write_table(table, tmp_path / f"{name}.csv")
        record = tmp_path / "board" / "records" / f"{name}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        words = ("score", tmp_path / f"{name}.csv", "--truth", folder, "--name", name, "--record", record)
        assert run(capsys, *words, "--resamples", 100)[0] == 0
    files = [tmp_path / "board" / "records" / f"{name}.json" for name in ("coarse", "fine")]
    code, out, err = run(capsys, "compare", *files, "-o", tmp_path / "a", "--resamples", 300)
    assert code == 0, err
    assert "fine has a higher efficiency than coarse" in out
    code, out, err = run(
        capsys, "compare", "coarse", "fine", "--records", tmp_path / "board", "-o", tmp_path / "b", "--resamples", 300
    )
    assert code == 0, err
    assert "fine has a higher efficiency than coarse" in out
    code, _, err = run(capsys, "compare", "coarse", "fin", "--records", tmp_path / "board", "-o", tmp_path / "b")
    assert code == 2
    assert "there are those of coarse, fine" in err
    old = json.loads(files[0].read_text())
    old["dataset"]["recipe_hash"] = "other"
    (tmp_path / "old.json").write_text(json.dumps(old))
    code, _, err = run(capsys, "compare", tmp_path / "old.json", files[1], "-o", tmp_path / "c")
    assert code == 2
    assert "no test in common" in err


@pytest.mark.slow
def test_two_shipped_models_are_compared_on_a_recipe(capsys, tmp_path):
    words = ("compare", "dsir", "fid_storm", "--dataset", "tubes-2d-hd", "--quick", "-o", tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert "dsir and fid_storm cannot be told apart" in out  # two blocks of frames prove nothing
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count('class="shot"') == 4
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()}
    assert run(capsys, *words)[0] == 0
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()} == before  # nothing measured again
