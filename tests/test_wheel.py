"""The wheel holds what the tree holds: every module and every data file that the program reads."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("simulators", "zoo", "losses", "distill", "harness", "leaderboard")


def tracked() -> set[str]:
    """Files of the packages, as git tracks them; without git, as they lie there."""
    answer = subprocess.run(["git", "-C", str(ROOT), "ls-files", *PACKAGES], capture_output=True, text=True)
    if answer.returncode == 0 and answer.stdout.strip():
        return set(answer.stdout.split())
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def in_wheel(tmp_path_factory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that nothing of an earlier build gets in
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("smlm_zoo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.split("/")[0] in PACKAGES}


def test_wheel_and_tree_hold_the_same_files(in_wheel):
    documents = {name for name in tracked() if name.endswith(".md") or "/pictures/" in name}
    expected = tracked() - documents
    assert in_wheel - documents == expected


def test_wheel_holds_the_data_that_the_program_reads(in_wheel):
    needed = ("simulators/recipes/tubes-2d-hd.yaml", "harness/training/recipes/deep_storm.epfl-2d.yaml", "zoo/py.typed")
    assert set(needed) <= in_wheel
