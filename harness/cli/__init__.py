"""The command line: `smlm-zoo COMMAND ...`. Commands live in one file each; heavy libraries load when one runs."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

COMMANDS = {
    "leaderboard": "Leaderboard",
    "models": "Models",
    "datasets": "Datasets",
    "simulate": "Simulate",
    "train": "Train",
    "export": "Export",
    "localize": "Localize",
    "show": "Show",
    "score": "Score",
    "time": "Time",
    "import": "Import",
    "parity": "Parity",
    "info": "Info",
}
"""Command -> class in `harness.cli.<command>_`, a dataclass of its options with `run() -> int`."""

DESCRIPTION = (
    "Deep networks for single-molecule localization microscopy: train, export, run, score and time them on the same "
    "data. `smlm-zoo leaderboard` needs nothing else; `smlm-zoo COMMAND --help` explains a command."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 for success, 2 for bad input, 130 after Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard's chatter
    import tyro

    commands: dict[str, Any] = {
        name: getattr(import_module(f"harness.cli.{name}_"), kind) for name, kind in COMMANDS.items()
    }
    command = tyro.extras.subcommand_cli_from_dict(
        commands, prog="smlm-zoo", description=DESCRIPTION, args=arguments, sort_subcommands=False
    )
    try:
        return command.run()
    except KeyboardInterrupt:
        print("smlm-zoo: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        if os.environ.get("SMLM_ZOO_TRACEBACK"):
            raise
        print(f"smlm-zoo: error: {error or type(error).__name__}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
