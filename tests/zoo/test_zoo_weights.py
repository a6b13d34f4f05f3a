"""Weight files: what is written is read back, damage is noticed, shipped weights are found."""

import json
import os

import pytest
import torch

import zoo
from zoo import _weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    built = zoo.create_model("srcnn", variant="dl4smlm", upsampling=4)
    built.normalisation.set_statistics(120.0, 35.0)
    return built


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A stand-in for the package's own weights folder."""
    monkeypatch.setattr(_weights, "_shipped", lambda: tmp_path)
    return tmp_path


def same(one, two):
    assert one.state_dict().keys() == two.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


def test_a_folder_holds_the_whole_model(model, tmp_path):
    written = zoo.save_weights(model, tmp_path / "run", {"threshold": 0.3, "valid": {"photons": [300, 10000]}})
    assert sorted(os.listdir(tmp_path / "run")) == ["card.json", "model.safetensors"]
    loaded, card = zoo.load_model(tmp_path / "run")
    assert card == written == json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["model"] == "srcnn"
    assert card["options"] == {"variant": "dl4smlm", "upsampling": 4}
    assert card["normalisation"] == {"mode": "dataset", "mean": 120.0, "std": 35.0}
    assert card["output"]["upsampling"] == 4
    assert card["threshold"] == 0.3
    assert not loaded.training
    same(model, loaded)
    frames = torch.rand(1, 1, 6, 6)
    with torch.no_grad():
        assert torch.equal(loaded(frames), model.eval()(frames))


def test_an_imported_offset_comes_back_with_the_weights(model, tmp_path):
    model.output = zoo.SRImage(upsampling=4, offset_px=(0.5, 0.5), target_scale=46.9)
    zoo.save_weights(model, tmp_path)
    assert zoo.load_model(tmp_path / "card.json")[0].output == model.output


def test_load_weights_fills_a_model_that_is_there(model, tmp_path):
    zoo.save_weights(model, tmp_path)
    other = zoo.create_model("srcnn", variant="dl4smlm")
    assert zoo.load_weights(other, tmp_path)["model"] == "srcnn"
    same(model, other)
    with pytest.raises(ValueError, match="holds weights of 'srcnn', not of 'u_storm'"):
        zoo.load_weights(zoo.create_model("u_storm"), tmp_path)


def test_float16_halves_the_kernels_and_keeps_the_statistics(tmp_path):
    model = zoo.create_model("u_storm")
    model.normalisation.set_statistics(70_000.0, 35.5)
    model.core.features.norm.running_var.fill_(1234.567)
    full = zoo.save_weights(model, tmp_path / "full")["files"][0]["bytes"]
    card = zoo.save_weights(model, tmp_path / "half", float16=True)
    assert card["dtype"] == "float16"
    assert card["files"][0]["bytes"] < 0.53 * full
    loaded, _ = zoo.load_model(tmp_path / "half")
    assert loaded.normalisation.mean == 70_000
    for key, value in model.core.state_dict().items():
        restored = loaded.core.state_dict()[key]
        assert restored.dtype == value.dtype
        torch.testing.assert_close(restored, value, rtol=1e-3, atol=1e-7)
    assert torch.equal(loaded.core.features.norm.running_var, model.core.features.norm.running_var)


def test_large_weights_are_split(model, tmp_path, monkeypatch):
    card = zoo.save_weights(model, tmp_path, stem="srcnn.small", max_shard_bytes=10_000)
    names = [record["name"] for record in card["files"]]
    assert names == [f"srcnn.small-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    assert all((tmp_path / name).stat().st_size <= 10_000 for name in names)
    loaded, _ = zoo.load_model(tmp_path / "srcnn.small.json")
    same(model, loaded)
    (tmp_path / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"00002-of-00003\.safetensors is missing; its card srcnn\.small\.json"):
        zoo.load_model(tmp_path / "srcnn.small.json")


def test_the_largest_model_fits_shards_of_fifteen_megabytes(tmp_path):
    card = zoo.save_weights(zoo.create_model("drl_storm"), tmp_path, float16=True)
    assert len(card["files"]) == 2
    assert all(record["bytes"] <= 15_000_000 for record in card["files"])


def test_a_damaged_file_is_named(model, tmp_path):
    zoo.save_weights(model, tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not the file of its card: sha256"):
        zoo.load_model(tmp_path)
    file.write_bytes(content[:100])
    with pytest.raises(ValueError, match="100 bytes"):
        zoo.load_model(tmp_path)


def test_shapes_that_do_not_fit_are_listed_and_change_nothing(model, tmp_path):
    zoo.save_weights(model, tmp_path)
    other = zoo.create_model("srcnn")
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"srcnn.* has no core\.extract\.norm"):
        zoo.load_weights(other, tmp_path)
    wide = zoo.create_model("srcnn", variant="dl4smlm", kernels=(5, 1, 3))
    with pytest.raises(
        ValueError, match=r"core\.extract\.conv\.weight is \(64, 1, 3, 3\), the model has \(64, 1, 5, 5\)"
    ):
        zoo.load_weights(wide, tmp_path)
    zoo.save_weights(other, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"lack core\.extract\.norm"):
        zoo.load_weights(model, tmp_path / "plain")
    for key, value in other.state_dict().items():
        assert torch.equal(value, before[key])


def test_an_interrupted_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    zoo.save_weights(model, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(_weights.os, "fsync", interrupted)
    with torch.no_grad():
        model.core.map.conv.weight.add_(1)
    with pytest.raises(KeyboardInterrupt):
        zoo.save_weights(model, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, this version reads up to 1"),
        ({"model": None}, "field 'model' is missing or no str"),
        ({"files": [{"name": "../secret.safetensors", "sha256": "0"}]}, "not a file beside it"),
        ({"files": ["model.safetensors"]}, "not a file beside it"),
        ({"output": {"upsampling": 4, "colour": "red"}}, "field 'output' does not fit"),
        ({"model": "no_such_model"}, "No model named 'no_such_model'"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(model, tmp_path, change, message):
    card = zoo.save_weights(model, tmp_path)
    (tmp_path / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(ValueError, match=message):
        zoo.load_model(tmp_path)


def test_a_card_that_is_no_json_is_refused(model, tmp_path):
    zoo.save_weights(model, tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(ValueError, match=r"card\.json is not a JSON card"):
        zoo.load_model(tmp_path)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(ValueError, match="card fields model, options are written from the model"):
        zoo.save_weights(model, tmp_path / "a", {"model": "x", "options": {}})
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        zoo.save_weights(model, tmp_path / "a", {"when": object()})
    with torch.no_grad():
        model.core.map.conv.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"'core\.map\.conv\.bias' holds nan"):
        zoo.save_weights(model, tmp_path / "a")
    with pytest.raises(ValueError, match="no model_name"):
        zoo.save_weights(torch.nn.Conv2d(1, 1, 1), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_shipped_weights_are_listed_and_loaded(model, shipped):
    assert zoo.list_weights() == []
    zoo.save_weights(model, shipped, stem="srcnn.epfl-2d")
    zoo.save_weights(model, shipped, stem="srcnn.other")
    assert zoo.list_weights() == ["srcnn.epfl-2d", "srcnn.other"]
    assert zoo.list_weights("*.other") == ["srcnn.other"]
    same(model, zoo.create_model("srcnn", pretrained=True))
    same(model, zoo.create_model("srcnn", pretrained="other", upsampling=4))
    same(model, zoo.load_model("srcnn.other")[0])


def test_a_folder_that_holds_no_model_does_not_hide_the_shipped_one(model, shipped, tmp_path, monkeypatch):
    zoo.save_weights(model, shipped, stem="srcnn.epfl-2d")
    (tmp_path / "srcnn").mkdir()
    monkeypatch.chdir(tmp_path)
    same(model, zoo.load_model("srcnn")[0])


def test_options_that_contradict_pretrained_weights_are_refused(model, shipped):
    zoo.save_weights(model, shipped, stem="srcnn.epfl-2d")
    with pytest.raises(ValueError, match="were made with upsampling=4, not 8"):
        zoo.create_model("srcnn", pretrained=True, upsampling=8)
    with pytest.raises(ValueError, match="were made with enlarge='bicubic', not 'nearest'"):
        zoo.create_model("srcnn", pretrained=True, enlarge="nearest")


def test_weights_that_are_not_shipped_are_refused_clearly(model, shipped):
    with pytest.raises(FileNotFoundError, match=r"no weights 'srcnn\.epfl-2d'.*there are none"):
        zoo.create_model("srcnn", pretrained=True)
    zoo.save_weights(model, shipped, stem="srcnn.other")
    with pytest.raises(FileNotFoundError, match=r"no weights 'srcnn\.epfl-2d'.*there are: srcnn\.other"):
        zoo.create_model("srcnn", pretrained=True)


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no card\.json"):
        zoo.load_model(tmp_path)


def test_every_shipped_file_loads_and_fits():
    for tag in zoo.list_weights():
        model, card = zoo.load_model(tag)
        assert tag.startswith(card["model"] + ".")
        assert all(record["bytes"] <= 15_000_000 for record in card["files"])
        assert model.model_name == card["model"]
