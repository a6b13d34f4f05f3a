"""smlm-zoo quantize"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ._shared import OptionalOutput, Plugins, load_plugins, print_table


@dataclass(frozen=True)
class Quantize:
    """Write int8, float16 and bfloat16 files of models, scored and timed beside float32 (one thread, interleaved).

    int8 is static and per channel, calibrated on simulated frames that cover the range the model was trained for. With
    --tune-minutes, where that loses too much, the weights are trained a little with the rounding of int8. Examples:

        smlm-zoo quantize fid_storm -o small
        smlm-zoo quantize u_storm --tune-minutes 5 -o small
        smlm-zoo quantize all --frames 100 -o small        # a table of all shipped models, a folder for each
    """

    model: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Shipped models, folders written by train or import, or ones written by export; "all": every shipped model."""
    output: OptionalOutput = None
    """Folder; of several models, one with a folder for each. Default: the export folder itself, or
    smlm-zoo-quantize-MODEL (several: smlm-zoo-quantize)."""
    test: str = "tubes-2d-hd"
    """Recipe of the movie on which every form is scored."""
    frames: int = 100
    """Its frames; 0 leaves the scores out."""
    seconds: float = 3.0
    """Timing of each form."""
    tune_minutes: float = 0.0
    """Fine-tuning of the weights for int8 (model.int8-tuned.onnx); 0: none."""
    tune_above: float = 1.0
    """Points of Jaccard that static int8 must lose to be tuned; with --frames 0 it is tuned in any case."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        import zoo

        if not self.model:
            raise ValueError("no model named; give one, or: all")
        if self.tune_minutes < 0:
            raise ValueError(f"--tune-minutes is {self.tune_minutes:g}; give minutes, or 0 for none")
        load_plugins(self.plugin)
        names = list(dict.fromkeys(n for name in self.model for n in (zoo.list_weights() if name == "all" else [name])))
        if len(names) == 1:
            folder, rows = self._quantized(names[0])
            print_table([_form(row) for row in rows], title=f"{folder}, one thread, interleaved")
            return 0
        done: list[dict[str, Any]] = []
        failed = []
        for name in names:
            print(f"{name}:")
            try:
                _, rows = self._quantized(name, among_others=True)
            except (ValueError, FloatingPointError) as error:
                print(f"{name} was left out: {error}", file=sys.stderr)
                failed.append(name)
                continue
            done += [_against(name, rows[0], row) for row in rows if row["form"].startswith("int8")]
        print_table(done, title="int8 beside float32: one thread, interleaved; ms per 64x64 frame")
        if failed:
            print(f"left out: {', '.join(failed)}", file=sys.stderr)
        return 1 if failed else 0

    def _quantized(self, name: str, *, among_others: bool = False) -> tuple[Path, list[dict[str, Any]]]:
        """Folder and rows of one model."""
        from harness.distillation.stages import export_student, score_model, test_movie
        from harness.models import load_network, open_model
        from harness.quantization import Tuning, quantize, training_of

        folder, tuning = Path(name), None
        if not (folder / "model.onnx").is_file():
            network, card = load_network(name)
            if among_others:
                folder = (self.output or Path("smlm-zoo-quantize")) / Path(name).name
            else:
                folder = self.output or Path(f"smlm-zoo-quantize-{Path(name).name}")
            folder.mkdir(parents=True, exist_ok=True)
            export_student(Path(name), folder, threshold=card.get("threshold"))
            if self.tune_minutes:
                tuning = Tuning(
                    network=network, config=training_of(card), minutes=self.tune_minutes, above=self.tune_above
                )
        elif self.output is not None and not among_others:
            raise ValueError(f"{folder} is an export folder; its smaller forms are written into it, leave -o out")
        elif self.tune_minutes:
            raise ValueError(f"{folder} is an export folder, which cannot be trained; give the model that it is of")
        score = None
        if self.frames:
            movie = test_movie(self.test, frames=self.frames, size=(40, 40))
            threshold = open_model(folder / "model.onnx", device="cpu", threads=1).threshold

            def score(path: Path) -> dict[str, float]:
                model = open_model(path, device="cpu", threads=1)
                found = score_model(model, movie, threshold=threshold)
                return {name: found[name] for name in ("efficiency", "jaccard", "rmse_lateral_nm")}

        return folder, quantize(folder, scores=score, tuning=tuning, seconds=self.seconds)


def _form(row: dict[str, Any]) -> dict[str, str]:
    """A form for people."""
    figures = {
        "form": row["form"],
        "MB": f"{row['bytes'] / 1e6:.3f}",
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


def _against(name: str, plain: dict[str, Any], row: dict[str, Any]) -> dict[str, str]:
    """A model's int8 form beside its float32, for people."""
    figures = {
        "model": name,
        "form": row["form"],
        "ms float32": f"{plain['ms']:.2f}",
        "ms int8": f"{row['ms']:.2f}",
        "speed": f"{row['speed']:.2f}x",
        "MB float32": f"{plain['bytes'] / 1e6:.3f}",
        "MB int8": f"{row['bytes'] / 1e6:.3f}",
        "bytes": f"{row['bytes'] / plain['bytes']:.2f}",
    }
    if "jaccard" in row:
        figures |= {
            "Jaccard": f"{plain['jaccard']:.1f} -> {row['jaccard']:.1f}",
            "lost": f"{row['jaccard_lost']:+.1f}",
            "efficiency": f"{plain['efficiency']:.1f} -> {row['efficiency']:.1f}",
        }
    return figures
