"""Localization networks through the harness: streams, tiles, ends of movies, export, training, timing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from harness.as_published import PublishedDecode, padded_table, published_loss, published_maps
from harness.cli import main
from harness.export import export_model
from harness.io.movies import write_movie
from harness.io.tables import read_table
from harness.localization import localize, localize_to, photons_of
from harness.models import describe, new_tile, open_model, ready, tile_px
from harness.preview import coloured
from harness.ready import MapModel
from harness.showing import show
from harness.timing_maps import time_map_training, time_movie_to_table
from harness.training import make_config, train
from harness.training.data import SimulatedMovies, open_sources
from losses import decode_per_frame
from simulators import Camera, Emitters, load_recipe

CAMERA = Camera(pixel_size_nm=100.0, baseline=100.0, e_per_adu=1.0)
SMALL = {"decode": {"width": 8}, "compact": {"width": 24}}


def model_of(name, *, tile=None, **options):
    torch.manual_seed(2)
    network = zoo.create_model(name, **{**SMALL[name], **options}).eval()
    network.normalisation.set_statistics(100.0, 40.0)
    with torch.no_grad():  # as if trained to find something
        last = network.core.heads[0].out_conv if name == "decode" else network.core.give
        last.weight.mul_(3)
        last.bias[0] = -1.0
    model = ready(network, {"threshold": 0.5}, name=name, device="cpu", precision="float32")
    assert isinstance(model, MapModel)
    return model if tile is None else replace(model, tile_px=tile)


def counts(frames, height, width):
    rng = np.random.default_rng(1)
    return rng.poisson(100 + 100 + 60 * rng.random((frames, height, width))).astype(np.uint16)


def maps_of(model, movie):
    return model.raw(photons_of(movie, CAMERA), len(movie), len(movie))


@pytest.mark.parametrize("name", SMALL)
def test_every_frame_is_looked_at_with_its_neighbours_whatever_the_blocks(name, monkeypatch):
    model, movie = model_of(name), counts(11, 16, 24)
    whole = maps_of(model, movie)
    assert len(whole) == 11
    photons = torch.from_numpy(CAMERA.to_photons(movie))
    padded = torch.cat([photons[:1], photons, photons[-1:]])  # the first and last frame stand in for their neighbours
    with torch.no_grad():
        torch.testing.assert_close(whole, model.network(padded[None])[0], rtol=1e-4, atol=1e-4)
    for at_once in (1, 16 * 24, 3 * 16 * 24, 4 * 16 * 24):
        monkeypatch.setattr("harness.ready.MAP_PIXELS_AT_ONCE", at_once)
        torch.testing.assert_close(maps_of(model, movie), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.raw(photons_of(movie, CAMERA), 11, 4), whole[:4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_short_movies_lose_no_frame(name, frames):
    found = localize(model_of(name), counts(frames, 16, 16), camera=CAMERA)
    assert found.frames == frames
    assert len(maps_of(model_of(name), counts(frames, 16, 16))) == frames


@pytest.mark.parametrize("name", SMALL)
def test_tiles_equal_the_whole(name):
    movie = counts(1, 96, 150)
    whole, cut = maps_of(model_of(name), movie), maps_of(model_of(name, tile=136), movie)
    assert (whole - cut).abs().max() < 1e-4


def test_where_statistics_of_the_field_enter_the_tile_is_the_card_s(tmp_path):
    model = open_model("attention_unet", device="cpu", precision="float32")
    assert model.receptive_field_px is None
    assert model.tile_px == model.card["tile_px"] == 96
    movie = counts(3, 24, 120)
    whole, cut = maps_of(replace(model, tile_px=None), movie), maps_of(model, movie)
    by_hand = maps_of(replace(model, tile_px=None), movie[..., :80])  # the first tile: 64 pixels and 16 beyond them
    torch.testing.assert_close(cut[..., :64], by_hand[..., :64])
    assert (whole - cut).abs().max() > 1e-3
    assert open_model("decode", device="cpu").tile_px > 96  # of the memory alone
    assert tile_px({}, None, maps=False) is None
    for wrong in (10, 64.0, "96", True):
        with pytest.raises(ValueError, match="tile_px of the card is"):
            tile_px({"tile_px": wrong}, None, maps=True)
    assert new_tile(zoo.create_model("attention_unet", width=8)) == {"tile_px": 96}
    assert new_tile(zoo.create_model("compact")) == {}


@pytest.mark.parametrize("name", SMALL)
def test_sizes_that_are_no_multiple_change_no_coordinate(name):
    movie, model = counts(4, 21, 29), model_of(name)
    photons = torch.from_numpy(CAMERA.to_photons(movie))
    rows, columns = -21 % model.size_multiple, -29 % model.size_multiple
    padded = torch.nn.functional.pad(photons, (0, columns, 0, rows), mode="replicate")
    padded = torch.cat([padded[:1], padded, padded[-1:]])
    with torch.no_grad():
        expected = model.network(padded[None])[0, ..., :21, :29]
    found = maps_of(model, movie)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert localize(model, movie, camera=CAMERA).image.shape == (168, 232)


@pytest.mark.parametrize("name", SMALL)
def test_the_exported_file_gives_the_same_localizations(name, tmp_path):
    model = model_of(name)
    network = model.network
    network.model_name, network.model_options = name, SMALL[name]
    zoo.save_weights(network, tmp_path / "weights", {"threshold": 0.5})
    loaded, card = zoo.load_model(tmp_path / "weights")
    card = export_model(loaded, tmp_path / "onnx", {**card, **describe(loaded)})
    assert card["onnx_deviation"] < 1e-4
    movie = counts(7, 18, 26)
    first = localize(open_model(tmp_path / "weights", precision="float32"), movie, camera=CAMERA).localizations
    second = localize(open_model(tmp_path / "onnx"), movie, camera=CAMERA).localizations
    assert len(first) > 20
    np.testing.assert_array_equal(first.frame, second.frame)
    np.testing.assert_allclose(first.x_nm, second.x_nm, atol=0.05)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    assert [output.name for output in session.get_outputs()] == ["maps", "scores"]
    frames = np.random.default_rng(0).gamma(4.0, 30.0, (2, 9, 8, 16)).astype(np.float32)
    maps, scored = session.run(None, {"frames": frames})  # frames in, two fewer out
    assert maps.shape[:2] == scored.shape[:2] == (2, 7)
    again = loaded.output.scores(torch.from_numpy(maps).flatten(0, 1), threshold=0.5)
    np.testing.assert_allclose(again.unflatten(0, (2, 7)).numpy(), scored, atol=1e-6)


def test_a_folder_is_written_and_a_frame_is_shown(tmp_path):
    write_movie(tmp_path / "movie.tif", counts(6, 16, 16), pixel_size_nm=100.0)
    model = model_of("decode")
    result, rows = localize_to(model, tmp_path / "movie.tif", tmp_path / "out", camera=CAMERA)
    table = read_table(tmp_path / "out" / "localizations.csv")
    assert rows == len(table) > 0
    assert np.isfinite(table.x_sigma_nm).all()
    inside = (table.x_nm >= 0) & (table.x_nm < 1600) & (table.y_nm >= 0) & (table.y_nm < 1600)
    assert result.image.sum() == inside.sum()
    truth = Emitters(frame=[2], x_nm=[500.0], y_nm=[700.0], photons=[1000.0])
    from harness.io.tables import write_table

    write_table(truth, tmp_path / "truth.csv")
    show(model, tmp_path / "movie.tif", tmp_path / "s.png", camera=CAMERA, frame=2, truth=tmp_path / "truth.csv")
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_several_models_are_shown_side_by_side_over_several_frames(tmp_path):
    from PIL import Image

    write_movie(tmp_path / "movie.tif", counts(6, 16, 16), pixel_size_nm=100.0)
    one, other = model_of("decode"), model_of("compact")
    done: list[int] = []

    def shown(models, **options):
        show(models, tmp_path / "movie.tif", tmp_path / "s.png", camera=CAMERA, progress=done.append, **options)
        return np.asarray(Image.open(tmp_path / "s.png")).astype(int)

    whole = shown([one, other, one], frame=1, frames=4)
    assert done == [4, 8, 12]
    panel, gap, title = 384, 8, 20
    assert whole.shape == (panel + title, 4 * (panel + gap) - gap, 3)
    _, first, second, again = (whole[title : title + panel, k * (panel + gap) :][:, :panel] for k in range(4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    # what several frames show is what a movie of these frames gives
    write_movie(tmp_path / "part.tif", counts(6, 16, 16)[1:5], pixel_size_nm=100.0)
    image = localize(one, tmp_path / "part.tif", camera=CAMERA).image
    assert np.array_equal(first, coloured(image))
    assert shown(one).shape == (panel + title, 2 * (panel + gap) - gap, 3)
    for options, message in (
        ({"frame": 6}, "has frames 0 to 5; there is no frame 6"),
        ({"frame": 4, "frames": 3}, "has 2 frames from frame 4 on; 3 cannot be shown"),
        ({"frames": 0}, "0 cannot be shown"),
    ):
        with pytest.raises(ValueError, match=message):
            shown(one, **options)
    with pytest.raises(ValueError, match="no model to show"):
        shown([])


def test_the_show_command_takes_several_models_and_warns_once(tmp_path, capsys):
    write_movie(tmp_path / "movie.tif", counts(4, 16, 16), pixel_size_nm=160.0)
    words = ["show", "compact", tmp_path / "movie.tif", "--also", "fid_storm", "fid_storm", "--frames", 2]
    words += ["--camera.pixel-size-nm", 160, "--camera.baseline", 100, "-o", tmp_path / "s.png"]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "s.png")
    assert "s.png" in {path.name for path in tmp_path.iterdir()}
    warnings = [line for line in told.err.splitlines() if "a pixel is 160 nm" in line]
    assert len(warnings) == len(set(warnings)) == 2  # of each model once


def movies(**changes):
    settings = {"batch_size": 3, "block": 4, "before": 1, "after": 1, "size": 16, "min_photons": 0.0, "seed": 1}
    recipe = load_recipe("epfl-2d").with_(density_um2=1.0)
    output = zoo.get_spec("decode").output
    return SimulatedMovies(recipe=recipe, output=output, device=torch.device("cpu"), **{**settings, **changes})


def test_targets_belong_to_the_inner_frames_of_each_block():
    source = movies(size=24)
    frames, target = source.batch(0)
    assert frames.shape == (3, 6, 24, 24)
    assert target.count == 12
    assert target.background.shape[0] == 12
    # where the target says an emitter is, its frame is brighter than its neighbours' mean light
    inner = frames[:, 1:5].flatten(0, 1)
    bright = target.photons > 0.3
    here = inner[target.frame, target.y.long(), target.x.long()][bright]
    assert here.mean() > 1.5 * inner.mean()
    again, _ = source.batch(0)
    assert torch.equal(frames, again)
    assert not torch.equal(frames, source.batch(1)[0])


TINY = {
    "model": "decode",
    "options": {"width": 4, "dimensions": 2},
    "recipe_changes": {"density_um2": 1.0},
    "size": 16,
    "batch_size": 1,
    "block": 4,
    "steps": 3,
    "average": 0.9,
    "validation_frames": 4,
    "validate_every": 2,
    "clip": 0.03,
}


def test_trains_stops_and_goes_on(tmp_path):
    config = make_config(TINY)
    result = train(config, tmp_path / "run", progress=False)
    assert result.finished
    assert result.frames == 12
    network, card = zoo.load_model(tmp_path / "run")
    assert card["output"]["photons_scale"] == pytest.approx(12000.0)
    assert card["output"]["background_scale"] == pytest.approx(240.0)
    assert (tmp_path / "run" / "preview.png").is_file()
    longer = make_config({**TINY, "steps": 5})
    assert train(longer, tmp_path / "run", resume=True, progress=False).frames == 20
    assert isinstance(network, zoo.MapNetwork)


def test_a_diverging_training_starts_anew_and_then_says_so(tmp_path, monkeypatch):
    starts = []
    from harness.training import fit

    real = fit.create_network
    monkeypatch.setattr(fit, "create_network", lambda *a, **k: starts.append(1) or real(*a, **k))
    monkeypatch.setattr(fit, "create_loss", lambda *a, **k: lambda maps, target: (maps * float("nan")).sum())
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(make_config({**TINY, "restarts": 1}), tmp_path / "run", progress=False)
    assert len(starts) == 2


def test_localization_networks_learn_from_simulations_only(tmp_path):
    config = make_config({**TINY, "recipe": None, "movie": "a.tif", "table": "a.csv"})
    with pytest.raises(ValueError, match="learns from simulated movies"):
        open_sources(config, zoo.create_model("decode"), torch.device("cpu"))


def test_the_published_way_gives_the_same_numbers():
    torch.manual_seed(0)
    network = zoo.create_model("decode", width=8).eval()
    network.normalisation.set_statistics(100.0, 40.0)
    frames = torch.from_numpy(CAMERA.to_photons(counts(5, 16, 16)))
    published = torch.cat([maps for _, maps in published_maps(PublishedDecode(network), frames)])
    padded = torch.cat([frames[:1], frames, frames[-1:]])
    with torch.no_grad():
        torch.testing.assert_close(published, network(padded[None])[0], rtol=1e-4, atol=1e-5)
    _, target = movies(batch_size=1, block=5).batch(0)
    torch.testing.assert_close(
        published_loss(published, target),
        decode_per_frame(published, target, times_emitters=True).mean(),
        rtol=1e-4,
        atol=1e-3,
    )
    table, mask = padded_table(target)
    assert mask.sum() == len(target)
    assert table.shape == (5, 250, 4)


def test_both_timings_say_what_they_compare():
    rows = time_map_training("decode", batch=2, size=8, seconds=0.0)
    assert [len(row) for row in rows] == [7] * 4
    assert rows[0]["speed"] == "1.00x"
    rows = time_movie_to_table("decode", frames=3, size=8, rounds=1)
    assert rows[0]["speed"] == "1.00x"
    assert all(float(row["frames/s"]) > 0 for row in rows)


class EndlessMovie:
    """Frames that are made when they are read."""

    def __init__(self, frames, side):
        self.frames, self.side, self.some = frames, side, counts(8, side, side)

    def __len__(self):
        return self.frames

    def read(self, first, last):
        return self.some[np.arange(first, last) % 8]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_movie(tmp_path):
    from harness.io.tables import TableWriter
    from harness.localization import stream

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20

    model, seen = model_of("compact"), {}
    before = resident()

    def progress(done):
        seen[done] = resident()

    with TableWriter(tmp_path / "table.csv") as table:
        stream(model, EndlessMovie(3000, 256), table.write, camera=CAMERA, progress=progress)
    assert table.rows > 100_000
    early = max(value for frame, value in seen.items() if frame <= 500)
    late = max(value for frame, value in seen.items() if frame > 2500)
    assert late - before < 2048
    assert late < 1.05 * early
