"""Records of everything that the page can show, made from a seed."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from leaderboard import Dataset, Detail, Environment, Model, Result, Runtime, Scores, Settings, Timing
from leaderboard.statistics import Blocks, intervals

MODELS = {  # name: recall, error in nm, ms, more
    "decode": (0.84, 24.0, 60.0, {"context_frames": 3, "trained_on": "epfl-2d"}),
    "fid_storm": (0.80, 27.0, 41.0, {"context_frames": 1, "trained_on": "epfl-2d", "grid_floor_nm": 5.1}),
    "dsir": (0.62, 41.0, 27.0, {"context_frames": 1, "trained_on": "epfl-2d", "grid_floor_nm": 5.1}),
    "single fit": (0.40, 35.0, 9.0, {"context_frames": 1, "baseline": True}),
}
CARD = {
    "model": "decode",
    "training": {
        "config": {"recipe": "epfl-2d", "steps": 200000, "learning_rate": 0.0008, "seed": 1},
        "minutes": 108.1,
    },
}


def one_score(name, dataset, *, seed, recall, error_nm, blocks=20, density=1.0, ms=None, noisy=False, model=None):
    """A record whose scores, intervals and blocks belong together."""
    rng = np.random.default_rng(seed)
    molecules = np.random.default_rng(7).poisson(40 * density, blocks) + 1
    tp = rng.binomial(molecules, recall)
    fp = rng.poisson(2.0 * density, blocks)
    squares = np.array([(rng.normal(0, error_nm / math.sqrt(2), (n, 2)) ** 2).sum() for n in tp])
    axial = np.array([(rng.normal(0, 2 * error_nm, n) ** 2).sum() for n in tp]) if dataset.dimensions == 3 else 0 * tp
    counts = Blocks(
        tp=tp, fp=fp, fn=molecules - tp, lateral_nm2=squares, axial_nm2=axial, dimensions=dataset.dimensions
    )
    ends = intervals(counts, rng=np.random.default_rng(0), resamples=200)
    values = counts.scores()
    place = np.linspace(0.2, 2.0, 8)
    sigma = error_nm * np.linspace(0.4, 1.8, 8)
    return Result(
        model=model or Model(name=name, parameters=393_680, macs_64=1_800_000_000, weights_sha256=f"{seed:064x}"),
        dataset=dataset,
        runtime=Runtime(name="torch", provider="CPU", threads=2),
        scores=Scores(
            tp=int(tp.sum()),
            fp=int(fp.sum()),
            fn=int((molecules - tp).sum()),
            n_truth=int(molecules.sum()),
            n_found=int((tp + fp).sum()),
            jaccard=values["jaccard"],
            precision=values["precision"] / 100,
            recall=values["recall"] / 100,
            f1=values["f1"] / 100,
            rmse_lateral_nm=values["rmse_lateral_nm"],
            rmse_axial_nm=values["rmse_axial_nm"],
            efficiency=values["efficiency"],
            efficiency_lateral=values["efficiency_lateral"],
            efficiency_axial=values["efficiency_axial"],
            efficiency_low=ends["efficiency"].low,
            efficiency_high=ends["efficiency"].high,
            jaccard_low=ends["jaccard"].low,
            jaccard_high=ends["jaccard"].high,
            rmse_lateral_low_nm=ends["rmse_lateral_nm"].low,
            rmse_lateral_high_nm=ends["rmse_lateral_nm"].high,
            bias_x_nm=0.4,
            bias_y_nm=-0.3,
        ),
        settings=Settings(tolerance_nm=250, border_nm=450, quantile=0.25, threshold=0.3, threshold_trials=20),
        timing=None if ms is None else Timing(ms_p50=ms, ms_p90=1.1 * ms, ms_p99=1.3 * ms, batch=1, noisy=noisy),
        detail=Detail(
            blocks=counts.to_dict(),
            curves={
                "density": [
                    {
                        "low": float(a),
                        "high": float(b),
                        "recall": 100 * recall - 20 * a,
                        "jaccard": 90 * recall - 20 * a,
                    }
                    for a, b in pairwise(place)
                ],
                "photons": [
                    {
                        "low": float(a),
                        "high": float(3 * a),
                        "recall": 100 * recall,
                        "rmse_lateral_nm": 9e4 / a / error_nm,
                    }
                    for a in 300.0 * 2 ** np.arange(7)
                ],
                "threshold": [
                    {
                        "threshold": t,
                        "recall": 100 * recall * (1 - t),
                        "precision": 60 + 38 * t,
                        "efficiency": 90 * recall - t,
                    }
                    for t in np.linspace(0.05, 0.9, 15).tolist()
                ],
            },
            calibration={
                axis: {
                    "z_std": 1.2,
                    "within_1": 0.6,
                    "within_2": 0.91,
                    "bins": [{"rms_sigma": float(s), "rmse": float(s * f)} for s in sigma],
                }
                for axis, f in (("x", 1.1), ("y", 1.25))
            },
            images={
                "snr_db": 3.5,
                "nmse": 0.4,
                "nmse_percent": 45.0,
                "ssim": 0.93,
                "frc_truth_nm": 41.0,
                "fwhm_nm": 20.0,
            },
            card=CARD,
            worst=[one_frame(rng, 5), one_frame(rng, 11)],
            flags="over-confident: errors in x are 2.2 times the predicted sigma" if name == "dsir" else "",
        ),
        environment=Environment(machine="lab, 2 cores", cpu="lab", python="3.11", commit="abc"),
        date="2026-01-02",
        command=f"smlm-zoo leaderboard {name.replace(' ', '_')} --dataset {dataset.name}",
    )


def one_frame(rng, frame):
    """A failure case of a 40x40 frame."""
    truth = rng.uniform(100, 3900, (24, 2)).round(1)
    kind = rng.choice([1, 1, 1, 0, -1], 24)
    near = (truth + rng.normal(0, 25, truth.shape)).round(1)[kind == 1]
    stray = rng.uniform(100, 3900, (3, 2)).round(1)
    return {
        "frame": frame,
        "tp": int((kind == 1).sum()),
        "fp": 3,
        "fn": int((kind == 0).sum()),
        "field_nm": [4000.0, 4000.0],
        "truth": [[*map(float, p), int(k)] for p, k in zip(truth, kind, strict=True)],
        "found": [[*map(float, p), 1] for p in near] + [[*map(float, p), 0] for p in stray],
    }


def everything():
    """Records in 2D and 3D, matched and over densities, three seeds of one model, noisy times, and an image."""
    results = []
    for i, (name, (recall, error, ms, more)) in enumerate(MODELS.items()):
        model = Model(name=name, parameters=393_680, macs_64=1_800_000_000, weights_sha256=f"{i:064x}", **more)
        common = {"model": model, "error_nm": error}
        for j, (dataset, density) in enumerate((("tubes-2d-ld", 0.1), ("tubes-2d-hd", 0.6), ("tubes-2d-uhd", 1.4))):
            data = Dataset(name=dataset, frames=400, height=40, width=40, seed=7, density=density)
            one = one_score(
                name, data, seed=10 * i + j, recall=recall - 0.15 * density, density=density, ms=ms * 2, **common
            )
            results.append(one)
            runtime = Runtime(name="onnxruntime", provider="CPUExecutionProvider", threads=2)
            timing = Timing(ms_p50=ms, ms_p90=1.2 * ms, ms_p99=1.4 * ms, batch=1, noisy=name == "dsir")
            results.append(replace(one, runtime=runtime, timing=timing, scores=None, detail=None))
        for density in (0.1, 0.3, 1.0, 3.0):
            data = Dataset(name="tubes-2d-hd", condition="density", value=density, density=density, frames=100)
            loss = 0.12 * math.log10(density / 0.1)
            results.append(one_score(name, data, seed=70 + i, recall=recall - loss, density=density, **common))
    for name in ("decode", "single fit"):
        recall, error, _, more = MODELS[name]
        model = Model(name=name, tag="as", weights_sha256="3d" * 8, **more)
        data = Dataset(name="tubes-as-hd", frames=400, dimensions=3, density=0.6)
        results.append(one_score(name, data, seed=3, recall=recall, error_nm=error, model=model))
    for seed, recall in ((1, 0.78), (2, 0.80), (3, 0.74)):
        model = Model(name="compact", training_seed=seed, trained_on="epfl-2d", context_frames=3)
        for dataset, density in (("tubes-2d-ld", 0.1), ("tubes-2d-hd", 0.6), ("tubes-2d-uhd", 1.4)):
            data = Dataset(name=dataset, frames=400, height=40, width=40, seed=7, density=density)
            results.append(one_score("compact", data, seed=90 + seed, recall=recall, error_nm=28, model=model))
    first = results[0]
    picture = Detail(images={"snr_db": 2.1, "nmse": 0.6, "nmse_percent": 70.0, "ssim": 0.9, "fwhm_nm": 20.0})
    image = replace(first, model=Model(name="someone's image"), scores=None, timing=None, detail=picture)
    return [*results, image]


@pytest.fixture(scope="session")
def rich_results():
    """See `everything`."""
    return everything()
