"""Movies that were not simulated here, described by a small YAML file each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.io.movies import open_movie
from harness.io.tables import as_emitters, read_table
from simulators import Camera, Emitters, Movie, load_recipe


class UserMovie(BaseModel):
    """A movie of another simulator, with its truth, or a real one, without.

    Args:
        name: in tables and plots.
        movie: TIFF file or folder. truth: table of any readable format; left out for real data. Both relative to the
            YAML file.
        camera: name of a recipe whose camera it is, or the camera's constants (see `simulators.Camera`).
        frames: the first so many are taken.
        dimensions: 3 where the height of the truth counts too.

    Example:
        name: nairr-ld
        movie: validate_frames.tif
        truth: validate_gt.csv
        camera: {pixel_size_nm: 100, baseline: 500, read_noise_e: 17.3}
        frames: 100
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    movie: Path
    truth: Path | None = None
    camera: str | dict[str, Any]
    frames: int = Field(default=200, ge=1)
    dimensions: Literal[2, 3] = 2

    @property
    def condition(self) -> str:
        """ "foreign" with a truth, "real" without."""
        return "foreign" if self.truth is not None else "real"

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the description and the content of its files."""
        digest = hashlib.sha256(self.model_dump_json(exclude={"movie", "truth"}).encode())
        for place in (self.movie, self.truth):
            files = sorted(place.iterdir()) if place is not None and place.is_dir() else [place]
            for file in files:
                if file is not None and file.is_file():
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:16]

    def load(self) -> Movie:
        """The frames, the truth in them (none for real data), and the camera.

        Raises:
            ValueError: the camera is not understood, or movie and truth cannot be read.
        """
        if isinstance(self.camera, str):
            camera = load_recipe(self.camera).camera
        else:
            try:
                camera = Camera.model_validate(self.camera)
            except ValidationError as error:
                raise ValueError(f"the camera of {self.name!r} is not understood: {error}") from None
        with open_movie(self.movie) as reader:
            frames = np.asarray(reader.read(0, min(self.frames, len(reader))))
        truth = Emitters.empty()
        if self.truth is not None:
            whole = as_emitters(read_table(self.truth, pixel_size_nm=camera.pixel_size_nm))
            truth = whole.pick(whole.frame < len(frames))
        return Movie(frames=frames, emitters=truth, background=np.zeros(len(frames)), camera=camera)


def read_user_movie(path: Path) -> UserMovie:
    """The description in a YAML file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no YAML, a key that is missing, unknown or of the wrong kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give a YAML file with name, movie, truth and camera of a movie")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        one = UserMovie.model_validate(values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    except ValidationError as error:
        lines = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise ValueError(
            f"{path} does not describe a movie:\n{lines}\nKeys: {', '.join(UserMovie.model_fields)}"
        ) from None
    places: dict[str, Any] = {"movie": path.parent / one.movie}
    if one.truth is not None:
        places["truth"] = path.parent / one.truth
    for place in places.values():
        if not place.exists():
            raise FileNotFoundError(f"{path} names {place}, which is not there")
    return one.model_copy(update=places)
