"""smlm-zoo quantize"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins, print_table


@dataclass(frozen=True)
class Quantize:
    """Write int8, float16 and bfloat16 files of a model, scored and timed beside float32 (one thread, interleaved).

    int8 is static and per channel, calibrated on simulated frames that cover the range the model was trained for.
    Example: smlm-zoo quantize fid_storm -o small
    """

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model, a folder written by train or import, or one written by export."""
    output: OptionalOutput = None
    """Folder; default: the export folder itself, or smlm-zoo-quantize-MODEL."""
    test: str = "tubes-2d-hd"
    """Recipe of the movie on which every form is scored."""
    frames: int = 100
    """Its frames; 0 leaves the scores out."""
    seconds: float = 3.0
    """Timing of each form."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        from harness.distillation.stages import export_student, score_model, test_movie
        from harness.models import load_network, open_model
        from harness.quantization import quantize

        load_plugins(self.plugin)
        folder = Path(self.model)
        if not (folder / "model.onnx").is_file():
            _, card = load_network(self.model)
            folder = self.output or Path(f"smlm-zoo-quantize-{Path(self.model).name}")
            folder.mkdir(parents=True, exist_ok=True)
            export_student(Path(self.model), folder, threshold=card.get("threshold"))
        elif self.output is not None:
            raise ValueError(f"{folder} is an export folder; its smaller forms are written into it, leave -o out")
        score = None
        if self.frames:
            movie = test_movie(self.test, frames=self.frames, size=(40, 40))
            threshold = open_model(folder / "model.onnx", device="cpu", threads=1).threshold

            def score(path: Path) -> dict[str, float]:
                model = open_model(path, device="cpu", threads=1)
                found = score_model(model, movie, threshold=threshold)
                return {name: found[name] for name in ("efficiency", "jaccard", "rmse_lateral_nm")}

        rows = quantize(folder, scores=score, seconds=self.seconds)
        print_table([_shown(row) for row in rows], title=f"{folder}, one thread, interleaved")
        return 0


def _shown(row: dict[str, object]) -> dict[str, object]:
    """A row for people."""
    figures: dict[str, object] = {
        "form": row["form"],
        "MB": f"{float(str(row['bytes'])) / 1e6:.3f}",
        "ms per 64x64 frame": f"{row['ms']:.2f}",
        "speed": f"{row['speed']:.2f}x",
        "rms deviation": f"{row['deviation']:.2%}",
    }
    if "jaccard" in row:
        figures |= {
            "Jaccard": f"{row['jaccard']:.1f}",
            "lost": f"{row['jaccard_lost']:+.1f}",
            "efficiency": f"{row['efficiency']:.1f}",
        }
    return figures
