"""Wide transposed convolutions, all phases of the fine grid at once, are the plain ones."""

import pytest
import torch
from torch import nn

import zoo
from harness.runtimes.torch import TorchRuntime


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (6, 4), (13, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_same_convolution_on_any_size(height, width, bias):
    torch.manual_seed(height)
    layer = nn.ConvTranspose2d(5, 7, 4, stride=2, padding=1, bias=bias).requires_grad_(False)
    frames = torch.randn(3, 5, height, width)
    found = zoo.PhasedTranspose2d(layer)(frames)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, layer(frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"kernel_size": 3}, {"padding": 0}, {"stride": 1}, {"dilation": 2}, {"groups": 2}, {"output_padding": 1}],
)
def test_others_are_refused_and_left_alone(settings):
    layer = nn.ConvTranspose2d(256, 256, **{"kernel_size": 4, "stride": 2, "padding": 1, **settings})
    with pytest.raises(ValueError, match="kernel 4"):
        zoo.PhasedTranspose2d(layer)
    assert type(zoo.with_phases(nn.Sequential(layer))[0]) is nn.ConvTranspose2d


def test_skip_storm_runs_its_wide_layers_so_on_a_cpu_in_bfloat16_alone():
    torch.manual_seed(1)
    network = zoo.create_model("skip_storm").eval()
    network.normalisation.set_statistics(100.0, 50.0)
    frames = 300 * torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        plain = network(frames)
    runtime = TorchRuntime(network, device="cpu", precision="bfloat16")
    wide = [layer for layer in runtime.network.modules() if isinstance(layer, zoo.PhasedTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in wide] == [(128, 512), (512, 128)]
    found = runtime(frames)
    assert float((found - plain).std()) < 0.05 * float(plain.std())  # bfloat16 has three digits
    other = TorchRuntime(network, device="cpu", precision="float32")
    assert not any(isinstance(layer, zoo.PhasedTranspose2d) for layer in other.network.modules())
    # the same layers, computed in float32, give the plain result
    zoo.with_phases(other.network)
    torch.testing.assert_close(other(frames), plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
