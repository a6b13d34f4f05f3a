"""Weights that do not come with the package: folders and web addresses, fetched once into a cache.

`SMLM_ZOO_WEIGHTS` lists further places, separated by blanks: folders that hold `NAME.TAG.json` cards with their files,
and web addresses of such folders, which also hold `index.json`, the cards' names: `{"weights": ["decode.full"]}`.
`SMLM_ZOO_CACHE` is where downloads are kept, by default `smlm-zoo` in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import urlopen

MAX_CARD_BYTES = 5_000_000
TIMEOUT_S = 30.0
_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def is_address(source: object) -> bool:
    """Whether a weights source is a web address."""
    return str(source).startswith(("https://", "http://"))


def listed() -> dict[str, Path | str]:
    """Weights of the places in `SMLM_ZOO_WEIGHTS`: "NAME.TAG" -> folder, or address of the card; earlier places win.

    Raises:
        FileNotFoundError: a folder listed there does not exist.
        ConnectionError, ValueError: an index cannot be read, and no earlier copy is in the cache.
    """
    found: dict[str, Path | str] = {}
    for place in os.environ.get("SMLM_ZOO_WEIGHTS", "").split():
        if is_address(place):
            base = place.rstrip("/") + "/"
            for stem in _index(base):
                found.setdefault(stem, urljoin(base, f"{stem}.json"))
            continue
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"SMLM_ZOO_WEIGHTS names {folder}, which is no folder; correct the variable")
        for card in sorted(folder.glob("*.*.json")):
            found.setdefault(card.name[: -len(".json")], folder)
    return found


def fetch(address: str) -> Path:
    """A card and the files it names, in the cache; downloaded only if they are not there.

    Args:
        address: of the card (`.../NAME.TAG.json`), or of a folder with `card.json` (ending in "/").

    Returns:
        Path of the card in the cache.

    Raises:
        ConnectionError: the server cannot be reached, or breaks off.
        ValueError: no https address, an answer that is no card, or a file that is not what its card says.
    """
    address = urljoin(address, "card.json") if address.endswith("/") else address
    name = urlsplit(address).path.rsplit("/", 1)[-1]
    if not name.endswith(".json") or not _STEM.fullmatch(name):
        raise ValueError(f"{address} is no card; give the address of a NAME.TAG.json, or of a folder, ending in '/'")
    folder = cache() / hashlib.sha256(address.encode()).hexdigest()[:16]
    card = folder / name
    if card.is_file():
        return card  # written last, so its files are there
    content = _download(address, MAX_CARD_BYTES)
    try:
        records = json.loads(content)["files"]
        files = [(str(one["name"]), str(one["sha256"]), int(one["bytes"])) for one in records]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{address} is not a card of weights: {error!r}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for file, digest, size in files:
        if not _STEM.fullmatch(file) or not file.endswith(".safetensors"):
            raise ValueError(f"{address}: the card names {file!r}, which is no safetensors file beside it")
        part = _download(urljoin(address, file), size, title=file)
        if hashlib.sha256(part).hexdigest() != digest:
            raise ValueError(
                f"{urljoin(address, file)} is not the file of its card: sha256 "
                f"{hashlib.sha256(part).hexdigest()[:16]}..., the card says {digest[:16]}...; nothing was kept"
            )
        _write(folder / file, part)
    _write(card, content)
    return card


def cache() -> Path:
    """Folder of downloads; need not exist yet."""
    if own := os.environ.get("SMLM_ZOO_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smlm-zoo"


def _index(base: str) -> list[str]:
    """Names at an address; the last answer when the server is out of reach."""
    kept = cache() / f"index-{hashlib.sha256(base.encode()).hexdigest()[:16]}.json"
    try:
        content = _download(urljoin(base, "index.json"), MAX_CARD_BYTES)
    except ConnectionError:
        if not kept.is_file():
            raise
        content = kept.read_bytes()
    try:
        names: Any = json.loads(content)["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{urljoin(base, 'index.json')} is no index of weights: {error!r}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) and _STEM.fullmatch(name) for name in names):
        raise ValueError(f"{urljoin(base, 'index.json')} is no index: 'weights' must list names such as decode.full")
    kept.parent.mkdir(parents=True, exist_ok=True)
    _write(kept, content)
    return names


def _download(address: str, most: int, *, title: str | None = None) -> bytes:
    """The answer of a server, at most `most` bytes, with a bar if it has a title."""
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"{address} is not fetched: weights come over https only")
    try:
        with urlopen(address, timeout=TIMEOUT_S) as answer:
            final = urlsplit(answer.geturl())
            if final.scheme != parts.scheme:
                raise ValueError(f"{address} leads to {answer.geturl()}, another scheme; not followed")
            with _shown(answer, most, title) as stream:
                content: bytes = stream.read(most + 1)
    except (URLError, HTTPException, OSError) as error:
        raise ConnectionError(f"{address} cannot be fetched: {error}") from None
    if len(content) > most:
        raise ValueError(f"{address} is longer than the {most} bytes expected; not kept")
    return content


@contextmanager
def _shown(answer: IO[bytes], size: int, title: str | None) -> Iterator[IO[bytes]]:
    if title is None:
        yield answer
        return
    from rich.console import Console
    from rich.progress import wrap_file

    with wrap_file(answer, size, description=title, console=Console(stderr=True)) as stream:  # type: ignore[arg-type]
        yield stream


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
