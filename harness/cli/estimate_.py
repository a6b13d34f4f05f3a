"""smlm-zoo estimate"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ._shared import CameraOptions, OptionalOutput, progress_bar


@dataclass(frozen=True)
class Estimate:
    """Make a recipe from a movie: what to simulate, to test and to train on data like yours.

    Spots are found and fitted one by one; from those that stand alone come background, width, photons per frame and
    on-time, from all of them the density. Gain and offset are estimated too where you do not give them. RECIPE.yaml is
    the movie's likeness, RECIPE-training.yaml has ranges round it for training, and RECIPE.html shows the movie beside
    a simulated one and warns where they differ.

    Example: smlm-zoo estimate movie.tif --camera.pixel-size-nm 100 --camera.em-gain 300 -o mine.yaml
    """

    movie: Annotated[Path, tyro.conf.Positional]
    """A TIFF movie or a folder of frames."""
    output: OptionalOutput = None
    """Recipe to write (.yaml); default: smlm-zoo-MOVIE/recipe.yaml."""
    psf: Path | None = None
    """A calibrated PSF (.npz of `smlm-zoo calibrate`, or a SMAP _3dcal.mat). Default: a Gaussian of unknown width."""
    threshold: float = 6.0
    """Dimmest spot that is looked at, standard deviations of the noise."""
    max_frames: int = 1000
    """Frames looked at, at most; of longer movies evenly spread stretches."""
    seed: int = 0
    """Seed of the simulated movie and of the recipe."""
    camera: CameraOptions = field(default_factory=CameraOptions)

    def run(self) -> int:
        from harness.estimation import build_page, compare, estimate
        from harness.io.atomic import atomic_path
        from harness.io.movies import open_movie
        from simulators import SplinePSF, save_recipe

        path = self.output or Path(f"smlm-zoo-{self.movie.stem}") / "recipe.yaml"
        if path.suffix not in (".yaml", ".yml"):
            raise ValueError(f"output is {path}; a recipe file ends in .yaml")
        named = self.camera
        with open_movie(self.movie) as movie, progress_bar("estimating", total=100) as done:
            result = estimate(
                movie,
                camera=named.camera(self.movie),
                name=path.stem,
                gain_known=named.recipe is not None or named.e_per_adu is not None,
                offset_known=named.recipe is not None or named.baseline is not None,
                psf=None if self.psf is None else SplinePSF(file=str(self.psf)),
                threshold=self.threshold,
                max_frames=self.max_frames,
                seed=self.seed,
                progress=lambda what, share: done(100 * share),
            )
            done(100)
        path.parent.mkdir(parents=True, exist_ok=True)
        training = path.with_name(f"{path.stem}-training{path.suffix}")
        for recipe, target in ((result.recipe, path), (result.training, training)):
            with atomic_path(target) as temporary:
                save_recipe(recipe, temporary)
        with atomic_path(path.with_suffix(".html")) as temporary:
            temporary.write_text(build_page(result, title=f"{self.movie.name}: real and simulated"), encoding="utf-8")
        numbers = result.numbers
        seen = result.real
        print(f"{path}: {int(seen.isolated.sum())} of {len(seen.isolated)} spots stand alone, {seen.frames} frames")
        print(
            f"photons {numbers.flux:.0f} a frame, background {numbers.background:.3g}, width {numbers.sigma_nm:.0f} nm"
            f", on for {numbers.on_frames:.2g} frames, {numbers.density_um2:.3g} rows per um2 and frame"
        )
        for note in result.notes:
            print(f"note: {note}")
        for row in compare(result):
            if row.differs:
                print(f"differs: {row.name}: {row.real:.4g} real, {row.simulated:.4g} simulated")
        return 0
