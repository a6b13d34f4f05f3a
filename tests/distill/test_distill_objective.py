"""The objective: frozen teachers, hints across grids, families, unlabelled frames, confidence."""

import pytest
import torch

import zoo
from distill import STUDENTS, Distillation, Settings, Tap, Teacher, cost_of, density, find_student, fingerprint
from losses import create_loss
from zoo import EmitterTargets


def image_network(name: str = "fid_storm", **options):
    torch.manual_seed(0)
    network = zoo.create_model(name, **({"width": 8, "n_blocks": 1} if name == "fid_storm" else {}) | options)
    network.normalisation.set_statistics(50.0, 20.0)
    return network


def map_network(**options):
    torch.manual_seed(0)
    network = zoo.create_model("compact", width=24, blocks=1, dimensions=2, **options)
    network.normalisation.set_statistics(50.0, 20.0)
    return network


def objective_for(student, teacher, loss="fidstorm", **settings):
    own = create_loss(loss, **({"target_scale": student.output.target_scale} if loss != "decode" else {}))
    return Distillation(student, Teacher(teacher), own, settings=Settings(**settings), size=16)


def blocks(count=2, length=1, seed=0):
    return 60 * torch.rand(count, length, 16, 16, generator=torch.Generator().manual_seed(seed))


def spikes(count=2, scale=8):
    target = torch.zeros(count, 1, 16 * scale, 16 * scale)
    target[..., 50, 70] = 1
    return target


def emitters(output, count):
    rows = {name: torch.full((count,), 0.1) for name in ("photons", "z")}
    return EmitterTargets(
        output=output,
        frame=torch.arange(count),
        x=torch.full((count,), 8.7),
        y=torch.full((count,), 6.2),
        background=None,
        count=count,
        **rows,
    )


def test_the_loss_is_alpha_truth_and_the_rest_trusted_imitation():
    student, teacher = image_network(), image_network()
    objective = objective_for(student, teacher, alpha=0.25)
    frames, target = blocks(), spikes()
    found = objective(student.eval(), frames, target)
    own_loss = create_loss("fidstorm", target_scale=student.output.target_scale)
    with torch.no_grad():
        image = student(frames)
        grid = objective.grid
        mine, theirs = density(image, student.output, grid), density(teacher.eval()(frames), teacher.output, grid)
        truth = density(target, zoo.SRImage(target_scale=1.0), grid)
        trust = (1 - (theirs - truth).square().flatten(1).mean(1) / objective.record.error_range).clamp(0, 1)
        imitation = (mine - theirs).square().flatten(1).mean(1) * student.output.target_scale**2
        own = own_loss(image, target)
    assert found.item() == pytest.approx((0.25 * own + 0.75 * (trust * imitation).mean()).item(), rel=1e-4)


def test_the_teacher_does_not_change_and_gets_no_gradient():
    student, original = image_network(), image_network("srcnn", variant="dl4smlm")
    before = fingerprint(original)
    objective = objective_for(student, original)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    objective.train()
    for seed in range(3):
        objective(student.train(), blocks(seed=seed), spikes()).backward()
        optimiser.step()
    assert not any(module.training for module in objective.teacher.network.modules())
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.network.parameters())
    objective.teacher.check_unchanged()
    assert fingerprint(original) == before
    assert not any("teacher" in key for key in objective.state_dict())
    next(iter(objective.teacher.network.parameters())).data.add_(1)
    with pytest.raises(RuntimeError, match="teacher changed"):
        objective.teacher.check_unchanged()


def test_hints_between_the_fine_and_the_camera_grid():
    student, teacher = image_network(), image_network("drl_storm", width=4, depth=1)
    pairs = (("core.first.up1", "core.body"), ("core.second", "core.up1"))
    objective = objective_for(student, teacher, hints=pairs, hint_steps=3, hint_weight=1.0)
    assert [type(layer).__name__ for layer in objective.hints.regressors] == ["Conv2d", "Identity"]
    parameters = [*student.parameters(), *objective.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=5e-3)
    untouched = student.core.up3.conv.weight.detach().clone()
    hinted = []
    for _ in range(3):
        loss = objective(student, blocks(), spikes())
        assert loss.item() == pytest.approx(objective.last["hint"])  # the hints alone come first
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        hinted.append(loss.item())
    assert hinted[-1] < hinted[0]
    assert torch.equal(student.core.up3.conv.weight, untouched)
    front = student.core.first.conv.weight.detach().clone()
    optimiser.zero_grad(set_to_none=True)
    objective(student, blocks(), spikes()).backward()
    optimiser.step()
    assert torch.equal(student.core.first.conv.weight, front)  # kept as the hints left it
    assert not torch.equal(student.core.up3.conv.weight, untouched)
    assert not any("regressor" in key for key in student.state_dict())


def test_layers_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"no layer 'core\.boddy'.*core\.body"):
        Tap(image_network(), ("core.boddy",))


@pytest.mark.parametrize(
    ("student", "teacher", "length"),
    [("image", "maps", 3), ("maps", "image", 4), ("maps", "maps", 4)],
)
def test_families_teach_each_other(student, teacher, length):
    networks = {"image": image_network, "maps": map_network}
    own, given = networks[student](), networks[teacher]()
    maps = student == "maps"
    objective = objective_for(own, given, loss="decode" if maps else "fidstorm", mode="bound")
    assert (objective.before, objective.after) == (1, 1)
    count = 2 * (length - 2)
    target = emitters(own.output, count) if maps else spikes(count)
    loss = objective(own, blocks(length=length), target)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in own.parameters())


def test_a_copy_of_the_teacher_has_nothing_to_imitate():
    for network, loss, length in ((image_network(), "fidstorm", 1), (map_network(), "decode", 3)):
        objective = objective_for(network, network, loss=loss, confidence="none")
        target = emitters(network.output, 2) if loss == "decode" else spikes()
        objective(network.eval(), blocks(length=length), target)
        assert objective.last["imitation"] == pytest.approx(0, abs=1e-6)


def test_the_survey_finds_the_gain_and_the_range():
    student, teacher = image_network(), image_network()
    objective = objective_for(student, teacher)
    truth = density(spikes(), zoo.SRImage(target_scale=1.0), objective.grid)
    objective._teacher_density = lambda given: objective.record.gain * torch.stack([0.5 * truth[0], 0.25 * truth[1]])
    record = objective.survey([(blocks(), spikes())])
    # least squares: (0.5 + 0.25) / (0.25 + 0.0625) = 2.4; residuals 0.2 and -0.4 of the truth
    energy = truth[0].square().mean().item()
    assert record.gain == pytest.approx(2.4, rel=1e-4)
    assert record.error_range == pytest.approx((0.16 - 0.04) * energy, rel=1e-3)


def test_unlabelled_frames_count_as_far_as_the_teacher_agrees_with_itself():
    student = image_network()
    teacher = image_network()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.zero_()  # says nothing: the same of every view
    objective = objective_for(student, teacher)
    objective(student, blocks(), None)
    assert objective.last["confidence"] == 1
    sided = image_network()
    with torch.no_grad():
        sided.core.first.conv.weight.zero_()
        sided.core.first.conv.weight[:, :, 1, 2] = 5.0  # looks to the right: flips change what it says
    objective = objective_for(student, sided)
    objective.record = type(objective.record)(error_range=1e-9)
    loss = objective(student, blocks(), None)
    assert objective.last["confidence"] == 0
    assert loss.item() == 0


def test_pixel_confidence_leaves_out_where_the_teacher_errs():
    student, teacher = image_network(), image_network()
    objective = objective_for(student, teacher, confidence="pixel", alpha=0.0)
    objective.record = type(objective.record)(error_range=1.0, pixel_range=1e-12)
    assert objective(student, blocks(), spikes()).item() == pytest.approx(0, abs=1e-9)  # it errs everywhere


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="mode is 'best'"):
        Settings(mode="best")
    with pytest.raises(ValueError, match="no hints are given"):
        Settings(hint_steps=5)
    with pytest.raises(ValueError, match="different units"):
        objective_for(map_network(), map_network(), loss="decode", mode="minimum")


def test_students_are_listed_with_their_cost():
    dsir, srcnn = cost_of(find_student("fid-dsir-size")), cost_of(find_student("fid-srcnn-size"))
    assert abs(dsir.parameters - 3339) < 100
    assert abs(srcnn.parameters - 8129) < 600
    assert dsir.bytes > 4 * dsir.parameters
    assert set(STUDENTS) >= {"fid-5", "compact-24"}
    with pytest.raises(ValueError, match="Did you mean 'fid-5'"):
        find_student("fid5")
