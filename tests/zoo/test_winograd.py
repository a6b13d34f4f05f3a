"""Wide convolutions by Winograd's way are the plain ones."""

import pytest
import torch
from torch import nn

import zoo
from harness.runtimes.torch import TorchRuntime


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (4, 4), (13, 22)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_convolution_on_any_size(height, width, bias):
    torch.manual_seed(height)
    layer = nn.Conv2d(5, 7, 3, padding=1, bias=bias).requires_grad_(False)
    frames = torch.randn(3, 5, height, width)
    found = zoo.WinogradConv2d(layer)(frames)
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = layer.double()(frames.double())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("at_once", [1, 7, 30])
def test_the_number_of_tiles_at_once_changes_nothing(monkeypatch, at_once):
    layer = nn.Conv2d(4, 6, 3, padding=1).requires_grad_(False)
    frames = torch.randn(5, 4, 17, 11)
    fast = zoo.WinogradConv2d(layer)
    whole = fast(frames)
    monkeypatch.setattr("zoo._winograd.TILES_AT_ONCE", at_once)
    torch.testing.assert_close(fast(frames), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"kernel_size": 5, "padding": 2}, {"padding": 0}, {"stride": 2}, {"dilation": 2}, {"padding_mode": "reflect"}],
)
def test_other_convolutions_are_refused_and_left_alone(settings):
    layer = nn.Conv2d(128, 256, **{"kernel_size": 3, "padding": 1, **settings})
    with pytest.raises(ValueError, match="3x3"):
        zoo.WinogradConv2d(layer)
    assert type(zoo.with_winograd(nn.Sequential(layer))[0]) is nn.Conv2d


def test_drl_storm_runs_its_wide_layers_so_on_a_cpu_in_float32_alone():
    torch.manual_seed(1)
    network = zoo.create_model("drl_storm").eval()
    network.normalisation.set_statistics(100.0, 50.0)
    frames = 300 * torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        plain = network(frames)
    runtime = TorchRuntime(network, device="cpu", precision="float32")
    wide = [layer for layer in runtime.network.modules() if isinstance(layer, zoo.WinogradConv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in wide] == 2 * [(128, 592), (592, 592)]
    torch.testing.assert_close(runtime(frames), plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
    other = TorchRuntime(network, device="cpu", precision="bfloat16")
    assert not any(isinstance(layer, zoo.WinogradConv2d) for layer in other.network.modules())
