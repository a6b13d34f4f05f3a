"""DECODE's loss against its formula, computed by hand and by torch.distributions."""

import math

import pytest
import torch
from torch import distributions

from losses import create_loss, decode_per_frame
from losses.emitters import background_loss, count_loss, detection_loss, mixture_loss
from zoo import EmitterMaps, EmitterTargets

OUTPUT = EmitterMaps()


def maps(count, *, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(count, 10, size, size, generator=generator)
    p, rest = torch.sigmoid(raw[:, :1] - 3), raw[:, 1:]
    light, means, sigmas = torch.sigmoid(rest[:, 8:]), torch.tanh(rest[:, :4]), 3 * torch.sigmoid(rest[:, 4:8]) + 0.001
    return torch.cat([p, means, sigmas, light], dim=1)


def targets(numbers, *, size=8, seed=1, background=True):
    generator = torch.Generator().manual_seed(seed)
    frame = torch.repeat_interleave(torch.arange(len(numbers)), torch.tensor(numbers))
    draw = torch.rand(4, len(frame), generator=generator)
    return EmitterTargets(
        output=OUTPUT,
        frame=frame,
        photons=draw[0],
        x=draw[1] * size,
        y=draw[2] * size,
        z=draw[3] * 2 - 1,
        background=torch.full((len(numbers), 1, 1), 0.3) if background else None,
        count=len(numbers),
    )


def test_mixture_equals_the_formula():
    maps_, target = maps(3), targets([5, 0, 1])
    expected = torch.zeros(3)
    for e in range(len(target)):
        m = maps_[target.frame[e]]
        density = torch.zeros(())
        for i in range(8):
            for j in range(8):
                part = m[0, i, j] / m[0].sum()
                for value, mean, sigma in (
                    (target.photons[e], m[1, i, j], m[5, i, j]),
                    (target.y[e], i + 0.5 + m[2, i, j], m[6, i, j]),
                    (target.x[e], j + 0.5 + m[3, i, j], m[7, i, j]),
                    (target.z[e], m[4, i, j], m[8, i, j]),
                ):
                    part = part * distributions.Normal(mean, sigma).log_prob(value).exp()
                density = density + part
        expected[target.frame[e]] -= torch.log(density)
    torch.testing.assert_close(mixture_loss(maps_, target), expected, rtol=1e-4, atol=1e-4)
    assert mixture_loss(maps_, target)[1] == 0
    # fewer components can only explain less
    assert (mixture_loss(maps_, target, window=3) >= mixture_loss(maps_, target) - 1e-4).all()
    torch.testing.assert_close(mixture_loss(maps_, target, window=15), mixture_loss(maps_, target))


def test_count_by_hand():
    p = torch.full((1, 2, 2), 0.5)  # sum 2, variance 1
    number = torch.tensor([3.0])
    expected = 0.5 * (1 + math.log(2 * math.pi))
    assert count_loss(p, number).item() == pytest.approx(expected)
    assert count_loss(p, number, times_emitters=True).item() == pytest.approx(3 * expected)


def test_empty_frames_teach_unless_as_published():
    empty = targets([0], background=False)
    for published, slope in ((True, False), (False, True)):
        values = maps(1).requires_grad_()
        decode_per_frame(values, empty, times_emitters=published).sum().backward()
        assert bool(values.grad[:, 0].abs().max() > 1e-3) == slope


def test_background_and_detection_by_hand():
    m = torch.zeros(1, 10, 2, 2)
    m[:, 0] = 0.25
    m[:, 9] = 0.5
    target = EmitterTargets(
        output=OUTPUT,
        frame=torch.tensor([0]),
        photons=torch.tensor([0.1]),
        x=torch.tensor([1.2]),
        y=torch.tensor([0.4]),
        z=torch.tensor([0.0]),
        background=torch.full((1, 1, 1), 0.2),
        count=1,
    )
    assert background_loss(m, target).item() == pytest.approx(4 * 0.09)
    expected = -math.log(0.25) - 3 * math.log(0.75)
    assert detection_loss(m, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("numbers", [[0, 0], [1, 0], [400, 3]])
def test_finite_for_any_number_of_emitters(numbers):
    for name in ("decode", "decode_published"):
        values = maps(2).requires_grad_()
        loss = create_loss(name, detection_weight=0.5)(values, targets(numbers))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(values.grad).all()


def test_frames_are_judged_one_by_one():
    values, target = maps(3), targets([4, 2, 7])
    whole = decode_per_frame(values, target)
    for frame in range(3):
        rows = target.frame == frame
        alone = EmitterTargets(
            output=OUTPUT,
            frame=target.frame[rows] - frame,
            photons=target.photons[rows],
            x=target.x[rows],
            y=target.y[rows],
            z=target.z[rows],
            background=target.background[frame : frame + 1],
            count=1,
        )
        torch.testing.assert_close(decode_per_frame(values[frame : frame + 1], alone)[0], whole[frame])
    torch.testing.assert_close(decode_per_frame(values.view(1, 3, 10, 8, 8), target), whole)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="targets are of 2 frames"):
        decode_per_frame(maps(3), targets([1, 1]))
    with pytest.raises(ValueError, match="odd number"):
        decode_per_frame(maps(1), targets([1]), window=4)
    with pytest.raises(ValueError, match="no option 'sigma'"):
        create_loss("decode", sigma=1)
