"""smlm-zoo info"""

from dataclasses import dataclass

from ._shared import print_table


@dataclass(frozen=True)
class Info:
    """What this machine and installation are: for reports of problems."""

    def run(self) -> int:
        from harness.environment import environment

        print_table([{"what": key, "value": value} for key, value in environment().items()])
        return 0
