"""Which device and which arithmetic: found by asking and measuring, never assumed."""

import os
import platform
import time
from functools import cache
from typing import Literal, TypeVar

import torch

Module = TypeVar("Module", bound=torch.nn.Module)
Precision = Literal["float32", "bfloat16"]
TURNS = 6  # of the comparison of two arithmetics


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA where there is one.

    Raises:
        ValueError: unknown name, or no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"no device named {name!r}; use auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name!r} asked for, but PyTorch {torch.__version__} finds no CUDA device here; use cpu"
        )
    return device


def pick_precision(name: str, device: torch.device) -> Precision:
    """The arithmetic of that name; "auto" takes the one that is measured faster on this device."""
    if name == "auto":
        return fastest_precision(device)
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"no precision named {name!r}; use auto, float32 or bfloat16")
    return name  # type: ignore[return-value]


@cache
def fastest_precision(device: torch.device) -> Precision:
    """bfloat16 where a convolution of this zoo's size runs faster in it than in float32, else float32.

    Measured in about 0.2 s on one thread, because the flags of processors do not tell: without matrix units for it,
    bfloat16 on a CPU works but is several times slower.
    """
    layer = place(torch.nn.Conv2d(64, 64, 3, padding=1), device)
    frames = torch.ones(1, 64, 128, 128, device=device).contiguous(memory_format=torch.channels_last)

    def seconds(enabled: bool) -> float:
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            synchronise(device)
            start = time.perf_counter()
            layer(frames)
            synchronise(device)
            return time.perf_counter() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads that wait for each other make both equally slow
    try:
        turns = [(seconds(False), seconds(True)) for _ in range(TURNS)]
    finally:
        torch.set_num_threads(threads)
    plain, narrow = map(min, zip(*turns, strict=True))
    return "bfloat16" if narrow < 0.9 * plain else "float32"


def place(module: Module, device: torch.device, *, channels_last: bool = True) -> Module:
    """Move a module to a device, in place, its kernels in the layout that convolutions run fastest in."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return module.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work, so that a clock read after it is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_machine() -> dict[str, str]:
    """Processor, memory, operating system: what a time depends on."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    found = {"system": f"{platform.system()} {platform.machine()}", "cpu": cpu, "cores": str(os.cpu_count())}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
