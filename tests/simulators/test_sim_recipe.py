import math

import numpy as np
import pytest
import yaml

from simulators import Recipe, list_recipes, load_recipe, parse_recipe, recipe_hash, save_recipe

TUBES = {"tubes-2d-ld": (0.05, 8000, 90), "tubes-2d-hd": (0.5, 8000, 90), "tubes-2d-uhd": (1.5, 8000, 90),
         "tubes-2d-hd-dim": (0.5, 1700, 30)}  # fmt: skip


FURTHER = {
    "tubes-as-ld",
    "tubes-as-hd",
    "er-2d-ld",
    "er-2d-hd",
    "npc-2d-hd",
    "tubes-2d-hd-scmos",
    "epfl-as",
    "scmos-2d",
    "paint-2d",
}


def test_the_named_recipes_are_there():
    assert set(list_recipes()) >= {*TUBES, *FURTHER, "epfl-2d"}
    assert set(list_recipes("tubes-2d-*")) >= set(TUBES)
    for name in list_recipes():
        assert load_recipe(name).name == name


@pytest.mark.parametrize("name", [*TUBES, "epfl-2d"])
def test_the_numbers_all_share(name):
    r = load_recipe(name)
    assert r.size == (64, 64)
    c = r.camera
    assert (c.pixel_size_nm, c.quantum_efficiency, c.em_gain, c.read_noise_e, c.e_per_adu, c.baseline) == (
        (100, 100), 0.9, 300, 74.4, 45, 100)  # fmt: skip
    assert (c.spurious_charge_e, c.max_adu, c.rounding) == (0.002, 65535, "truncate")
    assert (r.psf.kind, r.psf.defocus_nm, r.z_range_nm) == ("gaussian", 420, (-300, 300))
    kind = "four_state" if name in TUBES else "on_time"
    assert (r.blinking.kind, r.blinking.mean_on_frames, r.blinking.minimum_share) == (kind, 1, 0.01)


@pytest.mark.parametrize(("name", "numbers"), TUBES.items())
def test_the_numbers_of_the_tubes(name, numbers):
    r = load_recipe(name)
    assert (r.density_um2, r.photons, r.background) == numbers
    assert (r.structure.kind, r.structure.outer_radius_nm, r.structure.wall_nm) == ("tubes", 12.5, 6)
    assert r.psf.sigma_nm == 115


def test_the_numbers_of_the_training_domain():
    r = load_recipe("epfl-2d")
    assert r.structure.kind == "uniform"
    assert (r.photons.low, r.photons.high, r.photons.scale) == (300, 10_000, "log")
    assert (r.background.low, r.background.high) == (10, 200)
    assert (r.density_um2.low, r.density_um2.high, r.density_um2.scale) == (0.02, 2, "log")
    assert (r.psf.sigma_nm.low, r.psf.sigma_nm.high) == (100, 135)


@pytest.mark.parametrize("name", list_recipes())
def test_yaml_goes_both_ways_with_the_same_hash(name, tmp_path):
    recipe = load_recipe(name)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    back = load_recipe(tmp_path / "recipe.yaml")
    assert back == recipe
    assert back.hash == recipe.hash == recipe_hash(recipe)
    assert len(recipe.hash) == 16
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_the_hash_follows_the_values_not_their_order_or_spelling():
    recipe = load_recipe("tubes-2d-hd")
    values = recipe.model_dump(mode="json")
    turned = {key: values[key] for key in reversed(values)}
    turned["camera"] = {key: values["camera"][key] for key in reversed(values["camera"])}
    turned["photons"], turned["size"] = "8e3", 64
    assert parse_recipe(turned, source="test").hash == recipe.hash
    assert recipe.with_(background=91).hash != recipe.hash
    assert recipe.with_(seed=1).hash != recipe.hash


def test_with_exchanges_and_checks():
    r = load_recipe("tubes-2d-hd").with_(frames=7, size=40, seed=3)
    assert (r.frames, r.size, r.seed) == (7, (40, 40), 3)
    assert load_recipe("tubes-2d-hd").with_(size=(30, 50)).area_um2 == pytest.approx(15)
    with pytest.raises(ValueError, match=r"unknown key 'frame' in Recipe. Did you mean 'frames'"):
        r.with_(frame=8)
    with pytest.raises(ValueError, match=r"frames: .*greater than or equal to 1"):
        r.with_(frames=0)


def change(**changes):
    values = load_recipe("epfl-2d").model_dump(mode="json")
    for path, value in changes.items():
        *parents, key = path.split("__")
        part = values
        for parent in parents:
            part = part[parent]
        if value is None:
            del part[key]
        else:
            part[key] = value
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"photon": 5},
            r"unknown key 'photon' in Recipe. Did you mean 'photons'\? Known keys: background, blinking",
        ),
        ({"camera__gain": 5}, r"camera: unknown key 'gain' in Camera"),
        ({"psf__sigma": 5}, r"psf: unknown key 'sigma' in GaussianPSF. Did you mean 'sigma_nm'"),
        ({"density_um2__lo": 5}, r"unknown key 'lo' in Range"),
        ({"photons": None}, "photons: is missing"),
        ({"photons": -5}, "photons: is -5; expected more than 0"),
        ({"photons": "many"}, "photons: 'many' is neither a number nor a range"),
        ({"photons": {"low": 5, "high": 1}}, "low is 5, above high 1"),
        ({"photons": {"low": 0, "high": 1, "scale": "log"}}, "needs low > 0"),
        ({"background": math.nan}, "background"),
        ({"density_um2": math.inf}, "density_um2"),
        ({"psf__kind": "airy"}, "psf: .*'airy'"),
        ({"structure": {"kind": "tubes", "wall_nm": 30}}, "thicker than outer_radius_nm"),
        ({"size": [64]}, "size"),
        ({"size": 0}, "size"),
        ({"z_range_nm": [300, -300]}, "lowest height first"),
        ({"camera__read_noise_e": [[1.0, 2.0]]}, "map of 1 x 2"),
        ({"blinking__mean_on_frames": 0}, "mean_on_frames"),
    ],
)
def test_bad_recipes_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_recipe(change(**changes), source="mine.yaml")
    assert "mine.yaml" in str(caught.value)


def test_unknown_names_get_a_suggestion_and_missing_files_are_missing(tmp_path):
    with pytest.raises(ValueError, match=r"No recipe named 'tubes-2d-hdd'. Did you mean 'tubes-2d-hd'\?"):
        load_recipe("tubes-2d-hdd")
    with pytest.raises(FileNotFoundError, match="Give the path"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="is no YAML"):
        load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="holds list"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="is no YAML"):
        load_recipe(tmp_path / "code.yaml")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    recipe, path = load_recipe("tubes-2d-ld"), tmp_path / "recipe.yaml"
    save_recipe(recipe, path)
    before = path.read_text()
    monkeypatch.setattr(Recipe, "to_yaml", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_recipe(recipe.with_(seed=9), path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_ranges_are_drawn_on_their_scale():
    from simulators._model import Range, draw

    rng = np.random.default_rng(1)
    log = np.log(draw(Range(low=300, high=10_000, scale="log"), 20_000, rng))
    assert log.mean() == pytest.approx(np.log(300 * 10_000) / 2, abs=0.04)
    even = draw(Range(low=10, high=20), 20_000, rng)
    assert (even.min(), even.max(), even.mean()) == pytest.approx((10, 20, 15), abs=0.1)
    assert draw(7.0, 3, rng).tolist() == [7, 7, 7]


def test_the_yaml_is_plain_text():
    assert yaml.safe_load(load_recipe("epfl-2d").to_yaml())["photons"] == {
        "low": 300.0,
        "high": 1e4,
        "scale": "log",
    }
