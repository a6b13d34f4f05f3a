"""Narrower, shallower and separable forms: they run, cost what the formulas say, and fold for export."""

import pytest
import torch
from torch import nn

import zoo

FORMS = [
    ("srcnn", {"width": 16}),
    ("srcnn", {"width": 16, "depth": 2}),
    ("srcnn", {"width": 16, "depth": 5}),
    ("deep_storm", {"width": 8, "depth": 2}),
    ("skip_storm", {"width": 8, "depth": 1}),
    ("u_storm", {"width": 8}),
    ("u_storm", {"width": 8, "depth": 1}),
    ("u_storm", {"width": 8, "depth": 3}),
    ("drl_storm", {"width": 8, "depth": 2}),
    ("dsir", {"width": 8, "separate_norm": True}),
    ("dsir", {"depth": 2, "separate_norm": True}),
    ("dsir", {"depth": 1}),
    ("fid_storm", {"width": 8, "n_blocks": 2}),
    ("fid_storm", {"width": 8, "n_blocks": 2, "separable": True}),
    ("attention_unet", {"width": 8, "depth": 1, "context": 1}),
    ("compact", {"width": 24, "blocks": 3, "dimensions": 2}),
    ("compact", {"width": 24, "blocks": 1, "separable": True, "dimensions": 2}),
]


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_small_forms_give_the_contract_s_shape_and_fold(name, options):
    torch.manual_seed(0)
    network = zoo.create_model(name, **options)
    assert zoo.count_parameters(network) < zoo.get_spec(name).parameters
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after some training: folding is then no identity
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    network.eval()
    frames = 50 * torch.rand(1, network.frames_in + (name == "compact"), 8, 16)
    with torch.no_grad():
        image, folded = network(frames), zoo.inference_form(network)(frames)
    maps = {"compact": (1, 2, 8, 8, 16), "attention_unet": (1, 1, 10, 8, 16)}
    expected = maps.get(name, (1, 1, 64, 128))
    assert image.shape == expected
    torch.testing.assert_close(folded, image, rtol=1e-4, atol=1e-5 * float(image.abs().max()))


def test_parameters_follow_the_layers():
    # FID-STORM, width w, n blocks: 9w + n (9w^2 + 2w) + 9w(w/2) + 9(w/2)(w/4) + 9(w/4)
    w, n = 8, 5
    by_hand = 9 * w + n * (9 * w * w + 2 * w) + 9 * w * w // 2 + 9 * w * w // 8 + 9 * w // 4
    assert zoo.count_parameters(zoo.create_model("fid_storm", width=w, n_blocks=n)) == by_hand
    separable = zoo.create_model("fid_storm", width=w, n_blocks=n, separable=True)
    assert zoo.count_parameters(separable) == by_hand - n * (9 * w * w - 9 * w - w * w)
    by_hand = (81 * 16 + 16) + (16 * 8 + 8) + 2 * (8 * 8 + 8) + (8 * 25 + 1)  # two more mappings
    assert zoo.count_parameters(zoo.create_model("srcnn", width=16, depth=5)) == by_hand
    down, up = (9 * 16 + 16) + (9 * 16 * 8 + 8), (4 * 8 * 16 + 16) + (4 * 16 * 8 + 8)
    by_hand = down + up + (9 * 8 + 1) + 2 * (16 + 8 + 16 + 8 + 1)
    assert zoo.count_parameters(zoo.create_model("dsir", depth=2, separate_norm=True)) == by_hand
    blocks = [(1, 8, 9), (8, 16, 9), (16, 4, 9), (8 + 4, 1, 1)]  # U-STORM with one pooling
    by_hand = sum(size * before * after + 3 * after for before, after, size in blocks)
    assert zoo.count_parameters(zoo.create_model("u_storm", width=8, depth=1)) == by_hand


def test_separable_is_a_depthwise_then_a_pointwise_convolution():
    torch.manual_seed(1)
    layer = zoo.SeparableConv2d(3, 4, 3)
    x = torch.randn(1, 3, 5, 6)
    full = torch.einsum("oc,cij->ocij", layer.mix.weight[:, :, 0, 0], layer.each.weight[:, 0])  # the joint kernel
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, full, layer.mix.bias, padding=1))


def test_canonical_keys_are_unchanged_by_the_options():
    published = {"deep_storm": (32, 3), "drl_storm": (32, 3), "srcnn": (64, 3), "u_storm": (32, 2), "dsir": (16, 3)}
    for name, (width, depth) in published.items():
        options = {"width": width, "depth": depth}
        plain, asked = zoo.create_model(name).state_dict(), zoo.create_model(name, **options).state_dict()
        assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in asked.items()}
    assert [block.first.dilation[0] for block in zoo.create_model("compact").core.trunk] == [1, 2, 4, 2, 1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("srcnn", {"width": 0}),
        ("deep_storm", {"depth": 4}),
        ("u_storm", {"depth": 4}),
        ("dsir", {"depth": 0}),
        ("compact", {"blocks": 6}),
        ("fid_storm", {"width": 1.5}),
    ],
)
def test_impossible_sizes_are_refused(name, options):
    with pytest.raises(ValueError, match=r"is (0|4|6|1\.5)"):
        zoo.create_model(name, **options)
