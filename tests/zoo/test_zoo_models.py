"""Every image model of the registry, canonical and variants, against what its entry promises."""

import copy
import functools

import pytest
import torch
from torch import nn

import zoo

IMAGE_MODELS = [name for name in zoo.list_models() if isinstance(zoo.get_spec(name).output, zoo.SRImage)]
FORMS = [(name, variant) for name in IMAGE_MODELS for variant in (None, *zoo.get_spec(name).variants)]


def form_id(form):
    return form[0] if form[1] is None else f"{form[0]}-{form[1]}"


def build(form, **more):
    return copy.deepcopy(_built(form, tuple(more.items())))


@functools.cache
def _built(form, more):
    name, variant = form
    torch.manual_seed(0)
    options = {} if variant is None else dict(zoo.get_spec(name).variants[variant].options)
    model = zoo.create_model(name, **options, **dict(more))
    for module in model.modules():  # statistics as after some training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, 0.1, 0.3)
    return model


def photons(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 100 + 30 * torch.randn(*shape, generator=generator)


@pytest.fixture(scope="module", params=FORMS, ids=form_id)
def model(request):
    built = build(request.param)
    built.normalisation.set_statistics(100.0, 30.0)
    return built.eval()


def test_the_seven_image_models_are_registered():
    seven = {"srcnn", "deep_storm", "skip_storm", "u_storm", "drl_storm", "fid_storm", "dsir"}
    assert seven <= set(zoo.list_models())


def test_output_shape_follows_the_contract(model):
    with torch.no_grad():
        image = model(photons(2, 1, 2, 3))
    assert tuple(image.shape) == model.output.shape(2, 2, 3)
    assert model.output.shape(2, 2, 3) == (2, 1, 16, 24)
    assert torch.isfinite(image).all()
    assert image.std() > 0


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_upsampling_of_four_gives_an_image_four_times_finer(name):
    model = zoo.create_model(name, upsampling=4).eval()
    height, width = 4 * model.size_multiple, 6 * model.size_multiple
    with torch.no_grad():
        assert tuple(model(photons(1, 1, height, width)).shape) == (1, 1, 4 * height, 4 * width)


@pytest.mark.parametrize("name", zoo.list_models())
def test_the_spec_describes_what_is_built(name):
    spec, model = zoo.get_spec(name), zoo.create_model(name)
    assert model.output == spec.output
    assert model.size_multiple == spec.size_multiple
    assert model.frames_in == spec.frames_in
    assert model.model_name == name
    assert spec.source
    assert spec.licence
    assert spec.loss
    assert spec.recipe


def test_one_frame_alone_equals_the_same_frame_in_a_batch(model):
    frames = photons(2, 1, 3, 2)
    with torch.no_grad():
        together, alone = model(frames), model(frames[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4 * float(alone.abs().max()))


def test_evaluation_changes_no_weight_or_buffer(model):
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model(photons(1, 1, 2, 2))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("form", FORMS, ids=form_id)
def test_gradients_reach_every_weight_in_training(form):
    model = build(form).train()
    model.normalisation.set_statistics(100.0, 30.0)
    model(photons(2, 1, 2, 3)).square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:  # biases before a batch norm have none, by its definition
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("form", FORMS, ids=form_id)
def test_a_new_model_is_alive(form):
    torch.manual_seed(3)
    name, variant = form
    model = zoo.create_model(name, **({} if variant is None else zoo.get_spec(name).variants[variant].options))
    model.normalisation.set_statistics(100.0, 30.0)
    image = model.train()(photons(2, 1, 3, 2))
    image.sum().backward()
    last = list(model.parameters())[-1]
    assert image.abs().max() > 0
    assert (image != 0).float().mean() > 0.05
    assert last.grad is not None
    assert last.grad.abs().max() > 0


def test_channels_last_gives_the_same_image(model):
    frames = photons(1, 1, 2, 3)
    with torch.no_grad():
        expected = model(frames)
        twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
        image = twin(frames.to(memory_format=torch.channels_last))
    tolerance = 5e-3 if "DSIR" in type(model.core).__name__ else 1e-4
    torch.testing.assert_close(image, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_inference_form_is_the_same_function_and_leaves_the_model_alone(model):
    frames = photons(1, 1, 2, 3)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(frames)
        form = zoo.inference_form(model)
        image = form(frames)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert model.state_dict().keys() == before.keys()
    assert not any(isinstance(m, zoo.UpConv2d) and m.padding_mode == "zeros" for m in form.modules())


def test_wrong_number_of_channels_is_refused(model):
    with pytest.raises(ValueError, match=rf"frames are \(1, 2, 8, 8\); {model.model_name} needs .*1 channel"):
        model(photons(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"frames are \(8, 8\)"):
        model(photons(8, 8))
    with pytest.raises(ValueError, match="at least one pixel"):
        model(photons(1, 1, 0, 8))


@pytest.mark.parametrize("name", ["deep_storm", "skip_storm", "drl_storm", "dsir"])
def test_a_size_that_is_no_multiple_is_refused(name):
    model = zoo.create_model(name, upsampling=4).eval()
    assert model.size_multiple == 2
    with pytest.raises(ValueError, match=rf"frames are 5 x 8 pixels; {name} needs multiples of 2. Pad to 6 x 8"):
        model(photons(1, 1, 5, 8))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("srcnn", {"variant": "9-9-9"}, "variant is '9-9-9'; known are: '9-1-5'"),
        ("srcnn", {"kernels": (2, 1, 5)}, "three odd sizes"),
        ("deep_storm", {"variant": "x"}, "known are: 'nehme'"),
        ("skip_storm", {"trunk": "x"}, "known are: 'dl4smlm'"),
        ("drl_storm", {"variant": "x"}, "known are"),
        ("fid_storm", {"variant": "x"}, "known are"),
        ("fid_storm", {"body_activation": "gelu"}, "known are"),
        ("fid_storm", {"n_blocks": 0}, "at least 1"),
        ("fid_storm", {"variant": "dl4smlm", "n_blocks": 5}, "belong to variant 'repository'"),
        ("dsir", {"statistics": "x"}, "known are: 'image'"),
        ("u_storm", {"normalisation": "x"}, "known are: dataset"),
        ("u_storm", {"enlarge": "x"}, "known are: nearest"),
        ("u_storm", {"upsampling": 3}, "take 4 or 8"),
    ],
)
def test_unknown_option_values_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        zoo.create_model(name, **options)


PARAMETERS = {
    ("srcnn", None): 8_129,
    ("srcnn", "9-5-5"): 57_281,
    ("srcnn", "dl4smlm"): 3_203,
    ("deep_storm", None): 1_366_208,
    ("deep_storm", "dl4smlm"): 1_367_171,
    ("skip_storm", None): 1_367_436,
    ("u_storm", None): 144_003,
    ("drl_storm", None): 9_415_203,
    ("fid_storm", None): 393_680,
    ("fid_storm", "onnx5"): 208_400,
    ("fid_storm", "onnx13"): 503_824,
    ("fid_storm", "dl4smlm"): 227_585,
    ("dsir", None): 3_339,
}
RECEPTIVE_FIELDS = {  # core's input pixels
    ("srcnn", None): 13,
    ("srcnn", "9-5-5"): 17,
    ("srcnn", "dl4smlm"): 5,
    ("deep_storm", None): 54,
    ("deep_storm", "dl4smlm"): 38,
    ("skip_storm", None): 46,
    ("u_storm", None): 24,
    ("drl_storm", None): 104,
    ("fid_storm", None): 25,
    ("fid_storm", "dl4smlm"): 19,
    ("dsir", None): 30,
}


@pytest.mark.parametrize("form", FORMS, ids=form_id)
def test_parameters_equal_the_table(form):
    count = zoo.count_parameters(build(form))
    name, variant = form
    spec = zoo.get_spec(name)
    assert count == (spec.parameters if variant is None else spec.variants[variant].parameters)
    assert count == PARAMETERS.get(form, count)


class _Flat(nn.Module):
    def forward(self, x):
        return x


def _receptive_field(core):
    """Width of what one output pixel sees, the largest over pixel phases, with a linear positive twin."""
    twin = copy.deepcopy(core).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
        parameter.fill_(0.0 if parameter.ndim == 1 else 1.0 / parameter[0].numel())
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                child.running_mean.fill_(0)
                child.running_var.fill_(1)
                child.weight.fill_(1)
            elif isinstance(child, (nn.ReLU, nn.LeakyReLU)):
                setattr(parent, name, _Flat())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(2))
    if hasattr(twin, "statistics"):
        twin.statistics = "running"
    images = torch.ones(8, 1, 8, 128, requires_grad=True)  # one for each phase
    rows = twin(images)[:, 0, 4]
    phases = torch.arange(8)
    rows[phases, rows.shape[1] // 2 + phases].sum().backward()
    seen = images.grad[:, 0].abs().amax(1) > 0
    return max(int(row.nonzero().max() - row.nonzero().min()) + 1 for row in seen)


@pytest.mark.parametrize("form", FORMS, ids=form_id)
def test_receptive_field_equals_the_table(form):
    model = build(form)
    name, variant = form
    spec = zoo.get_spec(name)
    field = _receptive_field(model.core)
    assert field == RECEPTIVE_FIELDS.get(form, field)
    per_camera_pixel = 1 if model.enlarge.mode == "none" else 8
    stated = spec.receptive_field_px if variant is None else spec.variants[variant].receptive_field_px
    assert stated == field / per_camera_pixel


GMAC = {
    ("srcnn", None): 2.11,
    ("srcnn", "9-5-5"): 14.99,
    ("srcnn", "dl4smlm"): 0.76,
    ("deep_storm", None): 24.2,
    ("deep_storm", "dl4smlm"): 75.0,
    ("skip_storm", None): 75.0,
    ("u_storm", None): 11.3,
    ("drl_storm", None): 111.8,
    ("fid_storm", None): 2.15,
    ("dsir", None): 0.19,
}


@pytest.mark.parametrize("form", list(GMAC), ids=form_id)
def test_published_work_equals_the_table(form):
    macs = zoo.count_macs(build(form), 64, 64)
    assert macs.published / 1e9 == pytest.approx(GMAC[form], abs=0.06 if GMAC[form] > 10 else 0.006)
    assert macs.done <= macs.published


def test_work_done_counts_the_four_ninths_of_upsampled_convolutions():
    block = zoo.UpConv2d(3, 5)
    macs = zoo.count_macs(nn.Sequential(nn.Conv2d(1, 3, 1), block), 6, 4)
    assert macs.published == 3 * 24 + 3 * 5 * 9 * 96
    assert macs.done == 3 * 24 + 3 * 5 * 16 * 24
    plain = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)
    assert zoo.count_macs(nn.Sequential(nn.Conv2d(1, 3, 1), plain), 6, 4).done == macs.done


def test_the_residual_of_drl_storm_is_one_of_its_equal_channels():
    core = build(("drl_storm", None)).eval().core
    image, features = torch.rand(1, 1, 8, 8), torch.rand(1, 32, 8, 8)
    weights = core.residual.gaussian_weights
    assert weights.shape == (32, 32, 3, 3)
    assert weights[0, 0].sum().item() == pytest.approx(1, abs=1e-6)
    assert weights[0, 0, 2, 2].item() == pytest.approx(0.4108, abs=1e-4)
    published = image - nn.functional.conv2d(features, weights, padding=1)  # 32 channels
    torch.testing.assert_close(core.residual(image, features).expand(-1, 32, -1, -1), published)
    conv = core.second.down1.conv
    expected = nn.functional.conv2d(published, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(published[:, :1]), expected, rtol=1e-4, atol=1e-4)


def test_dsir_statistics_are_those_that_the_switch_names():
    frames = photons(3, 1, 8, 8)
    model = build(("dsir", None), statistics="image").eval()
    with torch.no_grad():
        alone = torch.cat([model(frame[None]) for frame in frames])
        assert torch.allclose(model(frames), alone, atol=1e-4)
        model.core.statistics = "batch"
        batch = model(frames)
        model.core.statistics = "running"
        running = model(frames)
        model.train()
        trained = model(frames)
    assert torch.equal(batch, trained)
    assert not torch.allclose(batch, alone, atol=1e-3)
    assert not torch.allclose(running, batch, atol=1e-3)
    assert zoo.create_model("dsir").core.statistics == "image"
    assert zoo.create_model("dsir", separate_norm=True).core.statistics == "running"


@pytest.mark.slow  # the exporter takes seconds to load; `harness` tests the export of every model
@pytest.mark.parametrize("name", ["fid_storm"])
def test_onnx_with_free_sizes_equals_torch(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = build((name, None), **({"n_blocks": 2} if name == "fid_storm" else {})).eval()
    model.normalisation.set_statistics(100.0, 30.0)
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    file = tmp_path / "model.onnx"
    torch.onnx.export(
        zoo.inference_form(model),
        (photons(2, 1, 12, 16),),
        file,
        dynamo=True,
        opset_version=18,
        dynamic_shapes=(free,),
        external_data=False,
        verbose=False,
    )
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 9, 14), (3, 1, 16, 8)):
        frames = photons(*shape)
        with torch.no_grad():
            expected = model(frames)
        (image,) = session.run(None, {session.get_inputs()[0].name: frames.numpy()})
        torch.testing.assert_close(torch.from_numpy(image), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
