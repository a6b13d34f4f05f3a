"""Pruning: channels that say nothing can be taken out without a change; the others keep their weights."""

import pytest
import torch
from torch import nn

import zoo
from distill.pruning import importance, prune_channels
from zoo import ConvBlock


def silence(block: ConvBlock, channels: list[int]) -> None:
    """Make some channels of a block zero everywhere."""
    with torch.no_grad():
        block.conv.weight[channels] = 0
        if block.conv.bias is not None:
            block.conv.bias[channels] = 0
        if isinstance(block.norm, nn.BatchNorm2d):
            block.norm.bias[channels] = 0
            block.norm.running_mean[channels] = 0


@pytest.mark.parametrize(
    ("name", "options"),
    [("fid_storm", {"width": 8, "n_blocks": 2}), ("srcnn", {"width": 8}), ("deep_storm", {"width": 8, "depth": 1})],
)
def test_silent_channels_are_the_ones_taken_out(name, options):
    torch.manual_seed(0)
    network = zoo.create_model(name, **options).eval()
    network.normalisation.set_statistics(40.0, 20.0)
    blocks = [module for module in network.core.modules() if isinstance(module, ConvBlock)]
    for place, block in enumerate(blocks):
        if isinstance(block.norm, nn.BatchNorm2d):
            block.norm.running_var.uniform_(0.5, 2)
            block.norm.weight.data.uniform_(0.5, 2)
        channels = len(block.conv.weight)
        joined = name == "fid_storm" and place in (0, 2)
        if channels > 1:  # every second one; another half where no skip joins them
            silence(block, list(range(0 if joined else place % 2, channels, 2)))
    frames = 60 * torch.rand(1, 1, 8, 8)
    pruned = prune_channels(network, 4)
    assert not pruned.training
    assert zoo.count_parameters(pruned) < 0.6 * zoo.count_parameters(network)
    with torch.no_grad():
        torch.testing.assert_close(pruned(frames), network(frames), rtol=1e-4, atol=1e-6)


def test_importance_is_that_after_the_norm():
    block = ConvBlock(1, 2, bias=False).eval()
    with torch.no_grad():
        block.conv.weight[0], block.conv.weight[1] = 1.0, 2.0
        block.norm.weight[:] = torch.tensor([-4.0, 1.0])
        block.norm.running_var[:] = 4.0
    assert importance(block).tolist() == pytest.approx([3 * 4 / 2, 6 / 2], rel=1e-4)


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(ValueError, match="give fewer"):
        prune_channels(zoo.create_model("srcnn", width=8), 8)
    with pytest.raises(ValueError, match=r"u_storm .* cannot be pruned"):
        prune_channels(zoo.create_model("u_storm"), 8)
