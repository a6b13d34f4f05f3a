"""Records: what is written can be read, what is wrong is named, nothing is overwritten."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from leaderboard import (
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


def full(**changes):
    result = Result(
        model=Model(
            name="deep_storm",
            tag="epfl-2d",
            variant="dl4smlm",
            options={"upsampling": 8},
            weights_sha256="ab" * 32,
            parameters=1_300_000,
            macs_64=12_000_000_000,
            receptive_field_px=44,
            size_bytes=5_200_000,
            grid_floor_nm=5.1,
            context_frames=3,
            trained_on="epfl-2d",
            training_seed=2,
        ),
        dataset=Dataset(
            name="tubes-2d-ld",
            recipe_hash="a1b2",
            frames=400,
            height=40,
            width=40,
            seed=7,
            density=0.05,
            condition="psf",
            value=-10.0,
            dimensions=3,
        ),
        scores=Scores(
            tp=80,
            fp=10,
            fn=10,
            n_truth=95,
            n_found=93,
            jaccard=80.0,
            precision=80 / 90,
            recall=80 / 90,
            f1=80 / 90,
            rmse_lateral_nm=15.0,
            efficiency=75.0,
            bias_x_nm=-0.5,
            bias_y_nm=0.25,
            efficiency_quantile0=70.0,
        ),
        settings=Settings(tolerance_nm=250, border_nm=450, quantile=0.25, threshold=0.1),
        runtime=Runtime(name="torch", provider="CPU", precision="bfloat16", threads=2),
        timing=Timing(
            ms_p50=4.0,
            ms_min=3.9,
            ms_max=4.4,
            batch=1,
            frames_per_second=250,
            repeats=20,
            ms_p90=4.2,
            ms_p99=4.4,
            best_batch=8,
            best_frames_per_second=300.0,
            megapixels_per_second=300 * 64 * 64 / 1e6,
            first_call_ms=80.0,
            peak_memory_mb=512.0,
            spread=0.02,
            noisy=False,
            gflops=7.2,
            peak_gflops=60.0,
            peak_share=0.12,
            cpu_seconds_per_1000_frames=6.4,
            movie_frames_per_second=210.0,
            hours_per_million_frames=0.93,
            cost_per_million_frames=0.09,
        ),
        agreement=Agreement(jaccard_delta=-0.1, rmse_delta_nm=0.02, max_abs_deviation=1e-5, frames=16),
        environment=Environment(machine="lab", cpu="Xeon", python="3.11", torch="2.13", commit="abc"),
        date="2025-11-21T02:30:00+00:00",
        command="smlm-zoo leaderboard",
    )
    return replace(result, **changes)


def test_what_is_written_is_read_back(tmp_path):
    result = full()
    path = write_result(result, tmp_path / "new" / "folder")
    assert read_results(path.parent) == [result]
    assert read_results([path, path.parent]) == [result]  # the same record counts once
    assert path.name == f"{result.id}.json"
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_numpy_numbers_and_nan_become_plain_json():
    result = full(scores=Scores(tp=np.int64(3), efficiency=np.float32(-100), rmse_lateral_nm=math.nan))
    data = json.loads(result.to_json())
    assert data["scores"]["tp"] == 3
    assert data["scores"]["rmse_lateral_nm"] is None
    assert Result.from_json(result.to_json()) == result
    assert Result.from_json(result.to_json().replace('"rmse_lateral_nm": null', '"rmse_lateral_nm": NaN')) == result


def test_infinity_inside_details_is_missing():
    text = full(detail=Detail(curves={"z": [{"low": -1.0, "high": math.inf}]})).to_json()
    result = Result.from_json(text.replace("-1.0", "-Infinity"))
    assert result.detail.curves == {"z": [{"low": None, "high": None}]}
    assert len(result.id) == 16


def test_unknown_keys_survive():
    data = full().to_dict()
    data["note"] = {"a": [1, "two"]}
    data["timing"]["ms_p99.9"] = 5.5
    result = Result.from_json(json.dumps(data))
    assert result.extra == {"note": {"a": [1, "two"]}}
    assert result.timing is not None
    assert result.timing.extra == {"ms_p99.9": 5.5}
    assert json.loads(result.to_json()) == data
    assert result.id != full().id


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (("model", "name"), None, "model.name"),
        (("model", "name"), 7, "expected text"),
        (("model", "name"), "  ", "model.name"),
        (("model", "name"), "x" * 10_001, "10000"),
        (("model", "options"), [1], "expected a JSON object"),
        (("model", "parameters"), 1.5, "whole number"),
        (("model", "parameters"), True, "whole number"),
        (("model", "context_frames"), 0, "model.context_frames"),
        (("model", "baseline"), 1, "expected true or false"),
        (("dataset", "frames"), -1, "dataset.frames"),
        (("dataset", "dimensions"), 4, "dataset.dimensions"),
        (("dataset", "condition"), None, "dataset.condition"),
        (("scores", "efficiency"), "75", "expected a number"),
        (("scores", "efficiency"), 101, "scores.efficiency"),
        (("scores", "precision"), 88.9, "scores.precision"),
        (("scores", "jaccard"), 0.8, "jaccard is in percent"),
        (("scores", "recall"), 0.5, "scores.recall"),
        (("timing", "ms_p50"), math.inf, "timing.ms_p50"),
        (("timing", "best_batch"), 0, "timing.best_batch"),
        (("timing", "noisy"), 1, "expected true or false"),
        (("timing", "peak_memory_mb"), -1.0, "timing.peak_memory_mb"),
        (("timing",), [1], "timing"),
        (("detail",), {"worst": {"frame": 1}}, "expected a JSON list"),
        (("runtime",), None, "runtime"),
        (("schema",), 2, "Update smlm-zoo"),
        (("date",), "yesterday", "ISO 8601"),
    ],
)
def test_errors_name_file_and_key(tmp_path, key, value, words):
    data = full().to_dict()
    inner = data
    for part in key[:-1]:
        inner = inner[part]
    inner[key[-1]] = value
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=words) as caught:
        read_results(file)
    assert "theirs.json" in str(caught.value)


def test_times_of_older_records_have_none_of_the_newer_figures():
    data = full().to_dict()
    data["timing"] = {"ms_p50": 4.0, "batch": 1}
    timing = Result.from_json(json.dumps(data)).timing
    assert timing is not None
    assert (timing.ms_p50, timing.ms_p99, timing.noisy, timing.best_batch) == (4.0, None, None, None)


def test_missing_sections():
    data = full().to_dict()
    del data["model"]
    with pytest.raises(RecordError, match="'model' is missing"):
        Result.from_json(json.dumps(data))
    little = '{"model": {"name": "a"}, "dataset": {"name": "b"}, "runtime": {"name": "c"}}'
    result = Result.from_json(little)
    assert result.scores is None
    assert (result.dataset.condition, result.dataset.value, result.dataset.dimensions) == ("matched", None, 2)
    assert (result.model.context_frames, result.model.trained_on, result.model.baseline) == (None, "", False)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200_000, b'{"model": ' + b"9" * 10_000 + b"}", b" " * 1_000_001],
    ids=["empty", "cut", "list", "not utf-8", "deep", "digits", "large"],
)
def test_bad_files_raise_or_are_skipped(tmp_path, content):
    write_result(full(), tmp_path)
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"bad\.json"):
        read_results(tmp_path)
    with pytest.warns(UserWarning, match=r"bad\.json"):
        assert read_results(tmp_path, on_error="warn") == [full()]


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_results(tmp_path / "nowhere")


def test_nothing_is_overwritten(tmp_path):
    path = write_result(full(), tmp_path)
    assert write_result(full(), tmp_path) == path
    path.write_text(path.read_text().replace("0.05", "0.06"))
    edited = path.read_text()
    with pytest.raises(FileExistsError, match="different record"):
        write_result(full(), tmp_path)
    assert path.read_text() == edited


def test_names_do_not_choose_the_file(tmp_path):
    folder = tmp_path / "records"
    path = write_result(full(model=Model(name="../../evil", tag="/etc/passwd")), folder)
    assert path.parent == folder
    assert [p.name for p in tmp_path.iterdir()] == ["records"]


def test_unseen_characters_are_made_visible():
    result = full(model=Model(name="a\u202eb\x00c\ud800"))
    assert result.model.name == "a\ufffdb\ufffdc\ufffd"
    assert Result.from_json(result.to_json()) == result


def test_shipped_records_score_every_model_on_every_movie():
    results = shipped_results()
    rows = {(r.model.name, r.model.tag, r.model.variant) for r in results if not r.model.baseline}
    movies = {r.dataset.name for r in results}
    scored = {(r.model.name, r.model.tag, r.model.variant, r.dataset.name) for r in results if r.scores}
    assert len(rows) >= 10
    assert movies == {"tubes-2d-ld", "tubes-2d-hd", "tubes-2d-uhd", "tubes-2d-hd-dim"}
    assert {(*row, movie) for row in rows for movie in movies} <= scored
    assert all(r.command.startswith("smlm-zoo leaderboard") for r in results)


def test_record_needs_the_standard_library_only():
    code = (
        "import sys, leaderboard.record; "
        "print([m for m in ('torch', 'numpy', 'pandas', 'jinja2', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
