"""What any model is to be compared with, run through the same harness as the models.

- `blank`: nothing found, a black image.
- `mean_frame`: no localizations; the mean of the frames, its median taken off, enlarged by cubic splines. It has image
  scores only.
- `random`: points anywhere in the field, per frame a Poisson number at a density that is given; `rows` gives that of
  the movie's truth. What chance scores at the true density.
- `perfect_target`: the image that shipped image networks learn to give, free of error, and its peaks. What is
  missing to 100 there is lost by the grid and by spots that overlap on it, whatever the network; on movies in three
  dimensions it is left out.
- `fit`: maximum-likelihood fit of single emitters (`simulators.fitting`) with the PSF of the domain that models were
  trained for, its width in the middle of the range, and the movie's camera; its threshold is found like the models'.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import leaderboard
from harness.localization import localize
from harness.ready import FRAMES_AT_ONCE, UPSAMPLING, Part, Read, ReadyModel, drawn, prefetched
from harness.recording import (
    dataset_record,
    detail_record,
    field_nm,
    model_record,
    protocol_for,
    result_record,
    runtime_record,
    score_movie,
    scored_dimensions,
    scores_record,
    settings_record,
)
from harness.runtimes import RuntimeInfo
from harness.scoring.image_quality import baseline_images, score_image
from harness.thresholding import RECIPE, ThresholdChoice, frozen_threshold
from leaderboard import Detail, Result, Scores
from losses.image import blur, gaussian_kernel
from simulators import PSF, AstigmaticPSF, Camera, Emitters, GaussianPSF, Localizations, Movie, Recipe, load_recipe
from simulators.fitting import localize_frames
from zoo import SRImage

BASELINES = ("blank", "mean_frame", "random", "fit", "perfect_target")
TARGET = SRImage(upsampling=UPSAMPLING, target_scale=1.0, kind="heatmap", heatmap_sigma=2.0)
"""What the shipped image networks learn to give, up to its scale (training recipes, `contract`)."""
TARGET_MIN_PHOTONS = 100.0
"""Dimmer emitters are not asked for in training (`TrainConfig.min_photons`)."""
FIT_RANGE = (2.0, 20.0)
"""Thresholds of the fit that are tried: standard deviations above the background."""


@dataclass(frozen=True, kw_only=True)
class Baseline(ReadyModel):
    """Something that localizes frame by frame without weights.

    Attributes:
        searched: whether it has a threshold, to be found on validation movies.
        shows_only: whether it gives an image and no localizations.
    """

    card: dict[str, Any] = field(default_factory=dict)
    searched: ClassVar[bool] = False
    shows_only: ClassVar[bool] = False

    @property
    def gives_height(self) -> bool:
        """Whether it stands beside models that say at which height a molecule is."""
        return True

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(name="numpy", provider="CPU", precision="float64", threads=1)

    @property
    def threshold(self) -> float:
        return super().threshold if self.searched else 0.0

    @property
    def upsampling(self) -> int:
        return UPSAMPLING

    @abstractmethod
    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        """Localizations in frames, (N, H, W) photons."""

    def raw(self, read: Read, total: int, count: int) -> Tensor:
        return read(0, count)

    def parts(self, read: Read, total: int, *, threshold: float, pixel_size_nm: tuple[float, float]) -> Iterator[Part]:
        blocks = [(first, min(first + FRAMES_AT_ONCE, total)) for first in range(0, total, FRAMES_AT_ONCE)]
        for (first, last), frames in prefetched(blocks, lambda block: read(*block)):
            found = self.decode(frames, threshold=threshold, pixel_size_nm=pixel_size_nm, first_frame=first)
            height, width = frames.shape[1:]
            image = drawn(found, height=height, width=width, pixel_size_nm=pixel_size_nm)
            yield Part(first=first, last=last, localizations=found, image=image)

    def repeatable(self, frames: Tensor) -> tuple[Callable[[], Any], int]:
        return partial(self.decode, frames, threshold=self.threshold, pixel_size_nm=(100.0, 100.0)), len(frames)

    def picture(self, read: Read, total: int, frame: int, *, pixel_size_nm: tuple[float, float]) -> Tensor:
        part = next(
            self.parts(
                lambda a, b: read(frame + a, frame + b), 1, threshold=self.threshold, pixel_size_nm=pixel_size_nm
            )
        )
        return part.image


@dataclass(frozen=True, kw_only=True)
class Blank(Baseline):
    """Finds nothing."""

    name: str = "blank"

    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        return Localizations.empty()


@dataclass(frozen=True, kw_only=True)
class MeanFrame(Blank):
    """The enlarged mean of the frames, its median taken off, negative values as 0; localizes nothing."""

    name: str = "mean_frame"
    shows_only: ClassVar[bool] = True

    def parts(self, read: Read, total: int, *, threshold: float, pixel_size_nm: tuple[float, float]) -> Iterator[Part]:
        blocks = [(first, min(first + FRAMES_AT_ONCE, total)) for first in range(0, total, FRAMES_AT_ONCE)]
        mean = sum(frames.double().sum(0) for _, frames in prefetched(blocks, lambda block: read(*block))) / total
        assert isinstance(mean, Tensor)
        height, width = mean.shape
        fine = (float(width * UPSAMPLING), float(height * UPSAMPLING))
        image = baseline_images((mean - mean.median()).numpy(), field_nm=fine, pixel_nm=1.0)["mean frame"]
        yield Part(first=0, last=total, localizations=Localizations.empty(), image=torch.from_numpy(image).float())


@dataclass(frozen=True, kw_only=True)
class RandomPoints(Baseline):
    """Points that are even over the field: chance.

    Args:
        density_um2: mean number per frame and square micrometre; the number in a frame is a Poisson draw.
        z_range_nm: heights are even in between.
        seed: each frame draws from a stream of its own, so that blocks of any length give the same points.
    """

    name: str = "random"
    density_um2: float
    z_range_nm: tuple[float, float] = (0.0, 0.0)
    seed: int = 0

    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        height, width = raw.shape[1] * pixel_size_nm[1], raw.shape[2] * pixel_size_nm[0]
        tables = []
        for frame in range(first_frame, first_frame + len(raw)):
            rng = np.random.default_rng((self.seed, frame))
            count = rng.poisson(self.density_um2 * width * height * 1e-6)
            x, y, z = rng.random((3, count))
            low, high = self.z_range_nm
            tables.append(
                Localizations(frame=np.full(count, frame), x_nm=width * x, y_nm=height * y, z_nm=low + (high - low) * z)
            )
        return Localizations.concatenate(tables)


@dataclass(frozen=True, kw_only=True)
class SingleFit(Baseline):
    """Single-emitter maximum-likelihood fit of every local maximum that stands out.

    Args:
        psf: what a spot is taken to look like.
        camera: of the movie.
    """

    name: str = "fit"
    psf: PSF
    camera: Camera
    searched: ClassVar[bool] = True
    threshold_range: ClassVar[tuple[float, float]] = FIT_RANGE

    @property
    def gives_height(self) -> bool:
        return not isinstance(self.psf, GaussianPSF)

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo(name="torch", provider="CPU", precision="float64", threads=torch.get_num_threads())

    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        if pixel_size_nm != self.camera.pixel_size_nm:
            raise ValueError(f"pixels of {pixel_size_nm} nm, but the camera has {self.camera.pixel_size_nm}")
        return localize_frames(raw, psf=self.psf, camera=self.camera, threshold=threshold, first_frame=first_frame)


@dataclass(frozen=True, kw_only=True)
class PerfectTarget(Baseline):
    """The training target of the shipped image networks: a network without an error on its grid.

    Args:
        emitters: the truth.
    """

    name: str = "perfect_target"
    emitters: Emitters

    @property
    def gives_height(self) -> bool:
        return False

    def decode(
        self, raw: Tensor, *, threshold: float, pixel_size_nm: tuple[float, float], first_frame: int = 0
    ) -> Localizations:
        count, height, width = raw.shape
        spikes = TARGET.encode(
            self.emitters.pick(self.emitters.photons >= TARGET_MIN_PHOTONS),
            count=count,
            height=height,
            width=width,
            pixel_size_nm=pixel_size_nm,
            first_frame=first_frame,
        )
        kernel = gaussian_kernel(13, TARGET.heatmap_sigma)  # as in the recipes
        return TARGET.decode(blur(spikes, kernel), threshold=0.5, pixel_size_nm=pixel_size_nm, first_frame=first_frame)


def fitted_psf(domain: Recipe) -> PSF:
    """The PSF of a domain, its width in the middle of the range; a round Gaussian keeps that width at all heights."""
    psf = domain.psf
    if not isinstance(psf, GaussianPSF | AstigmaticPSF):
        return psf
    width = psf.sigma_nm
    middle = float(width) if isinstance(width, int | float) else (width.low + width.high) / 2
    return GaussianPSF(sigma_nm=middle) if isinstance(psf, GaussianPSF) else psf.model_copy(update={"sigma_nm": middle})


def true_density_um2(movie: Movie) -> float:
    """Emitters per frame and square micrometre in the truth of a movie."""
    width, height = field_nm(movie)
    return len(movie.emitters) / (len(movie) * width * height * 1e-6)


def open_baseline(name: str, movie: Movie, *, domain: Recipe, threshold: float | None = None) -> Baseline:
    """A baseline, ready for one movie.

    Args:
        name: one of `BASELINES`.
        movie: its camera is known to all of them, the density of its truth to `random`, its truth to `perfect_target`.
        domain: what models were trained for; `random` takes its heights, `fit` its PSF.
        threshold: of `fit`; the others have none.

    Raises:
        ValueError: an unknown name.
    """
    if name == "blank":
        return Blank()
    if name == "mean_frame":
        return MeanFrame()
    if name == "random":
        return RandomPoints(density_um2=true_density_um2(movie), z_range_nm=domain.z_range_nm)
    if name == "perfect_target":
        return PerfectTarget(emitters=movie.emitters)
    if name == "fit":
        card = {} if threshold is None else {"threshold": threshold}
        return SingleFit(psf=fitted_psf(domain), camera=movie.camera, card=card)
    raise ValueError(f"no baseline named {name!r}; there are {', '.join(BASELINES)}")


def rows(
    movies: Mapping[str, tuple[Recipe, Movie]],
    *,
    validation: Sequence[tuple[Recipe, Movie]],
    folder: Path,
    command: Callable[[Recipe], str],
    known: Iterable[Result] = (),
    names: Iterable[str] = BASELINES,
    domain: str = RECIPE,
    say: Callable[[str], None] | None = None,
) -> list[Result]:
    """Records of the baselines on test movies; each is written as soon as it is known.

    Args:
        movies: name -> recipe and movie.
        validation: movies that the threshold of `fit` is found on, those of the models; without any it is left out.
        folder: of the leaderboard: records/ and thresholds/ are written in it.
        command: what repeats the record of a movie, by its recipe.
        known: records of before: what is among them is not measured again.
        names: which of `BASELINES`.
        domain: recipe that models were trained for.
        say: told what is being done.
    """
    before = {(r.model.name, r.dataset.recipe_hash): r for r in known if r.model.baseline}
    trained = load_recipe(domain)
    result = []
    for name in names:
        choice = None
        if name == "fit":
            if not validation:
                continue
            if say is not None and any((name, recipe.hash) not in before for recipe, _ in movies.values()):
                say(f"baseline {name}: threshold")
            choice = found_threshold(name, validation, domain=trained, folder=folder / "thresholds")
        for recipe, movie in movies.values():
            if name == "perfect_target" and scored_dimensions(recipe, True) == 3:
                continue  # images say nothing of heights
            one = before.get((name, recipe.hash))
            if one is None or (choice is not None and one.settings.threshold != choice.threshold):
                if say is not None:
                    say(f"baseline {name} on {recipe.name}")
                model = open_baseline(name, movie, domain=trained, threshold=choice.threshold if choice else None)
                one = _measured(model, recipe, movie, choice, command(recipe))
                leaderboard.write_result(one, folder / "records")
            result.append(one)
    return result


def found_threshold(
    name: str, validation: Sequence[tuple[Recipe, Movie]], *, domain: Recipe, folder: Path
) -> ThresholdChoice:
    """The threshold of a baseline that has one, found on the models' validation movies and kept in a file."""
    model = open_baseline(name, validation[0][1], domain=domain)
    return frozen_threshold(model, folder / f"baseline-{name}.json", validation)


def _measured(model: Baseline, recipe: Recipe, movie: Movie, choice: ThresholdChoice | None, command: str) -> Result:
    there = localize(model, movie.frames, camera=movie.camera)
    dimensions = scored_dimensions(recipe, model.gives_height)
    scores: Scores | None = None
    if model.shows_only:
        images = score_image(there.image, truth=movie.emitters, field_nm=field_nm(movie))
        detail = Detail(images=images)
    else:
        figures = score_movie(movie, there.localizations, recipe=recipe, protocol=protocol_for(dimensions))
        scores, detail = scores_record(figures), detail_record(figures)
    return result_record(
        model=model_record(model, baseline=True),
        dataset=dataset_record(recipe, dimensions=dimensions),
        runtime=runtime_record(model.info),
        scores=scores,
        detail=detail,
        settings=settings_record(protocol_for(dimensions), precision=model.info.precision, choice=choice),
        command=command,
    )
