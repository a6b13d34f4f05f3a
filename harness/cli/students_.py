"""smlm-zoo students"""

from dataclasses import dataclass

from ._shared import print_table


@dataclass(frozen=True)
class Students:
    """List small forms of the models that a teacher can train: parameters, work, size of the file.

    Any model of the zoo may be a student as well, with its own options: width, depth, blocks, separable.
    """

    def run(self) -> int:
        from distill import STUDENTS, cost_of

        rows = []
        for name, student in STUDENTS.items():
            cost = cost_of(student)
            rows.append(
                {
                    "student": name,
                    "model": student.model,
                    "options": " ".join(f"{key}={value}" for key, value in student.options.items()) or "-",
                    "parameters": f"{cost.parameters:,}",
                    "GMAC per 64x64 frame": f"{cost.macs / 1e9:.3f}",
                    "weights, MB": f"{cost.bytes / 1e6:.3f}",
                    "what it is": student.summary,
                }
            )
        print_table(rows)
        return 0
