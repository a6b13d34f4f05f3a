"""smlm-zoo calibrate"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ._shared import CameraOptions, OptionalOutput, progress_bar


@dataclass(frozen=True)
class Calibrate:
    """Make a PSF from a z-stack of beads: a spline for recipes, with a report of how well the beads agree.

    Beads are found, aligned in x, y and z, averaged and smoothed. Beside PSF.npz come PSF-report.png (slices, agreement
    of each bead with the PSF of the others, Cramér-Rao bound, wobble), PSF-report.json and PSF-wobble.csv. Use it in a
    recipe as `psf: {kind: spline, file: PSF.npz}`.

    Example: smlm-zoo calibrate beads.tif --z-step-nm 10 --z-start-nm -750 --camera.recipe tubes-2d-hd -o psf.npz
    """

    stack: Annotated[Path, tyro.conf.Positional]
    """The z-stack: a TIFF or a folder of TIFFs, a slice per frame."""
    z_step_nm: float
    """Height from one slice to the next; negative if z falls."""
    output: OptionalOutput = None
    """PSF file to write (.npz); default: smlm-zoo-STACK/psf.npz."""
    z_start_nm: float | None = None
    """Height of the first slice. Default: z = 0 where the spot is sharpest."""
    size_px: int = 31
    """Side of the PSF, camera pixels; beads nearer to each other are not used."""
    dz_nm: float = 50.0
    """Layers of the spline in z; more smooths more."""
    oversampling: int = 2
    """Spline voxels per camera pixel along x and y."""
    normalize: Literal["slice", "stack"] = "slice"
    """slice: photons mean the light within the square at any z; stack: at z = 0, with the stack's change over z."""
    align_z: bool = True
    """Let beads lie at different heights (a tilted slide)."""
    truth: Path | None = None
    """Table of the beads' true places; the PSF is then built round them, not round the spot's centre at z = 0."""
    threshold: float = 0.25
    """Dimmest spot that may be a bead, as a share of the third brightest."""
    camera: CameraOptions = field(default_factory=CameraOptions)

    def run(self) -> int:
        from harness.calibration import calibrate, save_calibration
        from harness.io.movies import open_movie
        from harness.io.tables import read_table
        from simulators import Emitters

        path = self.output or Path(f"smlm-zoo-{self.stack.stem}") / "psf.npz"
        if path.suffix != ".npz":
            raise ValueError(f"output is {path}; a PSF file ends in .npz")
        camera = self.camera.camera(self.stack)
        with open_movie(self.stack) as movie:
            counts = movie.read(0, len(movie))
        truth = None
        if self.truth is not None:
            table = read_table(self.truth, pixel_size_nm=camera.pixel_size_nm)
            truth = table if isinstance(table, Emitters) else Emitters(
                frame=table.frame, x_nm=table.x_nm, y_nm=table.y_nm, z_nm=table.z_nm, photons=table.photons
            )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        with progress_bar("calibrating", total=100) as done:
            parts = {"finding beads": 0, "aligning": 10, "checking beads": 60, "done": 100}

            def tell(what: str, step: int, steps: int) -> None:
                done(min(100, parts[what] + (50 if what == "aligning" else 35) * step / steps))

            result = calibrate(
                counts,
                camera=camera,
                z_step_nm=self.z_step_nm,
                z_start_nm=self.z_start_nm,
                size_px=self.size_px,
                dz_nm=self.dz_nm,
                oversampling=self.oversampling,
                normalize=self.normalize,
                align_z=self.align_z,
                truth=truth,
                threshold=self.threshold,
                progress=tell,
            )
        number = f"{len(result.agreement)} bead{'s' if len(result.agreement) > 1 else ''}"
        save_calibration(result, path, title=f"{self.stack.name}: {number}")
        for spot in result.rejected:
            print(f"not used: spot at pixel ({spot.centre_px[0]:.0f}, {spot.centre_px[1]:.0f}): {spot.why}")
        low, high = result.table.z_range_nm
        which = "left out of its PSF" if result.agreement[0].apart else "in its own PSF"
        chi2 = sum(float(one.chi2.mean()) for one in result.agreement) / len(result.agreement)
        print(f"{path}: {number}, z {low:g} to {high:g} nm, {result.settings['size_px']} pixels wide")
        print(
            f"each bead {which}: correlation {result.worst_correlation():.3f} or more at |z| <= 600 nm, chi2 {chi2:.2f}"
        )
        return 0
