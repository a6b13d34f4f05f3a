"""smlm-zoo pick"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ._limits import LimitOptions, SmallMachine
from ._shared import print_table


@dataclass(frozen=True)
class Pick:
    """The best model within the limits of a small machine, from what distill or quantize measured; nothing is run.

    The exit status is 1 where no model is within the limits; the nearest one is named. Examples:

        smlm-zoo pick run --max-mb 5 --max-ms 20
        smlm-zoo pick small smaller --max-mb 0.5 --max-peak-mb 200
    """

    folder: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders written by distill or quantize."""
    machine: SmallMachine = field(default_factory=LimitOptions)

    def run(self) -> int:
        from harness.distillation import kept_rows, pareto, pick

        if not self.folder:
            raise ValueError("no folder named; give one written by distill or quantize")
        rows = kept_rows(self.folder, threads=self.machine.threads, memory_mb=self.machine.memory_mb)
        choice = pick(rows, self.machine.limits(), threads=self.machine.threads)
        front = pareto(rows)
        print_table(
            [
                {
                    "model": name,
                    "efficiency": f"{row['efficiency']:.1f}",
                    "ms per 64x64 frame": f"{row['ms']:.2f}",
                    "file, MB": f"{row['mb']:.3f}",
                    "peak memory, MB": f"{row['peak_mb']:.0f}" if row.get("peak_mb") is not None else "",
                    "none faster is as good": "yes" if name in front else "",
                }
                for name, row in sorted(rows.items(), key=lambda item: item[1]["ms"])
            ]
        )
        print(choice)
        return 0 if choice.best is not None else 1
