"""Structures made of sites: rings (nuclear pores), grids (origami), clusters, masks and lists of points."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, model_validator
from scipy.spatial import KDTree
from scipy.special import ndtr

from ._model import NotNegative, Positive, RecipeFile
from .structures import AnyStructure, Floats, Geometry, Space, UniformStructure

_TRIES = 30  # darts for each particle before the field counts as full


class _Sites:
    """Molecules at sites, each off by a linker of random direction."""

    def __init__(self, sites: Floats, *, linker_nm: float, space: Space) -> None:
        self.sites, self.linker = sites, linker_nm
        self.share_inside = float(space.inside(sites[:, 0], sites[:, 1]).mean()) if len(sites) else 0.0

    def place(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        found = self.sites[rng.integers(len(self.sites), size=count)]
        if self.linker:
            found = found + self.linker * rng.standard_normal((count, 3))
        return found[:, 0].copy(), found[:, 1].copy(), found[:, 2].copy()


class _ParticlesStructure(AnyStructure):
    """Copies of one particle, turned about the axis at random, not closer than `apart_nm`.

    Args:
        per_um2: particles per square micrometre; fewer where that many find no room.
        apart_nm: least distance of two centres.
        labelling_efficiency: chance that a site carries a label.
        linker_nm: standard deviation, along each axis, of the label about its site.
    """

    per_um2: Positive = 2.0
    apart_nm: NotNegative = 150.0
    labelling_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.7
    linker_nm: NotNegative = 2.0

    def _particle(self) -> Floats:
        """Sites of one particle about its centre, (n, 3), nm."""
        raise NotImplementedError

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        template = self._particle()
        centres = _apart(space, self.per_um2, self.apart_nm, rng)
        tall = float(np.abs(template[:, 2]).max())
        middle = (space.z_low_nm + space.z_high_nm) / 2
        room = max((space.z_high_nm - space.z_low_nm) / 2 - tall, 0.0)
        height = middle + room * rng.uniform(-1, 1, len(centres))
        turn = rng.uniform(0, 2 * np.pi, len(centres))
        cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
        x = centres[:, :1] + cos * template[:, 0] - sin * template[:, 1]
        y = centres[:, 1:] + sin * template[:, 0] + cos * template[:, 1]
        z = height[:, None] + template[:, 2]
        labelled = rng.random(x.shape) < self.labelling_efficiency
        inside = space.inside(x, y)
        if not (labelled & inside).any():
            # A field without a label shows nothing: the site nearest to the middle carries one.
            away = np.hypot(x - space.width_nm / 2, y - space.height_nm / 2)
            labelled[np.unravel_index(np.argmin(away), away.shape)] = True
        sites = np.column_stack([x[labelled], y[labelled], z[labelled]])
        return _Sites(sites, linker_nm=self.linker_nm, space=space)


def _apart(space: Space, per_um2: float, apart_nm: float, rng: np.random.Generator) -> Floats:
    """Centres in the field and its margin, the first in the field, none closer than `apart_nm`."""
    wide, tall = space.width_nm + 2 * space.margin_nm, space.height_nm + 2 * space.margin_nm
    wanted = max(int(rng.poisson(per_um2 * wide * tall * 1e-6)), 1)
    first = rng.uniform(0.3, 0.7, 2) * (space.width_nm, space.height_nm)
    darts = -space.margin_nm + rng.random((wanted * _TRIES, 2)) * (wide, tall)
    darts = np.concatenate([first[None], darts])
    if not apart_nm:
        return darts[:wanted]
    near = KDTree(darts).query_ball_point(darts, apart_nm)
    kept: list[int] = []
    free = np.ones(len(darts), bool)
    for number, others in enumerate(near):
        if free[number]:
            kept.append(number)
            free[others] = False
            if len(kept) == wanted:
                break
    return darts[kept]


class RingsStructure(_ParticlesStructure):
    """Nuclear pores: two rings of corners, one above the other, two sites at each corner.

    The defaults are those of Nup96: 107 nm across, 8 corners, 50 nm between the rings, 12 nm within a pair.

    Args:
        radius_nm: radius of the rings.
        corners: corners of each ring.
        rings_apart_nm: height between the rings; 0 for one ring.
        pair_nm: distance of the two sites of a corner along the ring; 0 for one site.

    Source: Thevathasan et al. 2019, Nuclear pores as versatile reference standards, doi:10.1038/s41592-019-0574-9.
    """

    kind: Literal["rings"] = "rings"
    radius_nm: Positive = 53.5
    corners: Annotated[int, Field(ge=1, le=1000)] = 8
    rings_apart_nm: NotNegative = 50.0
    pair_nm: NotNegative = 12.0

    def _particle(self) -> Floats:
        angle = np.arange(self.corners) * 2 * np.pi / self.corners
        if self.pair_nm:
            half = np.arcsin(min(self.pair_nm / (2 * self.radius_nm), 1.0))
            angle = np.concatenate([angle - half, angle + half])
        ring = np.column_stack([self.radius_nm * np.cos(angle), self.radius_nm * np.sin(angle)])
        levels = (-self.rings_apart_nm / 2, self.rings_apart_nm / 2) if self.rings_apart_nm else (0.0,)
        return np.concatenate([np.column_stack([ring, np.full(len(ring), level)]) for level in levels])


class GridsStructure(_ParticlesStructure):
    """DNA origami: flat rectangles of docking sites.

    Args:
        rows, columns: sites along either side.
        spacing_nm: between neighbours.
    """

    kind: Literal["grids"] = "grids"
    per_um2: Positive = 1.0
    rows: Annotated[int, Field(ge=1, le=1000)] = 3
    columns: Annotated[int, Field(ge=1, le=1000)] = 4
    spacing_nm: Positive = 20.0

    def _particle(self) -> Floats:
        y, x = np.mgrid[: self.rows, : self.columns].reshape(2, -1) * self.spacing_nm
        return np.column_stack([x - x.mean(), y - y.mean(), np.zeros(len(x))])


class ClustersStructure(AnyStructure):
    """Round clusters of molecules, and lone molecules between them.

    Args:
        per_um2: clusters per square micrometre.
        sigma_nm: standard deviation of a cluster along x and y; along z too, within the range of heights.
        clustered: share of the molecules that belong to clusters.
        size_spread: relative spread of the clusters' sizes (standard deviation of a log-normal).
    """

    kind: Literal["clusters"] = "clusters"
    per_um2: Positive = 1.0
    sigma_nm: Positive = 50.0
    clustered: Annotated[float, Field(gt=0, le=1)] = 0.8
    size_spread: NotNegative = 0.5

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        return _Clusters(self, space, rng)


class _Clusters:
    def __init__(self, what: ClustersStructure, space: Space, rng: np.random.Generator) -> None:
        self.what, self.space = what, space
        self.lone = UniformStructure().build(space, rng)
        centres = _apart(space, what.per_um2, 0.0, rng)
        heights = rng.uniform(space.z_low_nm, space.z_high_nm, len(centres))
        self.centres = np.column_stack([centres, heights])
        size = np.exp(what.size_spread * rng.standard_normal(len(centres)))
        self.edges = np.cumsum(size) / size.sum()
        inside = np.ones(len(centres))
        for axis, far in ((0, space.width_nm), (1, space.height_nm)):
            inside *= ndtr((far - centres[:, axis]) / what.sigma_nm) - ndtr(-centres[:, axis] / what.sigma_nm)
        here = float((inside * size).sum() / size.sum())
        self.share_inside = what.clustered * here + (1 - what.clustered) * self.lone.share_inside

    def place(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        x, y, z = self.lone.place(count, rng)
        member = np.flatnonzero(rng.random(count) < self.what.clustered)
        which = np.minimum(np.searchsorted(self.edges, rng.random(len(member))), len(self.edges) - 1)
        spot = self.centres[which] + self.what.sigma_nm * rng.standard_normal((len(member), 3))
        x[member], y[member] = spot[:, 0], spot[:, 1]
        z[member] = np.clip(spot[:, 2], self.space.z_low_nm, self.space.z_high_nm)
        return x, y, z


class MaskStructure(AnyStructure):
    """Molecules anywhere in the bright pixels of an image, at any height of the range.

    Bright is more than half of the largest value. The image's middle comes to the field's middle.

    Args:
        path: .png, .tif or .npy; colours are averaged. In a recipe file relative to that file's folder.
        pixel_nm: size of the image's pixels; left out, the image is stretched over the field.
    """

    fixed: ClassVar[bool] = True
    kind: Literal["mask"] = "mask"
    path: RecipeFile
    pixel_nm: Positive | None = None

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        path = _file(self.path, "mask")
        mask = _read_mask(path, path.stat().st_mtime_ns)
        return _Mask(mask, self.pixel_nm, space)


class _Mask:
    def __init__(self, mask: npt.NDArray[np.bool_], pixel_nm: float | None, space: Space) -> None:
        self.space = space
        height, width = mask.shape
        self.pixel = (pixel_nm,) * 2 if pixel_nm else (space.width_nm / width, space.height_nm / height)
        row, column = np.nonzero(mask)
        self.x = (space.width_nm - width * self.pixel[0]) / 2 + column * self.pixel[0]
        self.y = (space.height_nm - height * self.pixel[1]) / 2 + row * self.pixel[1]
        near = (self.x > -space.margin_nm - self.pixel[0]) & (self.x < space.width_nm + space.margin_nm)
        near &= (self.y > -space.margin_nm - self.pixel[1]) & (self.y < space.height_nm + space.margin_nm)
        self.x, self.y = self.x[near], self.y[near]
        inside = np.ones(len(self.x))
        for low, size, far in ((self.x, self.pixel[0], space.width_nm), (self.y, self.pixel[1], space.height_nm)):
            inside *= np.clip((np.minimum(low + size, far) - np.maximum(low, 0)) / size, 0, 1)
        self.share_inside = float(inside.mean()) if len(inside) else 0.0

    def place(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        which = rng.integers(len(self.x), size=count)
        x = self.x[which] + self.pixel[0] * rng.random(count)
        y = self.y[which] + self.pixel[1] * rng.random(count)
        return x, y, rng.uniform(self.space.z_low_nm, self.space.z_high_nm, count)


def _as_points(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return tuple(tuple(point) if isinstance(point, list) else point for point in values)
    return values


class PointsStructure(AnyStructure):
    """Molecules at given positions.

    Give either `path` or `values`.

    Args:
        path: .csv with columns x_nm, y_nm and, if wanted, z_nm. In a recipe file relative to that file's folder.
        values: the positions themselves, [x, y] or [x, y, z] each, nm.
        centred: move the middle of the points (between their extremes) to the field's middle.
        linker_nm: standard deviation, along each axis, of a molecule about its point.
    """

    fixed: ClassVar[bool] = True
    kind: Literal["points"] = "points"
    path: RecipeFile | None = None
    values: Annotated[tuple[tuple[float, ...], ...] | None, BeforeValidator(_as_points)] = None
    centred: bool = False
    linker_nm: NotNegative = 0.0

    @model_validator(mode="after")
    def _one_source(self) -> PointsStructure:
        if (self.path is None) == (self.values is None):
            raise ValueError("points need either path or values, one of the two")
        lengths = {len(point) for point in self.values or ()}
        if self.values is not None and lengths not in ({2}, {3}):
            raise ValueError("values of points are [x, y] or [x, y, z], nm, all of one length, one or more")
        return self

    def build(self, space: Space, rng: np.random.Generator) -> Geometry:
        if self.path is None:
            points = np.array(self.values, np.float64)
        else:
            path = _file(self.path, "points")
            points = _read_points(path, path.stat().st_mtime_ns).copy()
        if points.shape[1] == 2:
            points = np.column_stack([points, np.full(len(points), (space.z_low_nm + space.z_high_nm) / 2)])
        if self.centred:
            middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
            points[:, :2] += np.array([space.width_nm, space.height_nm]) / 2 - middle
        near = (points[:, :2] >= -space.margin_nm).all(1)
        near &= (points[:, 0] < space.width_nm + space.margin_nm) & (points[:, 1] < space.height_nm + space.margin_nm)
        return _Sites(points[near], linker_nm=self.linker_nm, space=space)


def _file(name: str, what: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path} with {what}; in a recipe file, paths start at that file's folder"
        )
    return path


@lru_cache(maxsize=4)
def _read_mask(path: Path, changed: int) -> npt.NDArray[np.bool_]:
    from skimage.io import imread

    try:
        image = np.load(path, allow_pickle=False) if path.suffix == ".npy" else imread(path)
        image = np.asarray(image, np.float64)
    except Exception as error:  # readers of damaged images raise what they like
        raise ValueError(f"{path} as a mask: {error}") from None
    if image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[..., :3].mean(2)
    if image.ndim != 2 or not image.size or not np.isfinite(image).all() or image.max() <= 0:
        raise ValueError(f"{path} as a mask: expected one image with bright pixels, got shape {image.shape}")
    return image > image.max() / 2


@lru_cache(maxsize=4)
def _read_points(path: Path, changed: int) -> Floats:
    import pandas as pd

    try:
        table = pd.read_csv(path)
        columns = [name for name in ("x_nm", "y_nm", "z_nm") if name in table.columns]
        if columns[:2] != ["x_nm", "y_nm"]:
            raise ValueError(f"columns x_nm and y_nm are needed; found {', '.join(map(str, table.columns))}")
        points = table[columns].to_numpy(np.float64)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} as points: {error}") from None
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{path} as points: expected one row or more, all numbers finite")
    return points
