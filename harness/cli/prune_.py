"""smlm-zoo prune"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ._shared import OptionalOutput, print_table


@dataclass(frozen=True)
class Prune:
    """Take whole channels out of a model: those whose weights are smallest. Scores before and after are shown.

    Train it a little afterwards, alone or with the unpruned model as the teacher of the pruned one:

        smlm-zoo prune fid_storm 32 -o pruned
        smlm-zoo train fid_storm --option width=32 --init pruned --minutes 5 -o tuned
        smlm-zoo distill fid_storm fid_storm --training init=pruned --minutes 5 -o run
    """

    model: Annotated[str, tyro.conf.Positional]
    """A shipped model, or a folder written by train or import: fid_storm, srcnn or deep_storm."""
    width: Annotated[int, tyro.conf.Positional]
    """Channels that are left in the first layer; the others shrink in proportion."""
    output: OptionalOutput = None
    """Folder; default: smlm-zoo-prune-MODEL."""
    test: str = "tubes-2d-hd"
    """Recipe of the movie on which both are scored."""
    frames: int = 100
    """Its frames; 0 leaves the scores out."""

    def run(self) -> int:
        import zoo
        from distill.pruning import prune_channels
        from harness.distillation.stages import score_model, test_movie
        from harness.models import load_network, open_model

        network, card = load_network(self.model)
        if not isinstance(network, zoo.ImageNetwork):
            raise ValueError(f"{self.model} is a localization network; channels of image networks can be pruned")
        pruned = prune_channels(network, self.width)
        folder = self.output or Path(f"smlm-zoo-prune-{Path(self.model).name}")
        further: dict[str, Any] = {key: card[key] for key in ("threshold", "training", "valid_range") if key in card}
        further["pruned_from"] = str(self.model)
        zoo.save_weights(pruned, folder, further)
        before, after = zoo.count_parameters(network), zoo.count_parameters(pruned)
        work = zoo.count_macs(pruned, 64, 64).done / zoo.count_macs(network, 64, 64).done
        print(f"{folder}: {before:,} -> {after:,} parameters, {work:.2f} of the work; train it with --init {folder}")
        if self.frames:
            movie = test_movie(self.test, frames=self.frames, size=(40, 40))
            rows = []
            for name in (self.model, str(folder)):
                model = open_model(name, precision="float32")
                scores = score_model(model, movie, threshold=model.threshold)
                figures = {key: f"{scores[key]:.1f}" for key in ("efficiency", "jaccard", "recall", "precision")}
                rows.append({"model": name, **figures})
            print_table(rows, title=f"{self.test}, {self.frames} frames")
        return 0
