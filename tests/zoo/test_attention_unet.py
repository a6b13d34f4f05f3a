"""The attention U-Net: what its entry promises, and what each of its parts computes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
import zoo._temporal_attention as pieces
from zoo._temporal_attention import Attention, PositionCode, TemporalAttention, in_parts
from zoo.attention_unet import CHANNELS, BlockNormalisation, Heads, UNet, gmm_activation, gmm_activation_8

BOTH = ("attention_unet", "attention_unet_v1")


def network(name="attention_unet", seed=0, **options):
    torch.manual_seed(seed)
    model = zoo.create_model(name, **{"width": 8, **options})
    for module in model.modules():  # as after some training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, Attention):
            nn.init.normal_(module.in_proj_bias, std=0.3)
    return model.eval()


def photons(*shape, seed=1):
    return 100 + 30 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- what the entry promises


@pytest.mark.parametrize(
    ("width", "parameters"), [(96, 25_117_110), (48, 6_287_094), (32, 2_797_750), (24, 1_575_702), (16, 702_070)]
)
def test_parameters_are_the_published_ones(width, parameters):
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model("attention_unet", width=width)) == parameters


def test_parameters_of_v1_are_the_published_ones_without_the_unused():
    assert zoo.count_parameters(zoo.create_model("attention_unet_v1")) == 3_117_798 - 482_304
    with torch.device("meta"):
        deep = zoo.create_model("attention_unet_v1", width=128)
    unused = 2 * 512 + 6 * (512**2 + 512) + 512**2 + 512  # the second attention,
    unused += 2 * 512 + 2 * (2 * 512**2 + 1024) + 2 * 512**2 + 512  # and its gated layers
    assert zoo.count_parameters(deep) + unused == 22_107_318


@pytest.mark.parametrize(("name", "width", "gflop"), [("attention_unet", 96, 52.8), ("attention_unet", 48, 13.2)])
def test_work_is_that_of_the_table(name, width, gflop):
    macs = zoo.count_macs(zoo.create_model(name, width=width, context=8), 64, 64)
    assert 2e-9 * macs.published == pytest.approx(gflop, abs=0.1)
    assert macs.done < macs.published


def test_work_grows_with_the_context():
    short, long = (TemporalAttention(96, context=t).macs(64 * 64)[0] for t in (8, 108))
    assert 2e-9 * (long - short) == pytest.approx(100 * 0.0016, rel=0.02)


def test_options_are_checked():
    for options in ({"width": 20}, {"width": 0}, {"context": 0}, {"normalisation": "z_score"}):
        for name in BOTH:
            with pytest.raises(ValueError, match=next(iter(options))):
                zoo.create_model(name, **options)
    assert network(context=30).context == 30
    assert zoo.get_spec("attention_unet").output.channels == CHANNELS


@pytest.mark.parametrize("size", [(4, 5), (7, 9), (6, 11), (12, 8)])
def test_any_sides_from_four_pixels(size):
    with torch.no_grad():
        maps = network()(photons(1, 3, *size))
    assert tuple(maps.shape) == (1, 3, 10, *size)
    assert torch.isfinite(maps).all()


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 4 x 4"):
        network()(photons(1, 2, 3, 8))
    with pytest.raises(ValueError, match=r"2001 frames.*2000"):
        network()(torch.zeros(1, 2001, 4, 4))
    with pytest.raises(ValueError, match="multiples of 4"):
        network("attention_unet_v1")(photons(1, 2, 8, 10))


@pytest.mark.parametrize("name", BOTH)
def test_one_block_alone_equals_the_same_block_in_a_batch(name):
    model, frames = network(name), photons(3, 4, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(model(frames)[1:2], model(frames[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_gradients_reach_every_weight(name):
    model = network(name).train()
    maps = model(photons(2, 3, 8, 8))
    (maps - 0.3).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", BOTH)
def test_the_inference_form_is_the_same_function(name):
    model, frames = network(name), photons(1, 5, 8, 12)
    with torch.no_grad():
        expected, found = model(frames), zoo.inference_form(model)(frames)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in zoo.inference_form(model).modules())


def test_half_precision_keeps_the_maps_in_float32():
    model, frames = network(), photons(1, 3, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model(frames)
    assert maps.dtype == torch.float32
    with torch.no_grad():
        assert (maps[:, :, 0] - model(frames)[:, :, 0]).abs().max() < 0.05


def test_dropout_acts_in_training_only():
    frames = photons(1, 3, 8, 8)
    for dropout, same in ((0.1, False), (0.0, True)):
        core = network(dropout=dropout).core.time.train()
        x = torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(2))
        assert torch.equal(core(x, 3), core(x, 3)) is same
    model = network(dropout=0.5)
    assert torch.equal(model(frames), model(frames))


def test_detection_starts_low():
    for name in BOTH:
        bias = zoo.create_model(name, width=8).core.heads.last[0].bias.item()
        assert torch.sigmoid(torch.tensor(bias)).item() == pytest.approx(0.00247, abs=1e-5)


# -------------------------------------------------------------------------------------------------------- normalisation


def test_a_gain_and_an_offset_of_the_block_drop_out():
    normalise = BlockNormalisation("block")
    frames = photons(2, 5, 6, 7).double()
    torch.testing.assert_close(normalise(3.7 * frames + 250), normalise(frames))
    block = normalise(frames)[1]
    assert block.mean().item() == pytest.approx(0, abs=1e-12)
    assert block.std(correction=1).item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("mode", ["block", "block_min_max", "block_max"])
@pytest.mark.parametrize("level", [0.0, 100.1])
def test_a_constant_block_stays_finite(mode, level):
    found = BlockNormalisation(mode)(torch.full((1, 5, 8, 8), level))
    assert torch.isfinite(found).all()
    if mode != "block_max":
        assert found.abs().max() < 1e-4
    with torch.no_grad():
        assert torch.isfinite(network(normalisation=mode)(torch.full((1, 5, 8, 8), level))).all()


def test_the_other_normalisations_and_a_fixed_calibration():
    frames = photons(2, 3, 4, 4)
    low_high = BlockNormalisation("block_min_max")(frames)
    assert torch.equal(low_high.amin((1, 2, 3)), torch.zeros(2))
    assert torch.equal(low_high.amax((1, 2, 3)), torch.ones(2))
    kept = frames.clone()
    peak = BlockNormalisation("block_max")(frames)
    torch.testing.assert_close(peak[0], frames[0] / (frames[0].max() + 0.001))
    assert torch.equal(frames, kept)  # the original changes its input
    model = network(normalisation="dataset")
    model.normalisation.set_statistics(100.0, 30.0)
    with torch.no_grad():
        near, far = model(frames), model(frames + 500)
    assert (near - far).abs().max() > 1e-3  # unlike by block, the level counts
    torch.testing.assert_close(model.normalisation(frames), (frames - 100) / 30)


# ---------------------------------------------------------------------------------------------------------------- parts


def test_activations_have_their_ranges_and_leave_the_input_alone():
    logits = 40 * torch.randn(2, 10, 5, 6, generator=torch.Generator().manual_seed(0))
    kept = logits.clone()
    maps = gmm_activation(logits)
    assert torch.equal(logits, kept)
    assert maps[:, 0].min() == pytest.approx(1 / (1 + math.exp(8)), rel=1e-5)
    assert maps[:, 0].max() == pytest.approx(1 / (1 + math.exp(-8)), rel=1e-6)
    assert maps[:, 2:5].abs().max() <= 1
    assert maps[:, 5:9].min() >= 0.001
    assert maps[:, 5:9].max() <= 3.001 + 1e-6
    assert torch.equal(maps[:, 9], logits[:, 9])
    old = gmm_activation_8(logits[:, :8])
    torch.testing.assert_close(old[:, 3], 3 * torch.sigmoid(logits[:, 3]) + 0.001)
    torch.testing.assert_close(old[:, 6], 2 * torch.sigmoid(logits[:, 6]))
    torch.testing.assert_close(old[:, 7], 3 * torch.sigmoid(logits[:, 7]))
    assert torch.equal(old[:, 5], logits[:, 5])


def test_the_position_code_is_its_formula():
    code = PositionCode(12, positions=60).pe
    for t, i in ((0, 0), (7, 3), (59, 5)):
        angle = t * 10000 ** (-2 * i / 12)
        assert code[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        assert code[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_folded_attention_equals_two_projections_and_torchs_own():
    torch.manual_seed(3)
    attention = Attention(16, heads=8)
    nn.init.xavier_uniform_(attention.in_proj_weight)
    nn.init.normal_(attention.in_proj_bias)
    plain = nn.MultiheadAttention(16, 8, batch_first=True)
    plain.load_state_dict({key: value for key, value in attention.state_dict().items() if key in plain.state_dict()})
    y = torch.randn(5, 7, 16)
    normed = attention.norm(y)
    expected, _ = plain(attention.query(normed), attention.key(normed), attention.value(normed))
    torch.testing.assert_close(attention(y, *attention.folded()), expected, rtol=1e-4, atol=1e-5)


def block_by_hand(block: TemporalAttention, x, frames):
    """The published steps one after the other, in the published layout (T, pixels, E)."""
    out = []
    for part in x.split(frames):
        count, width, height, columns = part.shape
        y = F.conv2d(F.group_norm(part, 8, block.norm.weight, block.norm.bias, 1e-6), block.enter.weight)
        y = (y + block.enter.bias[:, None, None]).permute(0, 2, 3, 1).reshape(count, -1, width)
        if block.position is not None:
            y = y + block.position.pe[:count, None]
        plain = nn.MultiheadAttention(width, 8)
        inner = {key: value for key, value in block.attention.state_dict().items() if key in plain.state_dict()}
        plain.load_state_dict(inner)
        n = block.attention.norm(y)
        y = y + plain(block.attention.query(n), block.attention.key(n), block.attention.value(n))[0]
        gate = F.gelu(block.mlp.gate(y), approximate="none")
        y = y + block.mlp.lower(block.mlp.lift(block.mlp.norm(y)) * gate)
        y = y.reshape(count, height, columns, width).permute(0, 3, 1, 2)
        out.append(part + block.leave(y))
    return torch.cat(out)


@pytest.mark.parametrize("positions", [0, 50])
def test_temporal_attention_is_its_published_steps(positions):
    torch.manual_seed(1)
    block = TemporalAttention(16, positions=positions, context=4).eval()
    nn.init.xavier_uniform_(block.attention.in_proj_weight)
    nn.init.normal_(block.norm.bias)
    x = 2 + torch.randn(8, 16, 5, 6)
    with torch.no_grad():
        expected = block_by_hand(block, x, 4)
        torch.testing.assert_close(block(x, 4), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(block(x, 4), expected, rtol=1e-4, atol=1e-4)  # whole, with gradients


def test_pieces_equal_the_whole_in_place_too(monkeypatch):
    torch.manual_seed(1)
    block = TemporalAttention(8, context=3).eval()
    nn.init.xavier_uniform_(block.attention.in_proj_weight)
    x = torch.randn(6, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    model, frames = network(), photons(2, 3, 9, 10)
    with torch.no_grad():
        expected, maps = block(x, 3), model(frames)
        for tokens, pixels in ((9, 100), (45, 200)):
            monkeypatch.setattr(pieces, "_TOKENS_AT_ONCE", tokens)
            monkeypatch.setattr(pieces, "_PIXELS_AT_ONCE", pixels)
            torch.testing.assert_close(block(x, 3), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model(frames), maps, rtol=1e-3, atol=1e-4)
        twin = x.clone(memory_format=torch.preserve_format)
        assert block(twin, 3, out=twin) is twin
        torch.testing.assert_close(twin, expected, rtol=1e-4, atol=1e-5)


def test_frames_pass_a_net_in_parts_only_without_gradients():
    seen = []

    def count(images):
        seen.append(len(images))
        return images * 2

    images = torch.ones(5, 1, 256, 256)
    with torch.no_grad():
        assert torch.equal(in_parts(nn.Identity().eval(), count, images), 2 * images)
        assert seen == [1, 1, 1, 1, 1]
        in_parts(nn.Identity().train(), count, images)
    in_parts(nn.Identity().eval(), count, images)
    assert seen[5:] == [5, 5]


def test_only_v1_is_blind_to_the_order_of_frames():
    order = [3, 0, 4, 1, 2]
    frames = photons(1, 5, 8, 8)
    with torch.no_grad():
        for name, blind in (("attention_unet", False), ("attention_unet_v1", True)):
            model = network(name)
            shuffled = model(frames[:, order])
            assert torch.allclose(shuffled, model(frames)[:, order], atol=1e-5) is blind


def test_a_pixel_sees_other_frames_and_not_only_its_own():
    frames = photons(1, 4, 8, 8).requires_grad_()
    network(normalisation="dataset")(frames)[0, 0, 2].sum().backward()
    assert (frames.grad.abs().amax((0, 2, 3)) > 0).all()


def test_heads_in_one_convolution_equal_four():
    torch.manual_seed(2)
    heads = Heads(8, slope=0.01)
    x = torch.randn(2, 8, 5, 5)
    each = [last(F.leaky_relu(wide(x), 0.01)) for wide, last in zip(heads.wide, heads.last, strict=True)]
    torch.testing.assert_close(heads(x), torch.cat(each, dim=1))


def test_odd_sides_are_enlarged_with_zeros_below_and_right():
    net = UNet(1, 8).eval()
    seen = []
    net.up2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(torch.randn(1, 1, 7, 10))
    enlarged = seen[0][0, 8:]
    assert tuple(enlarged.shape) == (16, 7, 10)
    assert enlarged[:, 6].abs().max() == 0
    assert enlarged[:, 5].abs().max() > 0
    assert enlarged[:, :6, 9].abs().max() > 0


class PassedThrough(nn.Module):
    def forward(self, x, frames, *, out=None):
        return x


def test_the_receptive_field_of_the_convolutions_equals_the_entry(monkeypatch):
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)  # any of the four may be the largest
    for name in BOTH:
        torch.manual_seed(0)
        core = zoo.create_model(name, width=8).eval().core.double()
        core.time = PassedThrough()  # sees its own pixel only, but for a norm over whole frames
        for parameter in core.parameters():
            parameter.data.abs_()  # so that no path is cut by a ReLU
        widest = 0
        for row in range(64, 68):
            frames = torch.rand(1, 1, 132, 8, dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(core.logits(frames)[0, 0, :, row].sum(), frames)
            reached = gradient[0, 0].abs().amax(1).nonzero()
            widest = max(widest, 2 * max(row - int(reached.min()), int(reached.max()) - row) + 1)
        assert zoo.get_spec(name).receptive_field_px == widest


# ------------------------------------------------------------------------------------------------------- exported graph


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_the_exported_graph_takes_any_batch_frames_and_size(name, tmp_path):
    from harness.export import export_onnx
    from harness.runtimes import OnnxRuntime

    model = network(name)
    graph = OnnxRuntime(export_onnx(model, tmp_path / "model.onnx"), device="cpu")
    shapes = [(1, 1, 8, 8), (2, 7, 24, 36), (1, 60, 16, 8)]
    shapes += [(1, 5, 23, 29), (3, 2, 4, 5)] if name == "attention_unet" else []
    for shape in shapes:
        frames = photons(*shape)
        with torch.no_grad():
            torch.testing.assert_close(graph(frames), model(frames), rtol=0, atol=3e-4)
