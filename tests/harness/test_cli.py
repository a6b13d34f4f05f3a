"""The command line: help that teaches, exit codes, clear errors, nothing half-written."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tyro

import zoo
from harness.cli import COMMANDS, main
from harness.cli._shared import command_line
from harness.cli.compare_ import Compare
from harness.cli.score_ import Score
from harness.cli.study_ import Study
from simulators import list_recipes


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert len(out) > 200
    assert out.count("Example: ") <= 1  # several run into one another: they are indented lines


def test_the_program_lists_its_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert run(capsys)[0] == 2  # nothing asked for


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (Score, "found.csv --truth 'my truth.csv' --field-nm 6400.0 6400.0 --rule optimal --three-d --seed 3"),
        (Compare, "decode mine.csv --records a b --three-d --resamples 100"),
        (Study, "fid_storm decode --condition psf density --frames 30 --seeds 3 --quick --baseline --precision auto"),
        (Study, "--movie theirs.yaml --baseline fit"),
    ],
)
def test_the_line_of_a_record_runs_its_command_again(command, words):
    asked = tyro.cli(command, args=shlex.split(words))
    line = shlex.split(command_line(asked))
    assert sorted(line) == sorted(["smlm-zoo", command.__name__.lower(), *shlex.split(words)])
    assert tyro.cli(command, args=line[2:]) == asked


def test_simulate_writes_a_movie_a_table_and_its_recipe(capsys, tmp_path):
    code, out, _ = run(capsys, "simulate", "tubes-2d-hd", "-o", tmp_path / "m", "--frames", 5, "--size", 24, 32)
    assert code == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"frames.tif", "emitters.csv", "recipe.yaml"}
    assert tifffile.imread(tmp_path / "m" / "frames.tif").shape == (5, 24, 32)
    assert "5 frames" in out
    again = run(capsys, "simulate", tmp_path / "m" / "recipe.yaml", "-o", tmp_path / "again")
    assert again[0] == 0
    first, second = (tifffile.imread(tmp_path / name / "frames.tif") for name in ("m", "again"))
    assert np.array_equal(first, second)  # the recipe beside a movie makes the same movie


def test_score_of_the_truth_against_itself(capsys, tmp_path):
    run(capsys, "simulate", "tubes-2d-hd", "-o", tmp_path / "m", "--frames", 20, "--size", 40, 40)
    table = tmp_path / "m" / "emitters.csv"
    code, out, _ = run(
        capsys, "score", table, "--truth", table, "--field-nm", 4000, 4000, "-o", tmp_path / "score.json"
    )
    assert code == 0
    assert '"jaccard": 100.0' in (tmp_path / "score.json").read_text()
    assert "efficiency" in out


def test_lists(capsys):
    assert run(capsys, "datasets", "tubes-*")[1].count("tubes-2d") == len(list_recipes("tubes-2d*"))
    assert "drl_storm" in run(capsys, "models", "*_storm")[1]
    assert "torch" in run(capsys, "info")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["leaderbord"], "Did you mean 'leaderboard'"),
        (["models", "resnet*"], "no model matches"),
        (["simulate", "tubes-2d-hdd"], "tubes-2d-hd"),
        (["export", "drl_strom"], "Did you mean 'drl_storm'"),
        (["train", "srcnnn"], "Did you mean 'srcnn'"),
        (["train", "srcnn", "--recipe", "nowhere"], "nowhere"),
        (["train", "srcnn", "--option", "upsampling=3"], "upsampling"),
        (["train", "srcnn", "--option", "colour=3"], "colour"),
        (["train", "srcnn", "--option", "nonsense"], "key=value"),
        (["localize", "srcnn", "nowhere.tif"], "nowhere.tif"),
        (["leaderboard", "--quick", "--full"], "exclude"),
        (["time", "nothing"], "nothing"),
    ],
)
def test_bad_words_are_named_and_exit_with_2(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_truncated_movie_is_refused_and_leaves_nothing(capsys, tmp_path):
    network = zoo.create_model("fid_storm", n_blocks=1).eval()
    zoo.save_weights(network, tmp_path / "model", {"threshold": 0.3})
    tifffile.imwrite(tmp_path / "movie.tif", np.ones((40, 16, 16), np.uint16))
    content = (tmp_path / "movie.tif").read_bytes()
    (tmp_path / "movie.tif").write_bytes(content[: len(content) // 2])
    place = ["-o", tmp_path / "out", "--camera.pixel-size-nm", 100]
    code, _, err = run(capsys, "localize", tmp_path / "model", tmp_path / "movie.tif", *place)
    assert code == 2
    assert "truncated" in err
    assert not (tmp_path / "out").exists()


def test_an_unwritable_output_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(capsys, "simulate", "tubes-2d-ld", "-o", tmp_path / "file" / "m", "--frames", 2)
    assert code == 2
    assert "file" in err
    assert Path(tmp_path / "file").read_text() == "in the way"
