import pickle

import numpy as np
import pytest
import tifffile

from harness.io import MovieError
from harness.pairs import ImageDataset, PairError


@pytest.fixture
def folders(tmp_path):
    inputs, targets = tmp_path / "inputs", tmp_path / "targets"
    inputs.mkdir()
    targets.mkdir()
    for number in range(12):
        tifffile.imwrite(inputs / f"img{number}.tif", np.full((4, 6), number, np.uint16))
        tifffile.imwrite(targets / f"img{number}.tiff", np.full((12, 18), 10.0 * number, np.float32))
    return inputs, targets


def test_pairs_belong_together_in_natural_order(folders):
    dataset = ImageDataset(*folders)
    assert len(dataset) == 12
    assert (dataset.upsampling, dataset.input_shape, dataset.target_shape) == (3, (4, 6), (12, 18))
    for number in range(12):
        frame, target = dataset[number]
        assert (tuple(frame.shape), tuple(target.shape)) == ((1, 4, 6), (1, 12, 18))
        assert str(frame.dtype) == str(target.dtype) == "torch.float32"
        assert (frame[0, 0, 0].item(), target[0, 0, 0].item()) == (number, 10 * number)
    assert dataset[-1][0][0, 0, 0] == 11
    with pytest.raises(IndexError, match="pair 12"):
        dataset[12]


def test_it_feeds_a_data_loader_and_other_processes(folders):
    from torch.utils.data import DataLoader

    dataset = pickle.loads(pickle.dumps(ImageDataset(*folders)))
    frames, targets = next(iter(DataLoader(dataset, batch_size=5)))
    assert tuple(frames.shape) == (5, 1, 4, 6)
    assert targets[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


def test_stacks_are_paired_frame_by_frame(tmp_path):
    frames = np.arange(5 * 4 * 6, dtype=np.uint16).reshape(5, 4, 6)
    targets = np.random.default_rng(0).random((5, 8, 12)).astype(np.float32)
    for name, stack in (("inputs", frames), ("targets", targets)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", stack[:2], photometric="minisblack")
        tifffile.imwrite(tmp_path / name / "b.tif", stack[2:], photometric="minisblack")
    dataset = ImageDataset(tmp_path / "inputs", tmp_path / "targets")
    assert len(dataset) == 5
    for index in range(5):
        np.testing.assert_array_equal(dataset[index][0][0], frames[index])
        np.testing.assert_array_equal(dataset[index][1][0], targets[index])


def test_a_camera_turns_inputs_into_photons(folders):
    class Half:
        def to_photons(self, counts):
            return counts / 2

    dataset = ImageDataset(*folders, camera=Half())
    assert dataset[3][0][0, 0, 0] == 1.5
    assert dataset[3][1][0, 0, 0] == 30


def test_files_without_a_partner_are_listed(folders):
    inputs, targets = folders
    (inputs / "img3.tif").unlink()
    (targets / "img7.tiff").unlink()
    with pytest.raises(PairError, match=r"inputs: img7\.tif; .*targets: img3\.tiff") as caught:
        ImageDataset(inputs, targets)
    assert "img4" not in str(caught.value)


@pytest.mark.parametrize("shape", [(12, 17), (13, 18), (2, 3), (12, 24), (8, 12)])
def test_sizes_that_do_not_fit(shape, folders):
    tifffile.imwrite(folders[1] / "img5.tiff", np.zeros(shape, np.float32))
    with pytest.raises(PairError, match=r"img5\.tif"):
        ImageDataset(*folders)


def test_stacks_of_different_length(folders):
    tifffile.imwrite(folders[1] / "img5.tiff", np.zeros((2, 12, 18), np.float32), photometric="minisblack")
    with pytest.raises(PairError, match=r"holds 1 frames but .* holds 2"):
        ImageDataset(*folders)


def test_empty_missing_or_ambiguous_folders(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageDataset(folders[0], tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PairError, match=r"holds no \.tif"):
        ImageDataset(folders[0], tmp_path / "empty")
    tifffile.imwrite(folders[0] / "img3.tiff", np.zeros((4, 6), np.uint16))
    with pytest.raises(PairError, match="holds both"):
        ImageDataset(*folders)


def test_damaged_files_are_named(folders):
    (folders[0] / "img5.tif").write_bytes(b"nothing")
    with pytest.raises(MovieError, match=r"img5\.tif"):
        ImageDataset(*folders)
