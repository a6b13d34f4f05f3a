"""DECODE's reference files: every kind is equal, and a changed number is off."""

import shutil

import numpy as np
import pytest

from harness.parity import run_parity

FILES = {
    "net_1frame_io": ("y_b", 8),
    "loss": ("grad_a", 13),
    "train_steps": ("loss", 5),
    "targets": ("tar", 3),
    "post_processing": ("nms_a_010", 50),
}


@pytest.mark.parametrize("stem", FILES)
def test_equal_and_off_when_a_number_is_changed(reference, tmp_path, stem):
    key, least = FILES[stem]
    folder = reference / "decode"
    rows = run_parity(folder / f"{stem}.npz", weights=folder, sizes=((24, 40),))
    assert len(rows) >= least
    assert {row.status for row in rows} == {"equal"}
    arrays = dict(np.load(folder / f"{stem}.npz"))
    largest = np.unravel_index(np.abs(arrays[key]).argmax(), arrays[key].shape)
    arrays[key][largest] *= 1.01
    np.savez(tmp_path / f"{stem}.npz", **arrays)
    changed = run_parity(tmp_path / f"{stem}.npz", weights=folder, sizes=())
    assert [row.item.split(" ")[0].rstrip(":") for row in changed if row.status == "off"][:1] == [key]


def test_other_widths_and_sizes_pass_too(tmp_path):
    """A small network of another width, made here, written as the original writes it."""
    import torch
    from safetensors.torch import save_file

    import zoo

    torch.manual_seed(3)
    network = zoo.create_model("decode", width=8, frames=1).eval()
    frames = torch.randn(2, 1, 16, 24)
    with torch.no_grad():
        maps = network.core(frames)[:, 0]
    names = {"frame_net.": "unet_shared.", "context_net.": "unet_union.", "heads.": "mt_heads."}
    tensors = {"sigma_eps": torch.tensor([0.001])}
    for name, value in network.core.state_dict().items():
        theirs = next(name.replace(ours, original, 1) for ours, original in names.items() if name.startswith(ours))
        if ".upsamplers." in theirs:
            theirs = ".conv.".join(theirs.rsplit(".", 1))
        tensors[theirs] = value.contiguous()
    save_file(tensors, tmp_path / "net_small.safetensors")
    np.savez(tmp_path / "net_small_io.npz", x_q=frames.numpy(), y_q=maps.numpy())
    rows = run_parity(tmp_path / "net_small_io.npz", sizes=())
    assert [row.status for row in rows] == ["equal", "equal"]


def test_weights_that_are_missing_are_said_to_be(reference, tmp_path):
    for stem in ("net_1frame_io", "train_steps"):
        shutil.copy(reference / "decode" / f"{stem}.npz", tmp_path)
        rows = run_parity(tmp_path / f"{stem}.npz", sizes=())
        assert [row.status for row in rows] == ["not covered"]
