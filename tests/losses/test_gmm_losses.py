"""The attention U-Net's losses against their formula, written out in loops with torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Normal

from losses import create_loss, gmm, gmm_per_sample, gmm_published, gmm_published_terms
from losses.gmm import relative_brightness
from zoo import EmitterMaps, EmitterTargets
from zoo.attention_unet import CHANNELS, gmm_activation

OUTPUT = EmitterMaps(channels=CHANNELS)


def maps(*shape, size=6, seed=0):
    logits = torch.randn(*shape, 10, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[..., 0, :, :] -= 2
    return gmm_activation(logits)


def targets(numbers, *, size=6, seed=1, output=OUTPUT, background=True):
    generator = torch.Generator().manual_seed(seed)
    frame = torch.repeat_interleave(torch.arange(len(numbers)), torch.tensor(numbers))
    draw = torch.rand(3, len(frame), generator=generator, dtype=torch.float64)
    light = torch.rand(len(numbers), size, size, generator=generator, dtype=torch.float64)
    return EmitterTargets(
        output=output,
        frame=frame,
        photons=draw[0],
        x=draw[1] * size,
        y=draw[2] * size,
        z=torch.zeros(len(frame)),
        background=light if background else None,
        count=len(numbers),
    )


def location_of(m, brightness, x, y, shift=0.0):
    """-log of the mixture at one emitter."""
    density = torch.zeros((), dtype=torch.float64)
    for i in range(m.shape[1]):
        for j in range(m.shape[2]):
            part = torch.log(m[0, i, j] / m[0].sum())
            part = part + Normal(i + 0.5 + m[2, i, j], m[5, i, j]).log_prob(y)
            part = part + Normal(j + 0.5 + m[3, i, j], m[6, i, j]).log_prob(x)
            part = part + Normal(m[4, i, j] + shift, m[7, i, j]).log_prob(brightness)
            density = density + part.exp()
    return -torch.log(density)


def count_of(m, emitters):
    mean, variance = m[0].sum(), (m[0] - m[0] ** 2).sum()
    return (emitters - mean) ** 2 / (2 * variance) + 0.5 * torch.log(2 * math.pi * variance)


NUMBERS = [3, 0, 1, 2]


def test_the_published_terms_are_their_formula():
    predicted, target = maps(4), targets(NUMBERS)
    brightness = target.photons / target.photons.max()
    location = sum(
        location_of(predicted[target.frame[e]], brightness[e], target.x[e], target.y[e], shift=0.01)
        for e in range(len(target))
    )
    count = sum(n * count_of(predicted[f], n) for f, n in enumerate(NUMBERS)) / 10
    light = 10 * (predicted[:, 9] - target.background).square().mean()
    terms = gmm_published_terms(predicted, target)
    torch.testing.assert_close(terms, torch.stack([location, count, light])[None], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gmm_published(predicted, target), terms.sum())
    weighted = gmm_published(predicted, target, weights=(1.0, 3.5, 0.2))
    torch.testing.assert_close(weighted, (terms * torch.tensor([1, 3.5, 0.2])).sum())


def test_the_corrected_loss_is_its_formula():
    predicted, target = maps(4), targets(NUMBERS)
    each = [
        location_of(predicted[target.frame[e]], target.photons[e], target.x[e], target.y[e]) for e in range(len(target))
    ]
    count = sum(count_of(predicted[f], n) for f, n in enumerate(NUMBERS)) / 4
    light = 10 * (predicted[:, 9] - target.background).square().mean()
    expected = sum(each) / 6 + 2 * count + light
    torch.testing.assert_close(gmm(predicted, target, count_weight=2.0), expected, rtol=1e-9, atol=1e-9)


def test_the_older_loss_has_two_axes_and_a_hundredth_of_the_count():
    output = EmitterMaps(channels=("probability", "y", "x", "y_sigma", "x_sigma", "background", "", ""))
    m = maps(2)
    predicted = torch.cat([m[:, :1], m[:, 2:4], m[:, 5:7], m[:, 9:], m[:, :2]], dim=1)
    target = targets([2, 1], output=output)
    pair = output.with_(channels=("probability", "", "y", "x", "", "y_sigma", "x_sigma", "", "", "background"))
    same = gmm_published_terms(m, targets([2, 1], output=pair), count_divisor=100.0)
    torch.testing.assert_close(gmm_published_terms(predicted, target, count_divisor=100.0), same)
    torch.testing.assert_close(create_loss("gmm_published_8")(predicted, target), same.sum())


def test_false_detections_in_an_empty_frame_cost_only_in_the_corrected_loss():
    quiet, loud = maps(2), maps(2)
    quiet[1, 0], loud[1, 0] = 0.001, 0.5
    target = targets([3, 0])
    assert gmm_published(loud, target) == pytest.approx(gmm_published(quiet, target).item(), rel=1e-12)
    assert gmm(loud, target) > gmm(quiet, target) + 10


def test_samples_are_blocks_or_frames():
    predicted = maps(2, 3)
    target = targets([2, 0, 1, 4, 1, 0])
    halves = [targets([0])] * 2
    for block in range(2):
        here = (target.frame // 3) == block
        halves[block] = EmitterTargets(
            output=OUTPUT,
            frame=target.frame[here] - 3 * block,
            photons=target.photons[here],
            x=target.x[here],
            y=target.y[here],
            z=target.z[here],
            background=target.background[3 * block : 3 * block + 3],
            count=3,
        )
    each = torch.stack([gmm(predicted[b], halves[b]) for b in range(2)])
    torch.testing.assert_close(gmm_per_sample(predicted, target), each)
    apart = torch.stack([gmm_published_terms(predicted[b], halves[b])[0] for b in range(2)])
    torch.testing.assert_close(gmm_published_terms(predicted, target), apart)
    torch.testing.assert_close(gmm_published(predicted, target), apart.sum(1).mean())
    frames = gmm_per_sample(predicted.flatten(0, 1), target)
    assert frames.shape == (6,)
    count = torch.stack([count_of(predicted[0, 1], 0), count_of(predicted[1, 2], 0)])
    light = 10 * (predicted.flatten(0, 1)[:, 9] - target.background).square().mean((1, 2))
    torch.testing.assert_close(frames[[1, 5]], count + light[[1, 5]])


def test_the_order_of_emitters_does_not_matter_and_nothing_is_changed():
    predicted, target = maps(3), targets([5, 0, 3])
    kept = target.photons.clone()
    order = torch.tensor([4, 2, 0, 1, 3, 7, 5, 6])
    other = EmitterTargets(
        output=OUTPUT,
        frame=target.frame,
        photons=target.photons[order],
        x=target.x[order],
        y=target.y[order],
        z=target.z,
        background=target.background,
        count=3,
    )
    for loss in (gmm, gmm_published):
        torch.testing.assert_close(loss(predicted, other), loss(predicted, target))
    assert torch.equal(target.photons, kept)  # the original normalises its truth in place
    assert relative_brightness(target, blocks=1).photons.max() == 1


@pytest.mark.parametrize("name", ["gmm", "gmm_published", "gmm_published_8"])
@pytest.mark.parametrize("numbers", [[0, 0], [1, 0], [0, 400], [400, 400]])
def test_it_is_finite_for_none_one_and_four_hundred_emitters(name, numbers):
    if name == "gmm_published_8":
        output = EmitterMaps(channels=("probability", "y", "x", "y_sigma", "x_sigma", "background", "", ""))
        predicted = maps(2, size=16)[:, [0, 2, 3, 5, 6, 9, 1, 1]].float().requires_grad_()
    else:
        output, predicted = OUTPUT, maps(2, size=16).float().requires_grad_()
    target = targets(numbers, size=16, output=output)
    value = create_loss(name)(predicted, target)
    (gradient,) = torch.autograd.grad(value, predicted)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    if name == "gmm":
        assert gradient.abs().max() > 0


def test_the_window_leaves_out_what_is_far_away():
    predicted = maps(1, size=24).clone()
    predicted[:, 5:8] = 0.3
    target = targets([3], size=24)
    whole = gmm(predicted, target)
    assert gmm(predicted, target, window=9) == pytest.approx(whole.item(), rel=1e-6)
    assert gmm(predicted, target, window=1) > whole
    with pytest.raises(ValueError, match="window is 4"):
        gmm(predicted, target, window=4)


def test_cross_entropy_of_the_probability_may_be_added():
    predicted, target = maps(2).float(), targets([1, 0])
    there = torch.zeros(2, 6, 6)
    there[0, int(target.y[0]), int(target.x[0])] = 1
    p = predicted[:, 0]
    cross = -(there * p.log() + (1 - there) * (1 - p).log()).sum((1, 2)).mean()
    more = gmm(predicted, target, detection_weight=0.5) - gmm(predicted, target)
    assert more.item() == pytest.approx(0.5 * cross.item(), rel=1e-4)


def test_an_unknown_background_costs_nothing_and_wrong_shapes_are_refused():
    predicted = maps(2)
    known, unknown = targets([1, 1]), targets([1, 1], background=False)
    assert gmm(predicted, unknown) == pytest.approx(gmm(predicted, known, background_weight=0.0).item())
    for loss in (gmm, gmm_published, gmm_per_sample):
        with pytest.raises(ValueError, match="the targets are of 2 frames"):
            loss(predicted[:1], known)
        with pytest.raises(ValueError, match="own output contract"):
            loss(predicted[:, :8], known)
