"""Key map of DECODE's state dicts: `unet_shared`, `unet_union`, `mt_heads`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

SOURCE = "github.com/TuragaLab/DECODE"
SIGMA_FLOOR = r"sigma_eps"  # a frozen number of the state dict, 0.001


def recognise(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Builder options that the tensors tell: frames, width, depth, dimensions, background, norm, pooling."""
    first, union = "unet_shared.encoder.0.0.weight", "unet_union.encoder.0.0.weight"
    group_first, group_union = "unet_shared.encoder.0.1.weight", "unet_union.encoder.0.1.weight"
    norm = "none"
    if first in tensors and tensors[first].ndim == 1:  # a group norm stands before each convolution
        first, union, norm = group_first, group_union, "group"
    needed = (first, union, "mt_heads.0.out_conv.weight", "mt_heads.1.out_conv.weight")
    if not all(name in tensors for name in needed) or tensors[first].ndim != 4:
        return None
    width = len(tensors[first])
    depth = sum(f"unet_shared.encoder.{level}.0.weight" in tensors for level in range(8))
    return {
        "frames": tensors[union].shape[1] // width,
        "width": width,
        "depth": depth,
        "dimensions": len(tensors["mt_heads.1.out_conv.weight"]) - 1,
        "background": "mt_heads.3.out_conv.weight" in tensors,
        "norm": norm,
        "pooling": "strided" if "unet_shared.poolers.0.weight" in tensors else "max",
    }


def parts(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Part of the original -> part of our core."""
    nets = {"unet_shared.": "frame_net.", "unet_union.": "context_net.", "mt_heads.": "heads."}
    found = {}
    for name in tensors:
        part = name.rpartition(".")[0]
        for theirs, ours in nets.items():
            if part.startswith(theirs):
                changed = ours + part.removeprefix(theirs)
                found[part] = changed.removesuffix(".conv") if ".upsamplers." in changed else changed
    return found
