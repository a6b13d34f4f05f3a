"""Which original a file's tensors belong to, the tensors under our names, and into a network with them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._errors import OriginalFileError
from ._layouts import LAYOUTS, Layout
from ._readers import OriginalFile

_KERAS_TAILS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")

# Published weights, by their first kernel: median of (true - found) position of isolated and dense emitters
# on 600 simulated frames (2,000-5,000 photons, background 120, sigma 110 and 130 nm), decoded with offset 0.
# Their programs' own conventions do not hold here: (j + 1) p would have shown 0.5.
MEASURED_OFFSETS = {
    "2f5258d34a23ea2a": (-0.15, 0.25),  # FID-STORM's pickle
    "746ada9d30202025": (0.0, -0.1),  # FID-STORM's ONNX files with 5 blocks
    "8c2ae5830d8a0bc7": (-0.25, -0.35),  # FID-STORM's ONNX file with 13 blocks
    "699f9f10ab3b2d41": (0.1, 0.25),  # DSIR
}


@dataclass(frozen=True, kw_only=True)
class Translation:
    """An original's tensors under our names.

    Attributes:
        layout: what the file was recognised as.
        options: of our builder, so that the network fits.
        tensors: our name inside `core` -> tensor.
        copied: original name -> our name.
        dead: original names that the original never uses.
        skipped: original names that need no place here (counters).
        guessed: options that the file does not tell and that were assumed, with the reason.
    """

    layout: Layout
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    copied: dict[str, str]
    dead: tuple[str, ...]
    skipped: tuple[str, ...]
    guessed: dict[str, str] = field(default_factory=dict)

    @property
    def offset(self) -> tuple[tuple[float, float], str]:
        """What `decode` adds to index + 1/2, (x, y) in fine pixels, and where the number comes from."""
        first = next(
            (self.tensors[name] for name in ("first.conv.weight", "conv1.weight") if name in self.tensors),
            None,
        )
        if first is not None:
            digest = hashlib.sha256(first.contiguous().numpy().tobytes()).hexdigest()[:16]
            if digest in MEASURED_OFFSETS:
                return MEASURED_OFFSETS[digest], "measured on simulated frames with these published weights"
        return self.layout.conventions.offset_px, self.layout.conventions.offset_source


def recognise(original: OriginalFile) -> tuple[Layout, dict[str, Any], dict[str, Tensor]]:
    """The layout of a file's tensors, the builder options they tell, and the tensors without wrapper
    prefixes.

    Raises:
        OriginalFileError: no known layout; the message shows some of the names.
    """
    tensors = _unwrap(original.tensors)
    for layout in LAYOUTS:
        options = layout.recognise(tensors)
        if options is not None:
            return layout, options, tensors
    some = ", ".join(list(tensors)[:4])
    raise OriginalFileError(
        f"{original.path.name}: its tensors ({some}, ...) are of no known original; "
        f"known layouts: {', '.join(layout.name for layout in LAYOUTS)}"
    )


def _unwrap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = dict(tensors)
    for _ in range(4):
        prefix = next((w for w in _WRAPPERS if named and all(name.startswith(w) for name in named)), None)
        if prefix is None:
            break
        named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
    return named


def translate(original: OriginalFile, *, body_activation: str | None = None) -> Translation:
    """Put the tensors of an original's file under our names.

    Args:
        original: from `read_original`.
        body_activation: of FID-STORM, where the file does not tell ("relu" or "leaky_relu").

    Raises:
        OriginalFileError: no known layout, or tensors that have no place in our network.
    """
    layout, options, tensors = recognise(original)
    guessed = {}
    if "body_activation" in options:
        told = body_activation or original.notes.get("body_activation")
        if told is None:
            guessed["body_activation"] = (
                f"{options['body_activation']} assumed for {options['n_blocks']} blocks, as in the published files; "
                "the file does not tell"
            )
        options["body_activation"] = told or options["body_activation"]
    parts = layout.parts(tensors)
    keras = layout.name.startswith("keras")
    result: dict[str, Tensor] = {}
    copied: dict[str, str] = {}
    dead, skipped, unknown = [], [], []
    for name, tensor in tensors.items():
        part, _, tail = name.rpartition("/" if keras else ".")
        tail = _KERAS_TAILS.get(tail, tail) if keras else tail
        if re.fullmatch(layout.dead, name):
            dead.append(name)
        elif tail == "num_batches_tracked":
            skipped.append(name)
        elif part in parts:
            ours = f"{parts[part]}.{tail}"
            copied[name] = ours
            result[ours] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise OriginalFileError(
            f"{original.path.name}: recognised as {layout.name}, which has no tensor {unknown[0]!r} "
            f"(and {len(unknown) - 1} more without a place)"
        )
    return Translation(
        layout=layout,
        options=options,
        tensors=result,
        copied=copied,
        dead=tuple(dead),
        skipped=tuple(skipped),
        guessed=guessed,
    )


def fill(core: nn.Module, translation: Translation, *, file: str) -> None:
    """Copy translated tensors into a network's core; all or nothing.

    Raises:
        OriginalFileError: a tensor is missing, superfluous, or of another shape; names it with both shapes.
    """
    own = {name: t for name, t in core.state_dict().items() if not name.endswith("num_batches_tracked")}
    back = {ours: theirs for theirs, ours in translation.copied.items()}
    problems = [f"{back[name]!r} ({name}) has no place" for name in translation.tensors.keys() - own.keys()]
    problems += [f"nothing in the file for our {name!r}" for name in own.keys() - translation.tensors.keys()]
    for name, tensor in translation.tensors.items():
        if name in own and own[name].shape != tensor.shape:
            problems.append(f"{back[name]!r} is {tuple(tensor.shape)}, but our {name!r} is {tuple(own[name].shape)}")
    gaussian = translation.tensors.get("residual.gaussian_weights")
    if gaussian is not None and not torch.equal(gaussian, gaussian[:1, :1].expand_as(gaussian)):
        problems.append("'gaussian_weights' holds different kernels; the fixed layer needs 1024 equal ones")
    if any(bool((t < 0).any()) for name, t in translation.tensors.items() if name.endswith("running_var")):
        problems.append("a running variance is negative")
    if problems:
        raise OriginalFileError(
            f"{file}: recognised as {translation.layout.name}, but it does not fit: "
            + "; ".join(sorted(problems)[:3])
            + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        )
    core.load_state_dict(translation.tensors, strict=False)
