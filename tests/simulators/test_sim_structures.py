"""Where molecules are: rings, grids, clusters, masks, points and wide tubes."""

import re

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist

from simulators import draw_frames, load_recipe, parse_recipe, simulate
from simulators.particles import ClustersStructure, GridsStructure, MaskStructure, PointsStructure, RingsStructure
from simulators.structures import ReticulumStructure, Space

SPACE = Space(width_nm=6400, height_nm=4000, margin_nm=1000, z_low_nm=-200, z_high_nm=200)


def built(structure, seed=1, space=SPACE):
    return structure.build(space, np.random.default_rng(seed))


def placed(geometry, count=20_000, seed=2):
    return np.column_stack(geometry.place(count, np.random.default_rng(seed)))


EVERY = [
    ReticulumStructure(),
    RingsStructure(),
    GridsStructure(),
    ClustersStructure(),
    PointsStructure(values=[[100, 100], [-500, 20], [3000, 2000], [6300, 3900]]),
]


@pytest.mark.parametrize("structure", EVERY, ids=lambda s: s.kind)
def test_the_share_inside_is_that_of_its_molecules(structure):
    for seed in range(3):
        geometry = built(structure, seed)
        point = placed(geometry, 40_000)
        assert SPACE.inside(point[:, 0], point[:, 1]).mean() == pytest.approx(geometry.share_inside, abs=0.012)
        assert geometry.share_inside > 0.2
        assert np.abs(point[:, 2]).max() <= 211  # the range and a linker of 2 nm


def test_nuclear_pores_have_eight_corners_two_rings_and_the_asked_labelling():
    full = built(RingsStructure(per_um2=2, labelling_efficiency=1, linker_nm=0))
    sites = full.sites
    assert len(sites) % 32 == 0
    pores = len(sites) / 32
    assert pores == pytest.approx(2 * 8.4 * 6, rel=0.3)  # Poisson, a little short of it for want of room
    one = sites.reshape(int(pores), 32, 3)
    centre = one.mean(1)
    assert np.hypot(*(one - centre[:, None])[..., :2].transpose(2, 0, 1)) == pytest.approx(53.5)
    assert np.ptp(one[..., 2], axis=1) == pytest.approx(50)
    assert pdist(centre[:, :2]).min() >= 150
    turn = np.angle((one - centre[:, None])[..., 0] + 1j * (one - centre[:, None])[..., 1])
    eightfold = np.abs(np.exp(8j * turn).mean(1))
    half = np.arcsin(6 / 53.5)
    assert eightfold == pytest.approx(abs(np.cos(8 * half)))  # two sites 12 nm apart at each corner
    assert np.ptp(turn[:, 0]) > 4  # turned at random
    part = built(RingsStructure(per_um2=4, labelling_efficiency=0.6, linker_nm=0))
    near = KDTree(part.sites).query_ball_point(part.sites, 130)
    per_pore = np.array([len(set(found)) for found in near])
    assert per_pore.mean() == pytest.approx(32 * 0.6 + 0.4, rel=0.06)


def test_grids_are_flat_rectangles():
    geometry = built(GridsStructure(rows=3, columns=4, spacing_nm=20, labelling_efficiency=1, linker_nm=0))
    one = geometry.sites.reshape(-1, 12, 3)
    assert np.ptp(one[..., 2], axis=1) == pytest.approx(0)
    lengths = np.sort(pdist(one[3]))
    assert lengths[:17] == pytest.approx(20)  # 3 x 3 along, 2 x 4 across
    assert lengths[-1] == pytest.approx(20 * 13**0.5)
    spread = placed(built(GridsStructure(per_um2=0.01, labelling_efficiency=1, rows=1, columns=1, linker_nm=5)))
    spread = spread[np.abs(spread[:, 0] - np.median(spread[:, 0])) < 100]
    assert spread.std(0) == pytest.approx(5, rel=0.05)


def test_a_field_never_lacks_labels():
    small = Space(width_nm=400, height_nm=400, margin_nm=1000, z_low_nm=0, z_high_nm=0)
    for seed in range(40):
        assert built(GridsStructure(per_um2=0.01, labelling_efficiency=0.05), seed, small).share_inside > 0


def test_clusters_are_round_and_hold_their_share():
    geometry = built(ClustersStructure(per_um2=0.5, sigma_nm=40, clustered=0.7, size_spread=0))
    point = placed(geometry, 60_000)
    away, which = KDTree(geometry.centres[:, :2]).query(point[:, :2])
    lone = (away > 400).mean() / 0.3
    near = away < 130
    assert near.mean() > 0.65
    assert lone > 0.5
    centre = np.argmax(np.bincount(which[near]))
    apart = KDTree(geometry.centres[:, :2]).query(geometry.centres[centre, :2], k=2)[0][1]
    if apart > 300:
        own = point[(which == centre) & near][:, :2] - geometry.centres[centre, :2]
        assert own.std(0) == pytest.approx(40, rel=0.1)


def test_molecules_fill_a_mask_and_nothing_else(tmp_path):
    mask = np.zeros((20, 32), np.uint8)
    mask[5:10, 4:20] = 255
    mask[15, 30] = 40  # less than half of the brightest
    np.save(tmp_path / "m.npy", mask)
    from skimage.io import imsave

    imsave(tmp_path / "m.png", mask, check_contrast=False)
    imsave(tmp_path / "m.tif", mask, check_contrast=False)
    for name in ("m.npy", "m.png", "m.tif"):
        geometry = built(MaskStructure(path=str(tmp_path / name)))
        assert geometry.share_inside == 1
        x, y, z = placed(geometry).T
        assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((800, 4000, 1000, 2000), abs=2)
        assert z.std() == pytest.approx(400 / 12**0.5, rel=0.02)
    fine = built(MaskStructure(path=str(tmp_path / "m.npy"), pixel_nm=400))
    x, y, _ = placed(fine).T
    assert x.min() == pytest.approx(-1200, abs=3)  # the pixels from -1600 on lie beyond the margin
    assert SPACE.inside(x, y).mean() == pytest.approx(fine.share_inside, abs=0.01)


def test_points_are_where_they_were_given(tmp_path):
    (tmp_path / "p.csv").write_text("y_nm,x_nm,z_nm\n100,200,-50\n300,400,50\n")
    point = placed(built(PointsStructure(path=str(tmp_path / "p.csv"))))
    assert sorted(set(map(tuple, point))) == [(200, 100, -50), (400, 300, 50)]
    moved = placed(built(PointsStructure(values=[[0, 0], [100, 200]], centred=True)))
    assert sorted(set(map(tuple, moved))) == [(3150, 1900, 0), (3250, 2100, 0)]


def test_the_walls_of_the_reticulum_are_thin_and_wide():
    space = Space(width_nm=6400, height_nm=6400, margin_nm=1000, z_low_nm=-400, z_high_nm=400)
    geometry = built(ReticulumStructure(count=1), space=space)
    point = placed(geometry, 400)
    apart = point[:, None] - geometry.start[None]
    length = np.linalg.norm(geometry.step, axis=1)
    along = geometry.step / length[:, None]
    part = np.clip((apart * along).sum(-1), 0, length)
    near = np.linalg.norm(apart - part[..., None] * along, axis=-1).min(1)
    assert np.quantile(near, [0.1, 0.9]) == pytest.approx([147, 147], abs=4)
    assert np.abs(point[:, 2]).max() <= 400


@pytest.mark.parametrize("structure", [*EVERY, None], ids=lambda s: s.kind if s else "mask")
def test_movies_and_batches_of_every_structure_have_the_density(structure, tmp_path):
    if structure is None:
        np.save(tmp_path / "m.npy", np.eye(9))
        structure = MaskStructure(path=str(tmp_path / "m.npy"))
    recipe = load_recipe("tubes-2d-hd").with_(structure=structure.model_dump(), frames=100, size=(40, 64))
    e = simulate(recipe, np.random.default_rng(1)).emitters
    assert len(e) / 100 / recipe.area_um2 == pytest.approx(0.5, rel=0.05)
    batch = draw_frames(recipe, 120, np.random.default_rng(1), size=32)
    inside = recipe.with_(size=32).space.inside(batch.x_nm.numpy(), batch.y_nm.numpy())
    assert inside.sum() / 120 / 3.2**2 == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "rings", "radius": 5},
            r"structure: unknown key 'radius' in RingsStructure. Did you mean 'radius_nm'",
        ),
        ({"kind": "rings", "labelling_efficiency": 1.2}, r"structure.labelling_efficiency: .*less than or equal to 1"),
        ({"kind": "points"}, "either path or values"),
        ({"kind": "points", "values": [[1, 2], [1, 2, 3]]}, "all of one length"),
        ({"kind": "mask"}, "structure.path: is missing"),
        ({"kind": "pores"}, "structure: .*'rings'"),
    ],
)
def test_bad_structures_are_refused_by_name(changes, message):
    values = load_recipe("epfl-2d").model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        parse_recipe({**values, "structure": changes}, source="mine")


def test_files_are_found_beside_the_recipe_and_count_by_their_content(tmp_path):
    (tmp_path / "p.csv").write_text("x_nm,y_nm\n1000,2000\n")
    recipe = load_recipe("tubes-2d-ld").with_(frames=5, structure={"kind": "points", "values": [[0, 0]]})
    text = recipe.to_yaml().replace("path: null", "path: p.csv")
    (tmp_path / "r.yaml").write_text(re.sub(r"  values:\n.*?  centred", "  centred", text, flags=re.S))
    found = load_recipe(tmp_path / "r.yaml")
    assert set(simulate(found, found.rng()).emitters.x_nm) == {1000}
    (tmp_path / "q.csv").write_bytes((tmp_path / "p.csv").read_bytes())
    other = found.with_(structure={"kind": "points", "path": str(tmp_path / "q.csv")})
    assert other.hash == found.hash
    (tmp_path / "q.csv").write_text("x_nm,y_nm\n1000,2001\n")
    assert other.hash != found.hash


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        built(MaskStructure(path=str(tmp_path / "none.png")))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    np.save(tmp_path / "dark.npy", np.zeros((3, 3)))
    for name in ("bad.png", "dark.npy"):
        with pytest.raises(ValueError, match="as a mask"):
            built(MaskStructure(path=str(tmp_path / name)))
    (tmp_path / "p.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="columns x_nm and y_nm are needed"):
        built(PointsStructure(path=str(tmp_path / "p.csv")))
    recipe = load_recipe("epfl-2d").with_(structure={"kind": "points", "values": [[-9e9, 0]]})
    with pytest.raises(ValueError, match="no part in the field"):
        simulate(recipe, np.random.default_rng(1))
