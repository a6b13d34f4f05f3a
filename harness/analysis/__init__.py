"""What is done with localizations after they were found: filters, grouping, checks of positions and sigmas."""

from .filters import keep_best_sigma, total_sigma_nm, weighted_sigma_nm, within_limits
from .grouping import Grouped, group, link
from .reliability import reliability_png, uniformity_png
from .uniformity import Uniformity, debias, debias_maps, subpixel_uniformity

__all__ = [
    "Grouped",
    "Uniformity",
    "debias",
    "debias_maps",
    "group",
    "keep_best_sigma",
    "link",
    "reliability_png",
    "subpixel_uniformity",
    "total_sigma_nm",
    "uniformity_png",
    "weighted_sigma_nm",
    "within_limits",
]
