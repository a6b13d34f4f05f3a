"""Page, figures and the command: whole, offline, and deaf to what stands in records."""

import base64
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from leaderboard import (
    Dataset,
    Environment,
    Model,
    Picture,
    Result,
    Runtime,
    Scores,
    Settings,
    Timing,
    build_page,
    write_all,
    write_result,
)
from leaderboard.__main__ import main
from leaderboard.plots import FIGURES
from leaderboard.ranking import make_board

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>|`=cmd()` $\\frac{ ../../up"


def record(model, dataset, efficiency, runtime="torch", ms=5.0, n=1234, **more):
    return Result(
        model=Model(name=model, parameters=57_281),
        dataset=Dataset(name=dataset),
        runtime=Runtime(name=runtime),
        scores=Scores(efficiency=efficiency, jaccard=60.0, rmse_lateral_nm=20.0, n_truth=n),
        timing=Timing(ms_p50=ms),
        date="2025-11-21",
        **more,
    )


@pytest.fixture(scope="module")
def results():
    return [
        record(model, dataset, efficiency - drop, runtime, ms)
        for model, efficiency, ms in (("srcnn", 60.0, 2.0), ("deep_storm", 80.0, 9.0))
        for dataset, drop in (("ld", 0.0), ("hd", 20.0))
        for runtime in ("torch", "onnxruntime")
    ]


def png(path, value=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes([0, value]))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


class Parsed(HTMLParser):
    """Tags with attributes, scripts, and the texts of table cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.rows, self.inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.rows:
            self.rows[-1] += data

    def handle_endtag(self, tag):
        if tag == "script":
            self.inside = ""


def parsed(path):
    return Parsed(path.read_text(encoding="utf-8"))


def test_the_page_shows_models_in_order_with_their_molecules(results, tmp_path):
    page = parsed(build_page(results, tmp_path))
    rows = [" ".join(row.split()) for row in page.rows]
    assert "1,234 molecules" in rows[0]
    assert rows[1].startswith("deep_storm 70.0 1.0")
    assert rows[2].startswith("srcnn 50.0 2.0")
    assert os.listdir(tmp_path) == ["index.html"]


def test_the_page_needs_no_network_and_only_its_own_scripts_run(results, tmp_path):
    page = parsed(build_page(results, tmp_path))
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert tag != "script" or "src" not in attributes
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    data, *programs = page.scripts
    assert json.loads(data)["entries"] == ["deep_storm", "srcnn"]
    assert len(programs) == 2
    for program in programs:
        digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_hostile_strings_do_no_harm(results, tmp_path):
    picture = png(tmp_path / "p.png")
    evil = Result(
        model=Model(name=EVIL, tag=EVIL, variant=EVIL, options={EVIL: EVIL}, weights_sha256=EVIL),
        dataset=Dataset(name=EVIL, recipe_hash=EVIL),
        runtime=Runtime(name=EVIL, provider=EVIL, precision=EVIL),
        scores=Scores(efficiency=5.0, jaccard=10.0, rmse_lateral_nm=1.0),
        settings=Settings(rule=EVIL, threshold_source=EVIL, wobble=EVIL),
        timing=Timing(ms_p50=1.0),
        environment=Environment(machine=EVIL, cpu=EVIL, commit=EVIL),
        command=f"{EVIL}\n</code>",
    )
    out = tmp_path / "out"
    pictures = [{"dataset": EVIL, "model": EVIL, "path": picture, "caption": EVIL}]
    paths = write_all([*results, evil], out, pictures=pictures, title=EVIL, notes=EVIL)
    clean = parsed(build_page(results, tmp_path / "clean", pictures=[Picture(dataset="ld", model="raw", path=picture)]))
    page = parsed(paths["index.html"])
    assert sum(tag == "script" for tag, _ in page.tags) == sum(tag == "script" for tag, _ in clean.tags)
    # one image has a source, the picture; no text became an image
    assert [a["src"][:5] for t, a in page.tags if t == "img" and "src" in a] == ["data:"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert json.loads(page.scripts[0])["colors"][EVIL.strip()]
    assert "<script" not in paths["leaderboard.md"].read_text().replace("    <script", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean", "out", "p.png"]
    assert {p.name for p in out.iterdir()} == set(paths)


def test_write_all_makes_every_file_and_leaves_others(results, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    paths = write_all(results, tmp_path)
    assert set(paths) == {"results.csv", "leaderboard.md", "index.html", *FIGURES}
    assert {p.name for p in tmp_path.iterdir()} == {*paths, "mine.txt"}
    for name in FIGURES:
        assert paths[name].read_bytes().startswith(b"\x89PNG")
    assert "1,234" in paths["leaderboard.md"].read_text()


def test_a_bad_picture_leaves_nothing_half_written(results, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(ValueError, match="not a PNG"):
        write_all(results, tmp_path / "out", pictures=[{"dataset": "ld", "model": "raw", "path": bad}])
    with pytest.raises(ValueError, match="expected dataset, model, path"):
        build_page(results, tmp_path / "out", pictures=[{"file": "x"}])
    assert not (tmp_path / "out").exists()


def test_no_records_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no records"):
        write_all([], tmp_path)


def test_missing_scores_and_times_are_left_out(tmp_path):
    bare = Result(model=Model(name="a"), dataset=Dataset(name="ld"), runtime=Runtime(name="torch"))
    paths = write_all([bare], tmp_path)
    assert set(paths) == {"results.csv", "leaderboard.md", "index.html"}
    assert all(draw(make_board([bare])) is None for draw in FIGURES.values())


def test_pictures_stand_raw_truth_then_by_rank(results, tmp_path):
    pictures = [
        Picture(dataset="ld", model=model, path=png(tmp_path / f"{i}.png", i), frame=3)
        for i, model in enumerate(["srcnn", "truth", "deep_storm", "raw"])
    ]
    page = parsed(build_page(results, tmp_path / "out", pictures=pictures))
    shown = [a["alt"].split(",")[0] for t, a in page.tags if t == "img" and a.get("src")]
    assert shown == ["raw", "truth", "deep_storm", "srcnn"]


def test_command_builds_everything_without_torch(results, tmp_path):
    for result in results:
        write_result(result, tmp_path / "records")
    png(tmp_path / "p.png")
    (tmp_path / "pictures.json").write_text('[{"dataset": "ld", "model": "raw", "frame": 1, "path": "p.png"}]')
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['leaderboard', {str(tmp_path / 'records')!r}, '-o', {str(tmp_path / 'out')!r},"
        f" '--pictures', {str(tmp_path / 'pictures.json')!r}]\n"
        "try:\n    runpy.run_module('leaderboard', run_name='__main__')\n"
        "except SystemExit as done:\n    print('exit', done.code)\n"
        "ours = ('torch', 'onnxruntime', 'zoo', 'harness', 'simulators', 'losses', 'distill')\n"
        "print([m for m in ours if m in sys.modules])\n"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.splitlines()[-2:] == ["exit 0", "[]"]
    assert re.search(r"8 records", out.stdout)
    assert (tmp_path / "out" / "index.html").stat().st_size > 1_000_000


def test_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("{}")
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "bad.json" in error
    assert "model" in error
    assert main([str(tmp_path), "-o", str(tmp_path / "out"), "--skip-bad"]) == 1
    assert "skipped" in capsys.readouterr().err
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "list.json").write_text('[{"path": "../secret.png", "model": "a", "dataset": "b"}]')
    write_result(record("a", "ld", 1.0), tmp_path / "good")
    assert main([str(tmp_path / "good"), "-o", str(tmp_path / "o"), "--pictures", str(tmp_path / "p/list.json")]) == 1
    assert "outside" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
