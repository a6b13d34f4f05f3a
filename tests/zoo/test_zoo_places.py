"""Weights from further folders and from the web: fetched once, checked, and found by name."""

import functools
import http.server
import json
import threading

import pytest
import torch

import zoo
from zoo._places import cache, fetch


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that a local web server shows; gives (folder, address, paths asked for)."""
    folder, asked = tmp_path / "web", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("SMLM_ZOO_CACHE", str(tmp_path / "cache"))
    yield folder, f"http://127.0.0.1:{httpd.server_port}/", asked
    httpd.shutdown()
    httpd.server_close()


def saved(folder, stem="dsir.ours", **options):
    network = zoo.create_model("dsir", **options)
    zoo.save_weights(network, folder, stem=stem)
    return network


def test_an_address_is_fetched_once_and_works_without_the_server(server):
    folder, address, asked = server
    network = saved(folder)
    loaded, card = zoo.load_model(f"{address}dsir.ours.json")
    assert card["model"] == "dsir"
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value)
    first = len(asked)
    zoo.load_model(f"{address}dsir.ours.json")
    assert len(asked) == first == 2  # the card and its file, once
    saved(folder, stem="model")
    assert zoo.load_model(address)[1]["model"] == "dsir"  # a folder with card.json


def test_weights_of_listed_places_have_names(server, tmp_path, monkeypatch):
    folder, address, _ = server
    saved(folder, stem="dsir.web")
    (folder / "index.json").write_text('{"weights": ["dsir.web"]}')
    saved(tmp_path / "own", stem="dsir.own")
    monkeypatch.setenv("SMLM_ZOO_WEIGHTS", f"{tmp_path / 'own'} {address}")
    assert {"dsir.own", "dsir.web", "dsir.epfl-2d"} <= set(zoo.list_weights())
    assert zoo.list_weights("*.web") == ["dsir.web"]
    for tag in ("own", "web"):
        assert zoo.create_model("dsir", pretrained=tag).model_name == "dsir"
    (folder / "index.json").unlink()
    with pytest.raises(ConnectionError, match="404"):
        fetch(f"{address}dsir.gone.json")
    assert "dsir.web" in zoo.list_weights()  # the index is gone; its last answer still counts
    monkeypatch.setenv("SMLM_ZOO_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="SMLM_ZOO_WEIGHTS names"):
        zoo.list_weights()


def test_files_that_are_not_those_of_the_card_are_refused(server):
    folder, address, _ = server
    saved(folder)
    file = folder / "dsir.ours.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is not the file of its card"):
        zoo.load_model(f"{address}dsir.ours.json")
    file.write_bytes(bytes(content) + b"more")
    with pytest.raises(ValueError, match="longer than"):
        zoo.load_model(f"{address}dsir.ours.json")
    assert not list(cache().rglob("*.safetensors"))
    card = json.loads((folder / "dsir.ours.json").read_text())
    card["files"][0]["name"] = "../../escape.safetensors"
    (folder / "dsir.ours.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="no safetensors file beside it"):
        zoo.load_model(f"{address}dsir.ours.json")
    (folder / "text.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="not a card of weights"):
        fetch(f"{address}text.json")


def test_only_https_from_afar(monkeypatch, tmp_path):
    monkeypatch.setenv("SMLM_ZOO_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="over https only"):
        fetch("http://example.org/decode.full.json")
    with pytest.raises(ValueError, match="is no card"):
        fetch("https://example.org/decode.zip")
