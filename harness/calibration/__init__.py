"""From z-stacks of beads to a PSF: find, align, fuse, check, report."""

from .beads import Bead, Rejected, find_beads
from .calibrate import Agreement, Calibration, calibrate
from .fuse import Aligned, align_and_fuse
from .report import save_calibration

__all__ = [
    "Agreement",
    "Aligned",
    "Bead",
    "Calibration",
    "Rejected",
    "align_and_fuse",
    "calibrate",
    "find_beads",
    "save_calibration",
]
