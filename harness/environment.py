"""The environment that a number was measured in."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.devices import describe_machine, fastest_precision, pick_device


def package_version(name: str) -> str:
    """Version of an installed distribution; "not installed" where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def onnxruntime_version() -> str:
    """ONNX Runtime is installed under one of two names."""
    gpu = package_version("onnxruntime-gpu")
    return gpu if gpu != "not installed" else package_version("onnxruntime")


@cache
def commit() -> str:
    """Commit of the checkout that this program runs from; empty for an installed one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def environment() -> dict[str, str]:
    """Machine, versions, devices."""
    device = pick_device("auto")
    return {
        **describe_machine(),
        "python": platform.python_version(),
        "smlm-zoo": package_version("smlm-zoo"),
        "commit": commit(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime_version(),
        "threads": str(torch.get_num_threads()),
        "device": str(device),
        "fastest precision": fastest_precision(device),
    }
