"""Upsampled convolutions, normalisation, enlarging."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 3), (5, 7), (8, 6)])
@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_upconv_equals_upsampling_then_convolution(size, padding_mode):
    torch.manual_seed(0)
    fast = zoo.UpConv2d(3, 4, padding_mode=padding_mode)
    plain = nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode)
    plain.load_state_dict(fast.state_dict())
    one = torch.randn(2, 3, *size, requires_grad=True)
    two = one.detach().clone().requires_grad_()
    expected = plain(F.interpolate(two, scale_factor=2.0, mode="nearest"))
    image = fast(one)
    weight = torch.randn_like(expected)
    (image * weight).sum().backward()
    (expected * weight).sum().backward()
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(image, expected, **close)
    torch.testing.assert_close(one.grad, two.grad, **close)
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fast.bias.grad, plain.bias.grad, rtol=1e-5, atol=1e-4)


def test_upconv_keeps_the_parameters_of_the_convolution():
    layer = zoo.UpConv2d(3, 4, bias=False)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {"weight": (4, 3, 3, 3)}


def test_dataset_normalisation_uses_the_stored_numbers():
    layer = zoo.Normalisation("dataset")
    layer.set_statistics(10.0, 4.0)
    assert torch.equal(layer(torch.tensor([[[[18.0]]]])), torch.tensor([[[[2.0]]]]))
    assert set(layer.state_dict()) == {"mean", "std"}


def test_min_max_works_on_each_frame_and_survives_a_constant_one():
    layer = zoo.Normalisation("min_max")
    layer.set_statistics(0.5, 0.25)
    frames = torch.stack([torch.tensor([[2.0, 6.0]]), torch.tensor([[7.0, 7.0]])])[:, None]
    expected = torch.tensor([[[[-2.0, 2.0]]], [[[-2.0, -2.0]]]])
    assert torch.equal(layer(frames), expected)


def test_z_score_works_on_each_image_and_survives_a_constant_one():
    frames = torch.rand(3, 1, 6, 6) * torch.tensor([1.0, 50.0, 0.0])[:, None, None, None] + 3
    scored = zoo.Normalisation("z_score")(frames)
    for image in scored[:2]:
        assert image.mean().item() == pytest.approx(0, abs=1e-4)
        assert image.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(scored[2], torch.zeros(1, 6, 6))


def test_no_normalisation_changes_nothing():
    frames = torch.rand(1, 1, 3, 3)
    assert zoo.Normalisation("none")(frames) is frames


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_impossible_statistics_are_refused(mean, std):
    with pytest.raises(ValueError, match="both must be finite and std positive"):
        zoo.Normalisation().set_statistics(mean, std)


def test_nearest_enlarging_repeats_each_pixel():
    frames = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = frames.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(zoo.Enlarge("nearest", 4)(frames), expected)
    assert zoo.Enlarge("none", 4)(frames) is frames


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_enlarging_moves_nothing(mode):
    """The centre of mass stays where it is, in units of the field."""
    frames = torch.zeros(1, 1, 9, 11)
    frames[0, 0, 4, 6] = 1
    image = zoo.Enlarge(mode, 8)(frames)[0, 0]
    rows = (image.sum(1) * (torch.arange(72) + 0.5)).sum() / image.sum() / 8
    columns = (image.sum(0) * (torch.arange(88) + 0.5)).sum() / image.sum() / 8
    assert rows.item() == pytest.approx(4.5, abs=1e-4)
    assert columns.item() == pytest.approx(6.5, abs=1e-4)


@pytest.mark.parametrize("factor", [4, 8])
def test_bilinear_enlarging_equals_scikit_image(factor):
    transform = pytest.importorskip("skimage.transform")
    frame = np.random.default_rng(0).uniform(100, 300, (6, 9)).astype(np.float32)
    expected = transform.resize(frame, (6 * factor, 9 * factor), order=1, mode="constant", anti_aliasing=False)
    image = zoo.Enlarge("bilinear", factor)(torch.from_numpy(frame)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(image, expected, rtol=1e-5)


@pytest.mark.parity
def test_preprocessing_equals_the_originals(reference):
    stored = np.load(reference / "preprocess_io.npz")
    raw = torch.from_numpy(stored["raw"].astype(np.float32))[:, None]

    def prepared(name, mode, mean=0.0, std=1.0, **options):
        model = zoo.create_model(name, normalisation=mode, **options).eval()
        model.normalisation.set_statistics(mean, std)
        model.core = nn.Identity()
        return model(raw)[:, 0].numpy()

    keras = prepared("deep_storm", "min_max", float(stored["keras_mean"]), float(stored["keras_std"]))
    np.testing.assert_allclose(keras, stored["keras_deepstorm"], atol=1e-5)
    np.testing.assert_allclose(prepared("dsir", "z_score"), stored["dsir"], atol=1e-5)
    np.testing.assert_allclose(prepared("fid_storm", "min_max"), stored["fidstorm"], atol=1e-6)
    plain = prepared("fid_storm", "dataset", float(stored["dl4smlm_mean"]), float(stored["dl4smlm_std"]))
    np.testing.assert_allclose(plain, stored["dl4smlm"], atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (7, 9), (3, 5), (16, 6)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_lean_blocks_give_the_same_to_the_last_bit(size, layout):
    torch.manual_seed(2)
    activations = (nn.ReLU(), nn.LeakyReLU(0.2), None)
    blocks = nn.Sequential(
        *(zoo.ConvBlock(3, 3, activation=each, pool=pool) for each in activations for pool in (False, True))
    )
    form = zoo.inference_form(blocks)
    lean = zoo.with_lean_blocks(zoo.inference_form(blocks))
    for plain, changed in zip(form, lean, strict=True):
        frames = torch.randn(2, 3, *size).contiguous(memory_format=layout)
        kept = frames.clone()
        with torch.inference_mode():
            assert torch.equal(changed(frames), plain(frames))
        assert torch.equal(frames, kept)
    assert (type(lean[1].activation), type(lean[1].pool)) == (zoo.HalfMaximum, nn.ReLU)
    assert (type(lean[3].activation), type(lean[3].pool)) == (nn.LeakyReLU, nn.MaxPool2d)


@pytest.mark.parametrize("name", ["deep_storm", "drl_storm", "skip_storm", "u_storm", "srcnn", "dsir", "fid_storm"])
def test_networks_with_lean_blocks_are_the_same_networks(name):
    torch.manual_seed(3)
    network = zoo.create_model(name)
    form, lean = zoo.inference_form(network), zoo.with_lean_blocks(zoo.inference_form(network))
    frames = 300 * torch.rand(2, 1, 8, 16)
    with torch.inference_mode():
        assert torch.equal(lean(frames), form(frames))


@pytest.mark.parametrize("name", ["srcnn", "u_storm", "fid_storm", "dsir", "deep_storm", "skip_storm", "drl_storm"])
def test_the_layer_that_sees_the_photons_alone_stays_in_float32(name):
    torch.manual_seed(2)
    network = zoo.create_model(name).eval()
    network.normalisation.set_statistics(100.0, 50.0)
    frames = 100 + 3 * torch.rand(1, 1, 16, 16)  # less than bfloat16 tells apart at this height

    def seen(form):
        kinds = []
        for layer in form.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(lambda _layer, _given, result: kinds.append(result.dtype))
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            form(frames)
        return kinds

    assert torch.float32 not in seen(zoo.inference_form(network))
    kinds = seen(zoo.with_exact_input(zoo.inference_form(network)))
    assert kinds[0] == torch.float32
    assert kinds.count(torch.float32) == 1
