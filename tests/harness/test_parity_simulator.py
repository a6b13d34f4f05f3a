"""Cameras, samplers, rates, photophysics and dropout boxes equal the originals', and wrong numbers are noticed."""

import json
import shutil

import numpy as np
import pytest

from harness.parity import run_parity

FILES = {
    "decode/camera.npz": 200,
    "decode/emitter_sampling.npz": 30,
    "attention_unet/simulator_rate.npz": 8,
    "attention_unet/simulator_noise_moments.json": 70,
    "attention_unet/dropout_box.npz": 2,
    "attention_unet/photophysics.json": 8,
}
pytestmark = pytest.mark.parity


def compared(path):
    return run_parity(path, sizes=())


@pytest.mark.parametrize(("name", "least"), FILES.items())
def test_our_simulator_equals_the_original(reference, name, least, tmp_path):
    target = tmp_path / f"other_name{(reference / name).suffix}"  # recognised by what it holds
    shutil.copy(reference / name, target)
    if name.endswith("photophysics.json"):  # the faster of the two rates; the whole folder is the slow tests' matter
        document = json.loads(target.read_text())
        document["rates_per_s"]["off_S0"] = [2.0]
        target.write_text(json.dumps(document))
    rows = compared(target)
    assert [row for row in rows if row.status != "equal"] == []
    assert len(rows) >= least


def mutated(reference, name, tmp_path, change):
    with np.load(reference / name) as data:
        arrays = {key: np.array(data[key]) for key in data.files}
    change(arrays)
    path = tmp_path / "mutated.npz"
    np.savez(path, **arrays)
    return [row for row in compared(path) if row.status == "off"]


def scale(key, index, factor):
    def change(arrays):
        arrays[key][index] *= factor

    return change


@pytest.mark.parametrize(
    ("key", "index", "factor", "item"),
    [
        ("emccd_adu_mean_var_skew_fracmin_min", (3, 0), 1.004, "emccd adu at 20: mean"),
        ("emccd_adu_mean_var_skew_fracmin_min", (4, 1), 1.02, "emccd adu at 100: variance"),
        ("scmos_adu_mean_var_skew_fracmin_min", (2, 2), 1.2, "scmos adu at 5: skewness"),
        ("perfect_adu_mean_var_skew_fracmin_min", (1, 3), 1.02, "perfect adu at 1: share of the smallest"),
        ("emccd_paper_photon_units_mean_var_skew_fracmin_min", (5, 0), 1.001, "emccd_paper photon_units at 1000: mean"),
        ("scmos_adu_quantiles", (6, 4), 1.0003, "scmos adu at 10000: quantiles"),
        ("scmos_backward_out", 7, 1.0001, "scmos photons of counts"),
    ],
)
def test_a_wrong_figure_of_a_camera_is_off(reference, tmp_path, key, index, factor, item):
    name = key.split("_adu")[0].split("_photon")[0].split("_backward")[0]

    def change(arrays):
        specs = json.loads(str(arrays["specs_json"]))
        arrays["specs_json"] = np.array(json.dumps({name: specs[name]}))
        scale(key, index, factor)(arrays)
        if isinstance(index, tuple):
            only = slice(index[0], index[0] + 1)
            for part in [part for part in arrays if part == "level" or part.endswith(("_min", "_quantiles"))]:
                arrays[part] = arrays[part][only]

    off = mutated(reference, "decode/camera.npz", tmp_path, change)
    assert [row.item for row in off] == [item]


@pytest.mark.parametrize(
    ("key", "index", "factor", "item"),
    [
        ("binned_phot", 7, 1.01, "rows: photons"),
        ("binned_frame_ix", 9, 2, "rows: frame"),
        ("sampler_stats", (1, 3), 1.05, "on-time 2: rows_per_frame_mean"),
        ("sampler_stats", (0, 8), 1.3, "on-time 1: frac_phot_below_50"),
    ],
)
def test_a_wrong_figure_of_the_sampler_is_off(reference, tmp_path, key, index, factor, item):
    def change(arrays):
        scale(key, index, factor)(arrays)
        if isinstance(index, tuple):
            arrays["sampler_stats"] = arrays["sampler_stats"][index[0] : index[0] + 1]
        else:
            del arrays["sampler_stats"]

    assert [row.item for row in mutated(reference, "decode/emitter_sampling.npz", tmp_path, change)] == [item]


def test_wrong_rates_and_boxes_are_off(reference, tmp_path):
    rate = "attention_unet/simulator_rate.npz"
    off = mutated(reference, rate, tmp_path, scale("flim_poisson_rate", (3, 4), 1.001))
    assert [row.item for row in off] == ["flim: rate"]
    off = mutated(reference, rate, tmp_path, scale("contest_x_y_photons", (0, 0), 1.001))
    assert [row.item for row in off] == ["contest: spots"]
    off = mutated(reference, "attention_unet/dropout_box.npz", tmp_path, scale("kept_indices", 0, 2))
    assert [row.item for row in off] == ["molecules kept"]


def changed(reference, name, tmp_path, change):
    document = json.loads((reference / name).read_text())
    change(document)
    path = tmp_path / "mutated.json"
    path.write_text(json.dumps(document))
    return [row.item for row in compared(path) if row.status == "off"]


def test_wrong_noise_is_off(reference, tmp_path):
    def change(document):
        document["flim"]["pixels"][1]["mean"] *= 1.03
        document["contest"]["pixels"][0]["var_analytic"] += 0.1

    name = "attention_unet/simulator_noise_moments.json"
    off = changed(reference, name, tmp_path, change)
    assert "flim [10, 10]: mean" in off

    def other(document):
        document["airyscan"]["all_pixels_var_over_analytic"] = 1.01

    assert changed(reference, name, tmp_path, other) == ["airyscan: all_pixels_var_over_analytic"]


def test_wrong_photophysics_is_off(reference, tmp_path):
    def change(document):
        document["rates_per_s"]["off_S0"] = [2.0]
        document["off_S0_2.0"]["counts_per_on_frame_mean"] *= 1.1
        document["off_S0_2.0"]["radiative_fraction"] = 0.4085

    off = changed(reference, "attention_unet/photophysics.json", tmp_path, change)
    assert off == ["off_S0_2.0: radiative_fraction", "off_S0_2.0: counts_per_on_frame_mean"]


def test_documents_that_do_not_fit_are_said_to(tmp_path):
    for name, text in (("a.json", "[1, 2]"), ("b.json", "{"), ("c.json", '{"rates_per_s": 3, "frame_s": 1}')):
        (tmp_path / name).write_text(text)
        (row,) = compared(tmp_path / name)
        assert row.status == "off"
    (tmp_path / "d.json").write_text('{"some": 1}')
    (row,) = compared(tmp_path / "d.json")
    assert (row.status, row.note) == ("not covered", "no kind of file that is compared (it holds some)")
