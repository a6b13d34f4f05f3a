"""The command line: `smlm-zoo COMMAND ...`. Commands live in one file each; heavy libraries load when one runs."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from harness.memory import keep_memory

COMMANDS = {
    "leaderboard": "score and time every model on the same movies: tables, plots, web page",
    "study": "score models where they were not trained: sweeps, wrong PSF, other simulators, pairs of molecules",
    "models": "list the models: size, work, field of view, weights",
    "datasets": "list the recipes that movies are made from",
    "simulate": "make a movie whose molecules are known",
    "train": "train a model on simulated frames, a movie with its table, or paired images",
    "curves": "learning curves of trainings: score against time and frames",
    "export": "write a model as ONNX, checked against PyTorch",
    "localize": "find the molecules of a movie",
    "show": "picture of one frame: input | truth | the model's image",
    "filter": "keep the localizations within limits, or those with the smallest predicted errors",
    "group": "join localizations of one molecule in consecutive frames",
    "debias": "make positions fall evenly within the camera pixel",
    "check": "are positions even within the pixel, and predicted errors as large as the true ones",
    "score": "score localizations of any program by the rules of the SMLM Challenge",
    "compare": "which of two models, tables or sets of records is better, and how sure that is",
    "quality": "what can be said without a truth: resolution of two halves, agreement with the widefield image",
    "threshold": "find the threshold of models on validation movies, alike for all",
    "students": "list small forms of the models that a teacher can train, with their cost",
    "distill": "train a small student by a large teacher; compare, export, quantise, report",
    "prune": "take whole channels out of a model",
    "quantize": "write int8 and half-precision files of a model, scored and timed",
    "pick": "the best model within limits of file size, time and memory, from what was measured",
    "wobble": "measure on beads how far spots lie beside their emitters, over z",
    "calibrate": "make a PSF from a z-stack of beads",
    "estimate": "make a recipe from a movie, with a page that compares the two",
    "time": "time models, or their training step",
    "import": "turn an original program's weight file into a model folder",
    "parity": "compare models, losses and preprocessing with the originals' outputs",
    "info": "what this machine and installation are",
}
"""Command -> what it does. The command is a dataclass of its options in `harness.cli.COMMAND_`, with `run() -> int`."""

INTRODUCTION = """\
usage: smlm-zoo COMMAND [OPTIONS]

Deep networks for single-molecule localization microscopy: train, export, run, score and time them on the same data.
`smlm-zoo leaderboard` needs nothing else; `smlm-zoo COMMAND --help` explains a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 for success, 1 for a comparison that failed, 2 for bad input, 130 after Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard's chatter
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except KeyboardInterrupt:
        print("smlm-zoo: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        if os.environ.get("SMLM_ZOO_TRACEBACK"):
            raise
        print(f"smlm-zoo: error: {error or type(error).__name__}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(INTRODUCTION)
        for name, what in COMMANDS.items():
            print(f"  {name:<13}{what}")
        return 0 if words else 2
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no command named {name!r}.{hint} There are: {', '.join(COMMANDS)}.")
    import tyro

    command: Any = tyro.cli(
        getattr(import_module(f"harness.cli.{name}_"), name.title()), prog=f"smlm-zoo {name}", args=words[1:]
    )
    if name != "time":  # which also runs networks as the originals do
        keep_memory()
    return command.run()


if __name__ == "__main__":
    sys.exit(main())
