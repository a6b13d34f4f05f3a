"""Fine-tuning for int8: the network learns with the rounding that its int8 file will do.

The places and ranges of the rounding are read from the static int8 file and put into the network's graph, so that what
is trained is what runs: activations per tensor with fixed scale and zero point, kernels per output channel with the
scale of their largest weight. Gradients pass rounding unchanged and stop where values are cut.

Source: Jacob et al. 2018, arXiv:1712.05877 (section 3, simulated quantisation); norms are folded beforehand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import zoo
from harness.export import free_sizes
from harness.ready import Network
from harness.training import TrainConfig, resolve_config
from harness.training.config import make_config
from harness.training.data import Validation, open_sources
from harness.training.fit import no_denormals
from losses import Loss, create_loss
from zoo import ImageNetwork, inference_form

OTHER_SEED = 7919  # batches and validation frames that the training did not see
RATE = 0.05  # of the training's learning rate
_ROUND = torch.fake_quantize_per_tensor_affine
_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)

Range = tuple[float, int]
"""Scale and zero point of an activation's 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a file does at one convolution.

    Args:
        names: of its output and of its kernel; one of them is known in the network's graph, too.
        before, after: range of the input and of the output; None where they stay as they are.
        kernel: shape of the kernel, (out, in / groups, k, k).
        rounded: whether the kernel is in 8 bits.
    """

    names: tuple[str, str]
    before: Range | None
    after: Range | None
    kernel: tuple[int, ...]
    rounded: bool


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What fine-tuning gave.

    Args:
        network: in its inference form, with the new weights.
        steps, seconds: that it took.
        before, after: loss on frames that were not trained on, rounded as the file does.
    """

    network: Network
    steps: int
    seconds: float
    before: float
    after: float

    @property
    def better(self) -> bool:
        """Whether the loss fell."""
        return self.after < self.before


def activation_ranges(path: Path) -> dict[str, Range]:
    """Scale and zero point of every activation that an int8 file quantises, by the tensor's name."""
    import onnx

    model = onnx.load(str(path))
    values = _initialisers(model)
    return {
        node.input[0]: (float(values[node.input[1]]), int(values[node.input[2]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def places_of(path: Path) -> list[Place]:
    """What an int8 file does at each of its convolutions, in the order of the graph."""
    import onnx

    model = onnx.load(str(path))
    values, ranges = _initialisers(model), activation_ranges(path)
    made = {output: node for node in model.graph.node for output in node.output}
    places = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        source, kernel = (made.get(name) for name in node.input[:2])
        before = None
        if source is not None and source.op_type == "DequantizeLinear":
            before = ranges[made[source.input[0]].input[0]]
        rounded = kernel is not None and kernel.op_type == "DequantizeLinear"
        stored = kernel.input[0] if kernel is not None and rounded else node.input[1]
        places.append(
            Place(
                names=(node.output[0], stored.removesuffix("_quantized")),
                before=before,
                after=ranges.get(node.output[0]),
                kernel=values[stored].shape,
                rounded=rounded,
            )
        )
    return places


def rounding(network: nn.Module, file: Path) -> torch.fx.GraphModule:
    """A network that rounds as its int8 file does, and can be trained.

    Args:
        network: in its inference form; the result shares its parameters.
        file: written by `int8_file` from that network.

    Returns:
        A module: frames as the network takes them, of any number and size -> its output.

    Raises:
        ValueError: the file is not of this network.
    """
    places = places_of(file)
    example, sizes = free_sizes(network)
    if 1 in sizes:  # one frame's maps alone would be traced by themselves
        sizes[1] = torch.export.Dim("frames", min=getattr(network, "frames_in", 1) + 1)
    module: Any = torch.export.export(network, (example,), dynamic_shapes=(sizes,)).module()
    graph = module.graph
    nodes = [node for node in graph.nodes if node.op == "call_function" and node.target in _CONVOLUTIONS]
    places = _matched(places, nodes, file)
    for node in nodes:
        _fold_norm(graph, node)
    done: dict[Any, Range] = {}

    def put(node: Any, span: Range) -> None:
        """Round a tensor for all that use it, once."""
        if node.target is _ROUND:
            return
        if done.setdefault(node, span) != span:
            raise ValueError(f"{file} rounds one activation in two ways; quantise the network anew")
        with graph.inserting_after(node):
            rounded = graph.call_function(_ROUND, (node, *span, 0, 255))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded)

    for node, place in zip(nodes, places, strict=True):
        if place.before is not None:
            put(node.args[0], place.before)
        if place.rounded:
            with graph.inserting_before(node):
                node.update_arg(1, graph.call_function(rounded_kernel, (node.args[1],)))
        if place.after is not None:
            put(node, place.after)
    graph.lint()
    module.recompile()
    return module


def rounded_kernel(weight: Tensor) -> Tensor:
    """Kernels (out, ...) in 8 bits, -127 to 127 for each output channel, as float32 with straight-through gradients."""
    with torch.no_grad():
        largest = weight.abs().flatten(1).amax(1)
        scale = torch.where(largest > 0, largest / 127, 1.0)
        zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


def _matched(places: list[Place], nodes: list[Any], file: Path) -> list[Place]:
    """The places in the order of the network's convolutions: by the name of the output, else of the kernel.

    Raises:
        ValueError: they are not those of this network.
    """
    left, found = list(places), []
    for node in nodes:
        kernel = tuple(node.args[1].meta["val"].shape)
        same = [
            place
            for number, name in enumerate((node.name, str(node.args[1].target)))
            for place in left
            if place.names[number] == name and place.kernel == kernel
        ]
        if not same:
            raise ValueError(f"{file} has no convolution {node.name} {kernel}: it is not of this network; quantise it")
        left.remove(same[0])
        found.append(same[0])
    if left:
        raise ValueError(f"{file} has convolutions that the network has not: {left[0].names[1]}; quantise the network")
    return found


def _fold_norm(graph: Any, convolution: Any) -> None:
    """Put a batch norm with stored statistics that follows a convolution into its kernel, as the exporter does."""
    users = list(convolution.users)
    if len(users) != 1 or users[0].target is not torch.ops.aten.batch_norm.default or users[0].args[5]:
        return
    norm = users[0]
    gamma, beta, mean, variance = norm.args[1:5]
    eps = norm.args[7]
    x, weight, bias, *rest = [*convolution.args, None][: max(3, len(convolution.args))]
    with graph.inserting_before(convolution):
        kernel = graph.call_function(_folded_kernel, (weight, gamma, variance, eps))
        shift = graph.call_function(_folded_shift, (bias, gamma, beta, mean, variance, eps))
    convolution.args = (x, kernel, shift, *rest)
    norm.replace_all_uses_with(convolution)
    graph.erase_node(norm)


def _folded_kernel(weight: Tensor, gamma: Tensor, variance: Tensor, eps: float) -> Tensor:
    return weight * (gamma * torch.rsqrt(variance + eps)).view(-1, 1, 1, 1)


def _folded_shift(
    bias: Tensor | None, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    return ((0.0 if bias is None else bias) - mean) * gamma * torch.rsqrt(variance + eps) + beta


def training_of(card: dict[str, Any]) -> TrainConfig:
    """How a model was trained, by its card; its training recipe where the card does not say."""
    config = (card.get("training") or {}).get("config")
    return make_config(config, origin="the card") if config else resolve_config(card["model"])


def tune(
    network: Network,
    file: Path,
    config: TrainConfig,
    *,
    minutes: float,
    steps: int | None = None,
    progress: bool = True,
) -> Tuned:
    """Train a network a little with the rounding of its int8 file, on its own frames with its own loss.

    The learning rate is a twentieth of the training's and falls to 0. Norms keep their statistics.

    Args:
        network: any; it is not changed.
        file: static int8, of this network.
        config: of its training: frames, loss, learning rate.
        minutes: that it may take. steps: that it may take at most, too.
        progress: show a bar.

    Raises:
        ValueError: the file is not of this network, or the frames of the training are not to be had.
        FloatingPointError: the loss is no number any more.
    """
    config = config.model_copy(update={"seed": config.seed + OTHER_SEED})
    source, validation = open_sources(config, network, torch.device("cpu"))
    form: Any = inference_form(network)
    for parameter in form.parameters():
        parameter.requires_grad_(True)
    options = dict(config.loss_options)
    if isinstance(network, ImageNetwork):
        options["target_scale"] = network.output.target_scale
    loss = create_loss(config.loss or zoo.get_spec(config.model).loss, **options)
    module = rounding(form, file)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=RATE * config.learning_rate, eps=1e-12)
    before = _loss_on(module, loss, validation)
    started, step, done = time.monotonic(), 0, 0.0
    with no_denormals(), _bar(progress) as show:
        while done < 1:
            for group in optimiser.param_groups:
                group["lr"] = RATE * config.learning_rate * _schedule(done)
            frames, target = source.batch(step)
            value = loss(module(frames), target)
            if not torch.isfinite(value):
                raise FloatingPointError(f"the loss is {value.item()} at step {step} of the tuning for int8")
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.clip)
            optimiser.step()
            step += 1
            done = max((time.monotonic() - started) / (60 * minutes), step / steps if steps else 0.0)
            show(done, f"step {step}, loss {value.item():.4g}")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            form.get_parameter(name).copy_(parameter)
    for parameter in form.parameters():
        parameter.requires_grad_(False)
    seconds = time.monotonic() - started
    after = _loss_on(module, loss, validation)
    return Tuned(network=form, steps=step, seconds=seconds, before=before, after=after)


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar with the time left, on stderr; gives a function that takes the share that is done and a word on it."""
    if not shown:
        yield lambda done, state: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
    with Progress(TextColumn("tuning for int8"), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0, state="")
        yield lambda done, state: bar.update(task, completed=min(done, 1.0), state=state)


def _schedule(done: float) -> float:
    """Factor on the learning rate: up over the first tenth, then down to 0 along a cosine."""
    return min((done + 0.01) / 0.1, 1.0) * (0.5 + 0.5 * math.cos(math.pi * done))


def _loss_on(module: nn.Module, loss: Loss, validation: Validation) -> float:
    """Loss on the validation frames."""
    with torch.no_grad():
        parts = torch.cat([module(part) for part in validation.frames.split(8)])
        return loss(parts.flatten(0, 1) if parts.ndim == 5 else parts, validation.target).item()


def _initialisers(model: Any) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
