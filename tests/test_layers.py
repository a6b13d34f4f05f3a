"""The import layers: who may import whom, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("simulators", "zoo", "losses", "distill", "harness", "leaderboard")
MAY_IMPORT = {
    "simulators": set(),
    "zoo": {"simulators"},
    "losses": {"zoo", "simulators"},
    "distill": {"losses", "zoo", "simulators"},
    "harness": {"distill", "losses", "zoo", "simulators", "leaderboard"},
    "leaderboard": set(),
}


def imports_of(source: str) -> set[tuple[int, str]]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {(node.lineno, alias.name.split(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add((node.lineno, node.module.split(".")[0]))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_down_only(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files
        for line, name in imports_of(file.read_text(encoding="utf-8"))
        if name in PACKAGES and name != package and name not in MAY_IMPORT[package]
    ]
    assert not wrong, "\n".join(wrong)


def test_a_forbidden_import_would_be_found():
    assert (1, "harness") in imports_of("from harness.io import open_movie")


@pytest.mark.parametrize(
    "statement",
    ["import leaderboard", "import harness", "main(['--help'])", "main(['train', '--help'])"],
)
def test_light_things_load_no_torch(statement):
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"try:\n    {statement}\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
