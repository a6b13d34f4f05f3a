"""Fixtures for all tests: where the originals' outputs and the real stacks lie."""

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name!r} in {SHARED.name}/ beside the project: these checks need the originals' files")
    return folder


@pytest.fixture(scope="session")
def reference() -> Path:
    """Weights, inputs and outputs of the original programs."""
    return shared("reference")


@pytest.fixture(scope="session")
def data() -> Path:
    """Real and foreign microscope stacks."""
    return shared("data")


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker():
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


_PARITY: dict[str, str] = {}


def pytest_collection_modifyitems(items):
    for item in items:
        if "reference" in item.fixturenames:
            item.add_marker("parity")


def pytest_runtest_logreport(report):
    if "parity" in report.keywords and (report.when == "call" or report.outcome != "passed"):
        _PARITY[report.nodeid] = report.outcome


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    if exitstatus == 0 and (SHARED / "reference").is_dir() and "skipped" in _PARITY.values():
        session.exitstatus = 1  # the files are there: a skipped comparison is a fault of ours


def pytest_terminal_summary(terminalreporter):
    outcomes = list(_PARITY.values())
    if outcomes:
        skipped = outcomes.count("skipped")
        terminalreporter.write_line(f"parity tests: {len(outcomes) - skipped} run, {skipped} skipped")
