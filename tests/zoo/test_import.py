"""`smlm-zoo import`: foreign weights become model folders with the origin's conventions."""

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from harness.import_weights import import_weights
from simulators import GaussianPSF
from zoo._originals import OriginalFileError


def originals_srcnn(seed: int = 1) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, out, into, kernel in (
        ("feature_representation", 64, 1, 3),
        ("non_linear_mapping", 32, 64, 1),
        ("reconstruction", 1, 32, 3),
    ):
        tensors[f"{name}.0.weight"] = 0.1 * torch.randn(out, into, kernel, kernel, generator=rng)
        for key in ("0.bias", "1.weight", "1.bias", "1.running_mean"):
            tensors[f"{name}.{key}"] = torch.randn(out, generator=rng)
        tensors[f"{name}.1.running_var"] = 1 + torch.rand(out, generator=rng)
        tensors[f"{name}.1.num_batches_tracked"] = torch.tensor(4)
    return tensors


def test_an_import_can_be_loaded_and_keeps_every_number(tmp_path):
    tensors = originals_srcnn()
    torch.save(tensors, tmp_path / "srcnn.pth")
    report = import_weights(
        tmp_path / "srcnn.pth",
        output=tmp_path / "out",
        options={"mean": 210.0, "std": 55.0, "target_scale": 3.0},
    )
    assert (report.model, report.layout, report.warnings) == ("srcnn", "dl4smlm_srcnn", ())
    assert (len(report.copied), len(report.skipped), report.dead) == (18, 3, ())
    model, card = zoo.load_model(tmp_path / "out")
    assert torch.equal(model.core.map.conv.weight, tensors["non_linear_mapping.0.weight"])
    assert torch.equal(model.core.rebuild.norm.running_var, tensors["reconstruction.1.running_var"])
    assert (model.normalisation.mode, model.normalisation.mean, model.normalisation.std) == (
        "dataset",
        210.0,
        55.0,
    )
    assert model.output.target_scale == 3.0
    assert card["imported"]["file"] == "srcnn.pth"
    assert "recognised as dl4smlm_srcnn" in str(report)


def test_what_the_file_does_not_tell_is_said(tmp_path):
    save_file(originals_srcnn(), tmp_path / "srcnn.safetensors")
    report = import_weights(tmp_path / "srcnn.safetensors", output=tmp_path / "out")
    assert len(report.warnings) == 2
    assert "mean" in report.warnings[0]
    assert "target_scale" in report.warnings[1]
    assert report.card["imported"]["assumed"] == list(report.warnings)


def test_the_wrong_model_and_contradicting_options_are_refused(tmp_path):
    save_file(originals_srcnn(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"holds weights of srcnn .* not of dsir"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "out", model="dsir")
    with pytest.raises(ValueError, match="Did you mean 'srcnn'"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "out", model="srcn")
    with pytest.raises(ValueError, match=r"say variant='dl4smlm'"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "out", options={"variant": "9-1-5"})
    with pytest.raises(TypeError, match="options are"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "out", options={"colour": "red"})
    assert not (tmp_path / "out").exists()


def test_a_file_of_no_original_is_refused(tmp_path):
    save_file({"strange.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(OriginalFileError, match=r"a.safetensors.*no known original.*keras_deepstorm"):
        import_weights(tmp_path / "a.safetensors", output=tmp_path / "out")


def test_keras_hdf5_and_safetensors_give_the_same_network(reference, tmp_path):
    for name in ("keras_deepstorm.hdf5", "keras_deepstorm.safetensors"):
        if not (reference / name).is_file():
            pytest.skip(f"no {name} in the reference folder")
    options = {"mean": 0.2, "std": 0.18}
    first = import_weights(reference / "keras_deepstorm.hdf5", output=tmp_path / "a", options=options)
    import_weights(reference / "keras_deepstorm.safetensors", output=tmp_path / "b", options=options)
    left, right = (
        load_file(tmp_path / "a" / "model.safetensors"),
        load_file(tmp_path / "b" / "model.safetensors"),
    )
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert tuple(first.card["output"]["offset_px"]) == (0.5, 0.5)  # index j stands for (j + 1) p
    assert first.card["output"]["target_scale"] == 50.0
    assert first.card["normalisation"]["mode"] == "min_max"
    with h5py.File(reference / "keras_deepstorm.hdf5") as file:
        kernel = file["model_weights/conv-CNNF2/conv-CNNF2/kernel:0"][()]
    model, _ = zoo.load_model(tmp_path / "a")
    assert np.array_equal(model.core.trunk.block2.conv.weight.detach().numpy(), kernel.transpose(3, 2, 0, 1))


def test_dead_tensors_of_the_published_pickle_are_reported(reference, tmp_path):
    path = reference / "fidstorm_best.safetensors"
    if not path.is_file():
        pytest.skip("no fidstorm_best.safetensors in the reference folder")
    report = import_weights(path, output=tmp_path / "out")
    assert len(report.dead) == 13
    assert all(name.startswith(("last_part.", "normlayerUp")) for name in report.dead)
    assert "dead (never used by the original)" in str(report)
    dead = load_file(path)
    assert sum(dead[name].numel() for name in report.dead if "running" not in name and "batches" not in name) == 37_168


@pytest.mark.parametrize("stem", ["fidstorm_onnx5", "fidstorm_onnx13", "dsir_published"])
def test_published_weights_find_emitters_without_bias(reference, tmp_path, stem):
    """The stored offset: on isolated simulated emitters the median signed error is below a fifth of a fine pixel."""
    path = reference / f"{stem}.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the reference folder")
    import_weights(path, output=tmp_path / "out")
    model, _ = zoo.load_model(tmp_path / "out")
    rng = np.random.default_rng(11)
    frames, size, per_frame = 60, 24, 3
    frame = torch.arange(frames).repeat_interleave(per_frame)
    x, y = (torch.from_numpy(rng.uniform(500, 1900, frames * per_frame)) for _ in range(2))
    photons = torch.from_numpy(rng.uniform(2000, 5000, len(x)))
    expected = GaussianPSF(sigma_nm=120.0).expected(
        frame=frame,
        x_nm=x,
        y_nm=y,
        z_nm=0 * x,
        photons=photons,
        frames=frames,
        shape=(size, size),
        pixel_size_nm=(100, 100),
    )
    counts = torch.from_numpy(rng.poisson(expected.numpy() + 120).astype(np.float32))[:, None]
    with torch.inference_mode():
        image = model(counts)
    level = 0.3 * float(image.max()) / model.output.lone_peak
    found = model.output.decode(image, threshold=level, pixel_size_nm=100.0)
    errors = []
    for k in range(len(found.frame)):
        same = frame.numpy() == found.frame[k]
        dx, dy = found.x_nm[k] - x.numpy()[same], found.y_nm[k] - y.numpy()[same]
        nearest = np.hypot(dx, dy).argmin()
        if np.hypot(dx[nearest], dy[nearest]) < 100:
            errors.append((dx[nearest], dy[nearest]))
    assert len(errors) > 60
    assert np.abs(np.median(errors, axis=0)).max() < 2.5  # nm; the other conventions differ by 6.25
