"""The list of models and how others join it."""

import subprocess
import sys

import pytest
from torch import nn

import zoo
from zoo import _registry

PLUGIN = """
import torch
import zoo

@zoo.register_model(output=zoo.SRImage(upsampling=4), loss="deepstorm", source="test")
def {name}(*, upsampling: int = 4):
    return zoo.ImageNetwork(torch.nn.Conv2d(1, 1, 3, padding=1), output=zoo.SRImage(upsampling=upsampling))
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Each test leaves the registry as it found it."""
    monkeypatch.setattr(_registry, "_SPECS", dict(_registry._SPECS))
    monkeypatch.setattr(_registry, "_PLUGINS", {})


def test_wildcards_choose_models():
    assert zoo.list_models("*_storm") == ["deep_storm", "drl_storm", "fid_storm", "skip_storm", "u_storm"]
    assert zoo.list_models("nothing*") == []
    assert zoo.list_models() == sorted(zoo.list_models())


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"No model named 'srcn'. Did you mean 'srcnn'\? The zoo has: .*deep_storm"):
        zoo.create_model("srcn")
    with pytest.raises(ValueError, match=r"No model named 'qqqqqq'. The zoo has"):
        zoo.get_spec("qqqqqq")


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(TypeError, match=r"model 'u_storm': .*'upsamplin'.* its options are: width, depth, upsampling,"):
        zoo.create_model("u_storm", upsamplin=4)


def test_a_model_remembers_its_name_and_options():
    model = zoo.create_model("srcnn", variant="dl4smlm")
    assert model.model_name == "srcnn"
    assert model.model_options == {"variant": "dl4smlm"}


def test_a_plugin_adds_a_model_once(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="mine"))
    assert zoo.load_plugin(file) == ["mine"]
    assert zoo.load_plugin(str(file)) == ["mine"]
    model = zoo.create_model("mine", upsampling=8)
    assert model.output.upsampling == 8
    assert zoo.get_spec("mine").origin == str(file)


def test_a_name_registered_twice_is_refused_naming_both_sources(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text(PLUGIN.format(name="mine"))
    two.write_text(PLUGIN.format(name="other") + PLUGIN.format(name="mine"))
    zoo.load_plugin(one)
    with pytest.raises(ValueError, match=r"'mine' is registered twice: first by .*one\.py, now by .*two\.py"):
        zoo.load_plugin(two)
    assert "other" not in zoo.list_models()
    assert zoo.get_spec("mine").origin.endswith("one.py")
    built_in = tmp_path / "three.py"
    built_in.write_text(PLUGIN.format(name="srcnn"))
    with pytest.raises(ValueError, match=r"first by .*zoo.srcnn\.py, now by .*three\.py"):
        zoo.load_plugin(built_in)


def test_a_plugin_that_is_missing_or_registers_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no plugin file"):
        zoo.load_plugin(tmp_path / "absent.py")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(ValueError, match="registers no model"):
        zoo.load_plugin(empty)
    broken = tmp_path / "broken.py"
    broken.write_text(PLUGIN.format(name="half") + "\nraise RuntimeError('stop')\n")
    with pytest.raises(RuntimeError, match="stop"):
        zoo.load_plugin(broken)
    assert "half" not in zoo.list_models()


def test_entry_points_of_other_packages_are_loaded(monkeypatch):
    class Entry:
        name, value = "theirs", "their_package.models"

        def load(self):
            @zoo.register_model(output=zoo.SRImage(), name="theirs", source="test")
            def build():
                return nn.Identity()

    asked = []
    monkeypatch.setattr(_registry, "_entry_points_loaded", False)
    monkeypatch.setattr(_registry, "entry_points", lambda group: asked.append(group) or [Entry()])
    assert "theirs" in zoo.list_models()
    assert zoo.get_spec("theirs").source == "test"
    assert asked == ["smlm_zoo.models"]


def test_a_broken_entry_point_is_named_and_hides_no_other_model(monkeypatch):
    class Entry:
        name, value = "broken", "no_such_package.models"

        def load(self):
            raise ImportError("No module named 'no_such_package'")

    monkeypatch.setattr(_registry, "_entry_points_loaded", False)
    monkeypatch.setattr(_registry, "entry_points", lambda group: [Entry()])
    with pytest.warns(UserWarning, match="broken = no_such_package.models.*No module named"):
        assert "srcnn" in zoo.list_models()


def test_importing_the_zoo_costs_torch_and_no_more():
    code = (
        "import sys, zoo; heavy = {'pandas', 'scipy', 'lightning', 'onnx', 'pydantic', 'h5py', 'tifffile'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
