"""Key maps of the attention U-Net's state dicts, V1 (`decoder.unet...`) and V2 (`unet`, `mha`, `unet2`, `final`)."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Tensors = Mapping[str, Tensor]

SOURCE = "github.com/super-resolution/SMLM-AttentionAI"
# temporal attention: theirs -> ours
_TIME = {
    "groupnorm": "norm",
    "conv_input": "enter",
    "conv_output": "leave",
    "mha.norm": "attention.norm",
    "mha.q": "attention.query",
    "mha.k": "attention.key",
    "mha.v": "attention.value",
    "mha.mha": "attention",
    "mha.mha.out_proj": "attention.out_proj",
    "mlp.layernorm": "mlp.norm",
    "mlp.lin1": "mlp.lift",
    "mlp.lin2": "mlp.gate",
    "mlp.lin3": "mlp.lower",
}


def attention_recognise(first: str, *others: str) -> Callable[[Tensors], dict[str, Any] | None]:
    """A recogniser that tells the width from the first convolution's kernel."""

    def recognise(tensors: Tensors) -> dict[str, Any] | None:
        if not all(name in tensors for name in (first, *others)):
            return None
        return {"width": len(tensors[first])}

    return recognise


def _heads(prefix: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for head in range(4):
        parts |= {
            f"{prefix}final.{head}.first.0": f"heads.wide.{head}",
            f"{prefix}final.{head}.out_conv": f"heads.last.{head}",
        }
    return parts


def attention_v2_parts(_: Tensors) -> dict[str, str]:
    """Part of the original -> part of our core, AttentionUNetV2."""
    parts = _heads("") | {f"mha.{theirs}": f"time.{ours}" for theirs, ours in _TIME.items()}
    parts["mha.pos_encoding"] = "time.position"
    for theirs, ours in (("unet", "first"), ("unet2", "second")):
        parts |= {f"{theirs}.initial_conv": f"{ours}.first", f"{theirs}.final": f"{ours}.last"}
        for step in (0, 1):
            for layer in (0, 1, 3, 4):
                down, up = f"d_path.{step}.maxpool_conv.1.double_conv", f"u_path.{step}.conv.double_conv"
                parts[f"{theirs}.{down}.{layer}"] = f"{ours}.down{step + 1}.{layer}"
                parts[f"{theirs}.{up}.{layer}"] = f"{ours}.up{step + 1}.{layer}"
    return parts


def attention_v1_parts(_: Tensors) -> dict[str, str]:
    """The same for AttentionUNet (V1)."""
    parts = _heads("decoder.")
    parts |= {f"decoder.{theirs}": f"time.{ours}" for theirs, ours in _TIME.items()}
    for theirs, ours in (("unet", "first"), ("unet2", "second")):
        for layer in (0, 2):
            parts[f"decoder.{theirs}.base.{layer}"] = f"{ours}.base.{layer}"
            for half in ("encoder", "decoder"):
                parts |= {f"decoder.{theirs}.{half}.{i}.{layer}": f"{ours}.{half}.{i}.{layer}" for i in (0, 1)}
        for i in (0, 1):
            parts[f"decoder.{theirs}.poolers.{i}"] = f"{ours}.poolers.{i}"
            parts[f"decoder.{theirs}.upsamplers.{i}.conv"] = f"{ours}.upsamplers.{i}"
        parts[f"decoder.{theirs}.out_conv"] = f"{ours}.last"
    return parts
