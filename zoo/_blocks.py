"""What the image networks share: convolution blocks, normalisation, enlarging, and the module round a
core."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._outputs import SRImage

Padding = Literal["zeros", "replicate"]
NORMALISATIONS = ("dataset", "min_max", "z_score", "none")
ENLARGEMENTS = ("nearest", "bilinear", "bicubic", "none")


class UpConv2d(nn.Conv2d):
    """Nearest upsampling x2, then a 3x3 convolution with zero padding: (N, C, H, W) -> (N, O, 2H, 2W).

    Keeps the parameters of that 3x3 convolution, but computes with 4/9 of the multiplications: each of the
    four phases of the fine grid sees only 2x2 coarse pixels, so the whole is a transposed convolution, stride
    2, whose 4x4 kernel is the 3x3 one summed over a 2x2 box. Exact, and differentiable. With another padding
    than zeros the two steps are done one after the other.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True, padding_mode: Padding = "zeros"):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return F.conv_transpose2d(x, self.wide_kernel(), self.bias, stride=2, padding=1)

    def wide_kernel(self) -> Tensor:
        """The 4x4 kernel of the transposed convolution, (in, out, 4, 4)."""
        kernel = self.weight.flip(2, 3).transpose(0, 1)
        kernel = F.pad(kernel, (0, 1)) + F.pad(kernel, (1, 0))
        return F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))


class SharedInputConv2d(nn.Conv2d):
    """A 3x3 convolution with zero padding whose input channels are all the same image, given once: (N, 1, h, w) ->
    (N, O, h, w).

    Exactly the convolution with the kernels summed over input channels; the parameters keep their full shape.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.sum(1, keepdim=True), self.bias, padding=self.padding)


class SeparableConv2d(nn.Module):
    """A convolution of each channel alone, then one that mixes them (1x1): (N, C, H, W) -> (N, O, H, W).

    With a kernel of k x k it takes k^2 C + C O multiplications a pixel instead of k^2 C O.

    Source: Chollet 2017, arXiv:1610.02357; Howard et al. 2017, arXiv:1704.04861.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, dilation: int = 1, bias: bool = True):
        super().__init__()
        reach = dilation * (kernel // 2)
        self.each = nn.Conv2d(
            in_channels, in_channels, kernel, padding=reach, dilation=dilation, groups=in_channels, bias=False
        )
        self.mix = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.each(x))


class ConvBlock(nn.Module):
    """[nearest x2] - convolution - [batch norm] - [activation] - [2x2 max pool], image size kept by padding.

    `eps` and `momentum` are the batch norm's; what is left out is an identity. With `separable` the convolution is a
    `SeparableConv2d` (zero padding, no upsampling).
    """

    conv: nn.Conv2d | SeparableConv2d
    norm: nn.BatchNorm2d | nn.Identity
    activation: nn.Module
    pool: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        bias: bool = True,
        norm: bool = True,
        activation: nn.Module | None = None,
        pool: bool = False,
        upsample: bool = False,
        padding_mode: Padding = "zeros",
        eps: float = 1e-5,
        momentum: float = 0.1,
        separable: bool = False,
    ):
        super().__init__()
        if separable:
            self.conv = SeparableConv2d(in_channels, out_channels, kernel, bias=bias)
        elif upsample:
            self.conv = UpConv2d(in_channels, out_channels, bias=bias, padding_mode=padding_mode)
        else:
            self.conv = nn.Conv2d(
                in_channels, out_channels, kernel, padding=kernel // 2, bias=bias, padding_mode=padding_mode
            )
        self.norm = nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum) if norm else nn.Identity()
        self.activation = activation if activation is not None else nn.Identity()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.activation(self.norm(self.conv(x))))


def start_alive(block: ConvBlock, bias: float = 0.1) -> None:
    """Start a block that ends in norm and ReLU slightly above zero: the ReLU then passes gradients."""
    if isinstance(block.norm, nn.BatchNorm2d):
        nn.init.constant_(block.norm.bias, bias)


class Normalisation(nn.Module):
    """Photons to numbers near one; the settings are stored with the weights.

    Modes:
        dataset: (x - mean) / std with two stored numbers of the training data; keeps the photon scale.
        min_max: each frame to [0, 1] by its own extremes (a constant frame gives 0), then (x - mean) / std.
        z_score: each image to mean 0 and standard deviation 1 (a constant one gives 0), after enlarging.
        none: nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mode: str = "dataset"):
        super().__init__()
        if mode not in NORMALISATIONS:
            raise ValueError(f"normalisation is {mode!r}; known are: {', '.join(NORMALISATIONS)}")
        self.mode = mode
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))

    def set_statistics(self, mean: float, std: float) -> None:
        """Store mean and standard deviation of the training frames: photons, or what min-max makes of them.

        Raises:
            ValueError: not finite, or a standard deviation that is not positive.
        """
        mean, std = float(mean), float(std)
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise ValueError(f"statistics are mean {mean}, std {std}; both must be finite and std positive")
        self.mean.fill_(mean)
        self.std.fill_(std)

    @property
    def after_enlarging(self) -> bool:
        return self.mode == "z_score"

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "none":
            return x
        if self.mode == "z_score":
            centred = x - x.mean((2, 3), keepdim=True)
            spread = centred.square().mean((2, 3), keepdim=True).sqrt()
            return centred / torch.where(spread > 0, spread, 1.0)
        if self.mode == "min_max":
            low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
            x = (x - low) / torch.where(high > low, high - low, 1.0)
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return self.mode


class Enlarge(nn.Module):
    """Camera grid to fine grid, `factor` fine pixels per camera pixel and axis.

    Modes: nearest (each pixel repeated), bilinear (zero beyond the border, then cut to the frame's range, as
    scikit-image's resize with order 1 does), bicubic (border repeated), none.
    """

    def __init__(self, mode: str, factor: int):
        super().__init__()
        if mode not in ENLARGEMENTS:
            raise ValueError(f"enlarging is {mode!r}; known are: {', '.join(ENLARGEMENTS)}")
        self.mode, self.factor = mode, factor

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "none" or self.factor == 1:
            return x
        scale, s = float(self.factor), self.factor
        if self.mode == "nearest":
            return F.interpolate(x, scale_factor=scale, mode="nearest")
        if self.mode == "bicubic":
            return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
        wide = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=scale, mode="bilinear", align_corners=False)
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.minimum(torch.maximum(wide[:, :, s:-s, s:-s], low), high)

    def extra_repr(self) -> str:
        return f"{self.mode}, x{self.factor}"


class ImageNetwork(nn.Module):
    """Photon frames in, super-resolved image out: normalise, enlarge, core.

    Args:
        core: the network proper, (N, frames_in, h, w) -> (N, 1, ...).
        output: meaning of the result.
        normalisation: mode of `Normalisation`.
        enlarge: mode of `Enlarge`; "none" when the core takes camera pixels.
        core_multiple: height and width of the core's input must be multiples of this.
        frames_in: frames per input.
    """

    def __init__(
        self,
        core: nn.Module,
        *,
        output: SRImage,
        normalisation: str = "dataset",
        enlarge: str = "nearest",
        core_multiple: int = 1,
        frames_in: int = 1,
    ):
        super().__init__()
        self.normalisation = Normalisation(normalisation)
        self.enlarge = Enlarge(enlarge, output.upsampling)
        self.core = core
        self.output = output
        self.frames_in = frames_in
        factor = 1 if enlarge == "none" else output.upsampling
        self.size_multiple = core_multiple // math.gcd(core_multiple, factor)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, frames_in, H, W) photons -> (N, 1, sH, sW), s = `output.upsampling`.

        Raises:
            ValueError: not four axes, wrong number of channels, empty, or a size that is no multiple of
                `size_multiple`.
        """
        if not torch.compiler.is_compiling():  # sizes are free in exported and compiled graphs
            self._check(frames)
        if self.normalisation.after_enlarging:
            return self.core(self.normalisation(self.enlarge(frames)))
        return self.core(self.enlarge(self.normalisation(frames)))

    def _check(self, frames: Tensor) -> None:
        name = getattr(self, "model_name", "this network")
        if frames.ndim != 4 or frames.shape[1] != self.frames_in:
            raise ValueError(
                f"frames are {tuple(frames.shape)}; {name} needs (batch, {self.frames_in}, height, width): "
                f"{self.frames_in} channel{'s' if self.frames_in > 1 else ''}"
            )
        refuse_sizes(name, frames, self.size_multiple)


def refuse_sizes(name: str, frames: Tensor, multiple: int) -> None:
    """Refuse (..., H, W) frames that are empty or no multiple.

    Raises:
        ValueError: names the model, the size, and the size to pad to.
    """
    height, width = frames.shape[-2:]
    if height < 1 or width < 1:
        raise ValueError(f"frames are {height} x {width} pixels; {name} needs at least one pixel each way")
    if height % multiple or width % multiple:
        up = [math.ceil(size / multiple) * multiple for size in (height, width)]
        raise ValueError(
            f"frames are {height} x {width} pixels; {name} needs multiples of {multiple}. "
            f"Pad to {up[0]} x {up[1]} and crop the result."
        )


def image_output(*, upsampling: int, **settings: Any) -> SRImage:
    """SRImage for a network of this zoo, which enlarges 4 or 8 times.

    Raises:
        ValueError: another upsampling.
    """
    if upsampling not in (4, 8):
        raise ValueError(f"upsampling is {upsampling!r}; the image networks of the zoo take 4 or 8")
    return SRImage(upsampling=upsampling, **settings)


def scaled(channels: int, width: int, canonical: int) -> int:
    """`channels` of the canonical form, for a network of another `width`: at least 1."""
    return max(1, channels * width // canonical)


def check_width(width: int, least: int = 1) -> None:
    """Refuse a width that gives no network.

    Raises:
        ValueError: not a whole number of at least `least`.
    """
    if int(width) != width or width < least:
        raise ValueError(f"width is {width!r}; give a whole number of features, at least {least}")


def choose(what: str, value: Any, known: tuple[Any, ...]) -> None:
    """Refuse an option value that is not among the known ones.

    Raises:
        ValueError: names the option, the value, and the known values.
    """
    if value not in known:
        raise ValueError(f"{what} is {value!r}; known are: {', '.join(map(repr, known))}")


def kaiming_init(module: nn.Module) -> None:
    """Kaiming-normal kernels for ReLU and zero biases, for every convolution in `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def inference_form(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode for export and timing: the same function in fewer steps.

    Batch norms that follow a convolution are folded into it, `UpConv2d` becomes a plain transposed convolution, and
    `SharedInputConv2d` a plain one with one input channel.
    """
    form = copy.deepcopy(model).eval()
    for parameter in form.parameters():
        parameter.requires_grad_(False)
    for parent in list(form.modules()):
        if isinstance(parent, (nn.Sequential, ConvBlock)):
            _fold_norms(parent)
    return replace_layers(form, _plain)


def replace_layers(form: nn.Module, other: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Put `other(layer)` in the place of every layer within for which it gives one, and return `form`."""
    for parent in list(form.modules()):
        for name, child in list(parent.named_children()):
            new = other(child)
            if new is not None:
                setattr(parent, name, new)
    return form


class HalfMaximum(nn.Module):
    """The 2x2 max pool as two maxima of slices, faster on CPUs in channels-last: (N, C, H, W) -> (N, C, H//2, W//2)."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
        return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


def with_lean_blocks(form: nn.Module) -> nn.Module:
    """Change the `ConvBlock`s of an inference form in place for CPUs: ReLU comes after the max pool, whose quarter of
    the numbers it overwrites. The same function to the last bit."""
    for block in list(form.modules()):
        if isinstance(block, ConvBlock) and isinstance(block.activation, nn.ReLU):
            block.activation = nn.ReLU(inplace=True)
            if isinstance(block.pool, nn.MaxPool2d):
                block.activation, block.pool = HalfMaximum(), block.activation
    return form


class InFloat32(nn.Module):
    """A layer that autocast leaves in float32."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.float())


def with_exact_input(form: nn.Module) -> nn.Module:
    """Leave the convolution that sees the photons in float32 under autocast, in place: rounded to three digits, they
    move the localizations of some networks by 1 nm.

    Args:
        form: of an `ImageNetwork`.
    """
    channels = getattr(form, "frames_in", 1)
    first = next(
        (layer for layer in form.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == channels), None
    )
    return replace_layers(form, lambda layer: InFloat32(layer) if layer is first else None)


def _fold_norms(block: nn.Module) -> None:
    names = [name for name, _ in block.named_children()]
    for first, second in itertools.pairwise(names):
        conv, norm = getattr(block, first), getattr(block, second)
        if isinstance(conv, SeparableConv2d):
            conv = conv.mix
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
            assert norm.running_mean is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
            conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
            conv.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias, requires_grad=False)
            setattr(block, second, nn.Identity())


def _plain(layer: nn.Module) -> nn.Module | None:
    """The plain convolution that a layer of ours is, in evaluation mode; None for other layers."""
    form: nn.Conv2d | nn.ConvTranspose2d
    if isinstance(layer, UpConv2d) and layer.padding_mode == "zeros":
        kernel = layer.wide_kernel()
        form = nn.ConvTranspose2d(
            layer.in_channels, layer.out_channels, 4, stride=2, padding=1, bias=layer.bias is not None
        )
    elif isinstance(layer, SharedInputConv2d):
        kernel = layer.weight.sum(1, keepdim=True)
        form = nn.Conv2d(1, layer.out_channels, 3, padding=1, bias=layer.bias is not None)
    else:
        return None
    form.weight = nn.Parameter(kernel.detach().contiguous(), requires_grad=False)
    if layer.bias is not None:
        form.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return form.to(layer.weight.device).eval()
