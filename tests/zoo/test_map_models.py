"""Localization networks against what their entries promise."""

import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo import EmitterMaps, MapNetwork
from zoo._elu import elu

MAP_MODELS = [name for name in zoo.list_models() if isinstance(zoo.get_spec(name).output, EmitterMaps)]
SMALL = {
    "attention_unet": {"width": 8},
    "attention_unet_v1": {"width": 8},
    "compact": {"width": 24},
    "decode": {"width": 8},
}


def small(name, **options):
    torch.manual_seed(0)
    model = zoo.create_model(name, **{**SMALL.get(name, {}), **options}).eval()
    model.normalisation.set_statistics(100.0, 30.0)
    return model


def photons(*shape):
    return 100 + 30 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MAP_MODELS)
def test_every_frame_with_neighbours_gets_its_maps(name):
    model = small(name)
    assert isinstance(model, MapNetwork)
    count = model.frames_before + model.frames_after + 2
    with torch.no_grad():
        maps = model(photons(2, count, 8, 16))
    assert tuple(maps.shape) == (2, 2, len(model.output.channels), 8, 16)
    assert torch.isfinite(maps).all()
    probability = maps[:, :, model.output.index("probability")]
    assert (probability > 0).all()
    assert (probability < 1).all()


@pytest.mark.parametrize("name", MAP_MODELS)
def test_too_few_frames_and_wrong_sizes_are_refused(name):
    model = small(name)
    with pytest.raises(ValueError, match="needs"):
        model(photons(1, 8, 8))
    if model.frames_in > 1:
        with pytest.raises(ValueError, match=f"at least {model.frames_in} frames"):
            model(photons(1, model.frames_in - 1, 8, 8))
    if model.size_multiple > 1:
        with pytest.raises(ValueError, match=f"multiples of {model.size_multiple}"):
            model(photons(1, model.frames_in, 8, 9))


@pytest.mark.parametrize(
    ("options", "parameters"), [({}, 2_199_418), ({"frames": 1}, 2_157_946), ({"background": False}, 2_178_585)]
)
def test_decode_has_the_published_number_of_parameters(options, parameters):
    # the published counts hold one frozen number more, the floor of the sigmas
    assert zoo.count_parameters(zoo.create_model("decode", **options)) == parameters


def test_compact_is_small():
    model = zoo.create_model("compact")
    macs = zoo.count_macs(model, 64, 64)
    assert zoo.count_parameters(model) == zoo.get_spec("compact").parameters < 1_400_000
    assert macs.published < 1.8e9
    for variant in zoo.get_spec("compact").variants.values():
        assert zoo.count_parameters(zoo.create_model("compact", **variant.options)) == variant.parameters
    with pytest.raises(ValueError, match="multiple of 24"):
        zoo.create_model("compact", width=40)


def test_decode_costs_what_the_table_says():
    three = zoo.count_macs(zoo.create_model("decode"), 64, 64)
    one = zoo.count_macs(zoo.create_model("decode", frames=1), 64, 64)
    assert 2e-9 * three.published == pytest.approx(8.527, abs=0.32)  # the table counts upsampled 1x1 kernels
    assert 2e-9 * one.published == pytest.approx(4.518, abs=0.16)
    assert three.published / three.done == pytest.approx(8.53 / 4.86, rel=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"frames": 1},
        {"dimensions": 2},
        {"norm": "group"},
        {"pooling": "max"},
        {"upsampling": "bilinear"},
        {"depth": 3},
        {"depth": 1, "background": False},
    ],
)
def test_options_of_decode_change_the_network_and_train(options):
    model = small("decode", **options).train()
    maps = model(photons(1, model.frames_in, 16, 16))
    assert maps.shape[2] == len(model.output.channels)
    maps.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_unknown_options_of_decode_are_refused():
    for options in ({"frames": 2}, {"dimensions": 4}, {"norm": "batch"}, {"depth": 0}, {"upsampling": "cubic"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            zoo.create_model("decode", **options)


@pytest.mark.parametrize("name", ["decode", "compact"])
def test_a_frame_is_seen_by_its_neighbours_and_by_nobody_else(name):
    model = small(name)
    frames = photons(1, 7, 8, 8).requires_grad_()
    model(frames)[0, 2].sum().backward()
    seen = frames.grad[0].abs().amax((1, 2)) > 0
    assert seen.tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("name", ["decode", "compact"])
def test_features_combined_equal_the_whole(name):
    model = small(name)
    assert isinstance(model.core, zoo.SharesFeatures)
    frames = photons(6, 8, 12)
    with torch.no_grad():
        features = model.core.features(model.normalisation(frames))
        torch.testing.assert_close(model.core.combine_consecutive(features), model(frames[None])[0])


@pytest.mark.parametrize(("name", "options"), [("decode", {"width": 4}), ("compact", {"width": 24})])
def test_receptive_field_equals_the_entry(name, options):
    core = zoo.create_model(name, **options).core.double()
    for parameter in core.parameters():  # no path may start at zero
        torch.nn.init.normal_(parameter, std=0.3 / max(1, parameter[0].numel()) ** 0.5)
    frames = torch.randn(3, 4, 160, dtype=torch.float64, requires_grad=True)
    y = zoo.get_spec(name).output.index("y")
    widest = 0
    for column in range(76, 80):
        maps = core.combine_consecutive(core.features(frames))
        (gradient,) = torch.autograd.grad(maps[0, y, 2, column], frames)
        reached = gradient.abs().amax((0, 1)).nonzero()
        widest = max(widest, 2 * max(column - int(reached.min()), int(reached.max()) - column) + 1)
    assert zoo.get_spec(name).receptive_field_px == widest


def test_weights_and_contract_survive_a_file(tmp_path):
    model = small("decode", dimensions=2)
    model.output = model.output.with_(photons_scale=5000.0, rule="program")
    zoo.save_weights(model, tmp_path)
    again, card = zoo.load_model(tmp_path)
    assert again.output == model.output
    assert card["output"]["contract"] == "EmitterMaps"
    frames = photons(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(again(frames), model(frames))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_elu_of_bfloat16_is_pytorchs_own_and_so_is_its_derivative(layout):
    x = (3 * torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(0))).contiguous(memory_format=layout)
    x[0, 0, 0, :4] = torch.tensor([0.0, -0.0, -80.0, 80.0])
    exact = x.bfloat16().float().requires_grad_()
    quick = x.bfloat16().requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (F.elu(exact) * weight.float()).sum().backward()
    result = elu(quick)
    (result * weight).sum().backward()
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=layout)
    assert torch.equal(result, F.elu(x.bfloat16()))
    torch.testing.assert_close(quick.grad.float(), exact.grad, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("name", ["decode", "compact"])
def test_windows_are_the_same_in_either_layout_of_memory(name):
    network, frames = small(name), photons(2, 5, 16, 16)
    with torch.inference_mode():
        plain = network(frames)
        last = network.to(memory_format=torch.channels_last)(frames)
    torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-4)
