import json
import os
import pickle
import struct
import threading

import numpy as np
import pytest
import tifffile

from harness.io import MovieError, MovieWriter, OutputError, atomic_path, open_movie, write_movie
from harness.io.movies import natural_key

N, H, W = 7, 12, 17


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 60_000, (N, H, W), dtype=np.uint16)


def check(path, frames, **options):
    with open_movie(path, **options) as movie:
        assert movie.shape == frames.shape
        assert movie.dtype == frames.dtype.newbyteorder("=")
        whole = movie.read(0, len(movie))
        assert whole.dtype.isnative
        np.testing.assert_array_equal(whole, frames)
        middle = len(movie) // 2
        np.testing.assert_array_equal(movie.read(middle, middle + 1), frames[middle : middle + 1])
        np.testing.assert_array_equal(np.concatenate(list(movie.blocks(3))), frames)
        assert movie.read(1, 1).shape == (0, *frames.shape[1:])
        return movie


VARIANTS = {
    "classic": {},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "big-endian-bigtiff": {"byteorder": ">", "bigtiff": True},
    "deflate": {"compression": "zlib"},
    "deflate-predictor": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "imagej-time": {"imagej": True, "metadata": {"axes": "TYX"}},
    "ome": {"ome": True, "metadata": {"axes": "TYX"}},
    "ome-z": {"ome": True, "metadata": {"axes": "ZYX"}},
    "strips": {"rowsperstrip": 5},
    "strips-deflate": {"rowsperstrip": 5, "compression": "zlib"},
    "tiles": {"tile": (16, 16)},
    "one-directory": {"metadata": {"truncate": True}},
    "no-description": {"metadata": None},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_tiff_reads_the_same(variant, frames, tmp_path):
    options = dict(VARIANTS[variant])
    if options.get("compression") == "lzw" or options.get("predictor"):
        pytest.importorskip("imagecodecs")
    metadata = options.get("metadata")
    if metadata and metadata.pop("truncate", False):
        options = {"metadata": None, "description": json.dumps({"shape": frames.shape, "truncated": True})}
        whole = tmp_path / "whole.tif"
        tifffile.imwrite(whole, frames.reshape(1, -1, W), **options)
        check_one_directory(whole, frames)
        return
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", **options)
    movie = check(path, frames)
    assert (
        movie.metadata["byteorder"] == ("big" if options.get("byteorder") == ">" else "little") or "imagej" in variant
    )
    assert movie.metadata["compressed"] == ("compression" in options or "tile" in options)


def check_one_directory(path, frames):
    """tifffile's truncated stacks: the one directory is of the first frame, the others follow its data."""
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = {name: tags[name].valueoffset for name in ("ImageLength", "RowsPerStrip", "StripByteCounts")}
    data = bytearray(path.read_bytes())
    values = {"ImageLength": H, "RowsPerStrip": H, "StripByteCounts": H * W * 2}
    for name, at in places.items():
        struct.pack_into("<I", data, at, values[name])
    path.write_bytes(data)
    check(path, frames)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int32", "float32", "float64", "float16"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pixel_types_are_kept(dtype, byteorder, tmp_path):
    frames = (np.random.default_rng(1).normal(0, 50, (3, 5, 8))).astype(dtype)
    tifffile.imwrite(tmp_path / "movie.tif", frames, byteorder=byteorder, photometric="minisblack")
    check(tmp_path / "movie.tif", frames)


def imagej_header(path, frames, declared=None, slices=None):
    """A stack as ImageJ writes it above 4 GB: one directory, then every frame."""
    images = declared or len(frames)
    text = f"ImageJ=1.53t\nimages={images}\nslices={slices or images}\n".encode() + b"\0"
    entries = [
        (256, 4, 1, frames.shape[2]),
        (257, 4, 1, frames.shape[1]),
        (258, 3, 1, 16),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (270, 2, len(text), 200),
        (273, 4, 1, 400),
        (277, 3, 1, 1),
        (278, 4, 1, frames.shape[1]),
        (279, 4, 1, frames[0].nbytes),
    ]
    head = struct.pack(">2sHI", b"MM", 42, 8) + struct.pack(">H", len(entries))
    for tag, kind, count, value in entries:
        head += struct.pack(">HHI", tag, kind, count)
        head += struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
    head += struct.pack(">I", 0)
    head = head.ljust(200, b"\0") + text
    with open(path, "wb") as file:
        file.write(head.ljust(400, b"\0"))
        file.write(frames.astype(">u2").tobytes())


def test_imagej_with_one_directory_for_all_frames(frames, tmp_path):
    imagej_header(tmp_path / "movie.tif", frames)
    assert check(tmp_path / "movie.tif", frames).metadata["kind"] == "ImageJ"


def test_imagej_beyond_4_gb(tmp_path):
    """A sparse file of 4.5 GB; frames beyond 4 GB are at their places."""
    path = tmp_path / "movie.tif"
    shape = (1100, 1024, 2048)
    imagej_header(path, np.zeros((1, *shape[1:]), np.uint16), declared=shape[0])
    last = np.arange(1024 * 2048, dtype=np.uint32).astype(">u2").tobytes()
    try:
        with open(path, "r+b") as file:
            file.seek(400 + (shape[0] - 1) * len(last))
            file.write(last)
    except OSError as error:
        pytest.skip(f"no sparse file of 4.5 GB here: {error}")
    with open_movie(path) as movie:
        assert movie.shape == shape
        assert not movie.read(1098, 1099).any()
        np.testing.assert_array_equal(movie.read(1099, 1100)[0].ravel()[[0, 1, 70_000]], [0, 1, 70_000 - 65_536])


def test_imagej_with_one_directory_cut_off(frames, tmp_path):
    path = tmp_path / "movie.tif"
    imagej_header(path, frames)
    with open(path, "r+b") as file:
        file.truncate(400 + 3 * frames[0].nbytes + 5)
    with pytest.raises(MovieError, match=r"truncated.*first unreadable frame is 3; 3 frames \(0 to 2\) are readable"):
        open_movie(path)
    check(path, frames[:3], allow_truncated=True)


def test_folder_in_natural_order(tmp_path):
    frames = np.arange(12 * 4 * 5, dtype=np.uint16).reshape(12, 4, 5)
    for number, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / f"img{number}.tif", frame)
    check(tmp_path, frames)
    assert natural_key("img2.tif") < natural_key("img10.tif")


def micro_manager(folder, frames, stem="cells_MMStack_Pos0", ends=(3, 5)):
    pieces = np.split(frames, ends)
    for number, piece in enumerate(pieces):
        name = f"{stem}.ome.tif" if number == 0 else f"{stem}_{number}.ome.tif"
        with tifffile.TiffWriter(folder / name, ome=False) as file:
            for frame in piece:
                tag = json.dumps({"PixelSizeUm": 0.108, "Camera": "X"})
                file.write(
                    frame,
                    contiguous=False,
                    metadata=None,
                    extratags=[(51123, 2, 0, tag, True)],
                    photometric="minisblack",
                )
    return folder / f"{stem}.ome.tif"


def test_micro_manager_series(frames, tmp_path):
    first = micro_manager(tmp_path, frames)
    movie = check(first, frames)
    assert movie.pixel_size_nm == (108, 108)
    assert movie.metadata["kind"] == "Micro-Manager"
    assert len(movie.metadata["files"]) == 3
    check(tmp_path, frames)


def test_micro_manager_series_with_a_renamed_stem(frames, tmp_path):
    check(micro_manager(tmp_path, frames, stem="renamed"), frames)


def test_micro_manager_series_with_a_gap(frames, tmp_path):
    first = micro_manager(tmp_path, frames)
    (tmp_path / "cells_MMStack_Pos0_1.ome.tif").unlink()
    with pytest.raises(MovieError, match=r"lacks cells_MMStack_Pos0_1\.ome\.tif"):
        open_movie(first)


def test_numbered_files_of_others_are_no_series(frames, tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", frames)
    tifffile.imwrite(tmp_path / "movie_1.tif", frames + 1)
    check(tmp_path / "movie.tif", frames)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
def test_truncated_files(compression, keep, tmp_path):
    frames = np.random.default_rng(0).integers(0, 60_000, (20, 32, 32), dtype=np.uint16)
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as file:
        for frame in frames:
            file.write(frame, contiguous=False, metadata=None, compression=compression, photometric="minisblack")
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(int(size * keep))
    with pytest.raises(MovieError, match="truncated") as caught:
        open_movie(path)
    if keep == 0.05:
        return
    with open_movie(path, allow_truncated=True) as movie:
        readable = len(movie)
        assert 20 * keep - 2 < readable <= 20 * keep
        np.testing.assert_array_equal(movie.read(0, readable), frames[:readable])
        assert movie.metadata["problem"]
    assert f"first unreadable frame is {readable}; {readable} frames (0 to {readable - 1})" in str(caught.value)


def test_truncated_stack_of_one_run(frames, tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, frames, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[0]
    with open(path, "r+b") as file:
        file.truncate(start + 4 * frames[0].nbytes + 10)
    with pytest.raises(MovieError, match=r"first unreadable frame is 4"):
        open_movie(path)
    check(path, frames[:4], allow_truncated=True)


def test_truncation_in_the_second_file_of_a_series(frames, tmp_path):
    first = micro_manager(tmp_path, frames)
    second = tmp_path / "cells_MMStack_Pos0_1.ome.tif"
    with open(second, "r+b") as file:
        file.truncate(second.stat().st_size - 400)
    with pytest.raises(MovieError, match=r"Pos0_1.*first unreadable frame is 4"):
        open_movie(first)


@pytest.mark.parametrize("content", [b"", b"II", b"x,y\n1,2\n" * 10, b"\x89PNG\r\n\x1a\n" + b"0" * 50])
def test_what_is_no_tiff(content, tmp_path):
    path = tmp_path / "movie.tif"
    path.write_bytes(content)
    with pytest.raises(MovieError, match="is not a TIFF file"):
        open_movie(path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no movie at"):
        open_movie(tmp_path / "movie.tif")
    with pytest.raises(MovieError, match=r"holds no \.tif"):
        open_movie(tmp_path)


def test_a_loop_of_directories(tmp_path):
    path = tmp_path / "movie.tif"
    imagej_header(path, np.zeros((1, 4, 4), np.uint16))
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 8 + 2 + 10 * 12, 8)
    path.write_bytes(data)
    with pytest.raises(MovieError, match="loop"):
        open_movie(path)


@pytest.mark.parametrize(
    ("tag", "value", "message"), [(256, 0, "size zero"), (257, 0, "size zero"), (256, 2**31, "GiB")]
)
def test_impossible_frame_sizes(tag, value, message, tmp_path):
    path = tmp_path / "movie.tif"
    imagej_header(path, np.zeros((1, 40, 40), np.uint16))
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, 10 + 12 * (tag - 256) + 8, value)
    path.write_bytes(data)
    with pytest.raises(MovieError, match=message):
        open_movie(path)


def test_imagej_stacks_whose_only_axis_is_called_channels(frames, tmp_path):
    many = np.concatenate([frames, frames])
    tifffile.imwrite(tmp_path / "movie.tif", many, imagej=True, metadata={"axes": "CYX"})
    check(tmp_path / "movie.tif", many)
    tifffile.imwrite(tmp_path / "movie.tif", many[:3], imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(MovieError, match="3 channels"):
        open_movie(tmp_path / "movie.tif")


def test_ome_images_of_one_frame_each_are_frames(frames, tmp_path):
    path = tmp_path / "movie.ome.tif"
    with tifffile.TiffWriter(path) as file:
        for frame in frames:
            file.write(frame, photometric="minisblack")
    check(path, frames)
    with tifffile.TiffWriter(path) as file:
        for position in (frames, frames):
            file.write(position, photometric="minisblack", metadata={"axes": "TYX"})
    with pytest.raises(MovieError, match="2 OME images"):
        open_movie(path)


def test_memory_limit_is_an_argument(frames, tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", frames)
    with pytest.raises(MovieError, match="limit"):
        open_movie(tmp_path / "movie.tif", max_frame_bytes=H * W * 2 - 1)


def test_frames_of_differing_shape_or_type(tmp_path):
    for name, other in (("shape", np.zeros((4, 6), np.uint16)), ("type", np.zeros((4, 5), np.float32))):
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as file:
            for frame in (np.zeros((4, 5), np.uint16), np.zeros((4, 5), np.uint16), other):
                file.write(frame, contiguous=False, metadata=None)
        with pytest.raises(MovieError, match=r"frame 2 of .* all frames of a movie must be alike"):
            open_movie(path)


def test_colour_and_channels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(MovieError, match="colour"):
        open_movie(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "ome.tif", np.zeros((4, 2, 8, 9), np.uint16), ome=True, metadata={"axes": "TCYX"})
    with pytest.raises(MovieError, match="2 channels"):
        open_movie(tmp_path / "ome.tif")
    tifffile.imwrite(tmp_path / "ij.tif", np.zeros((4, 2, 8, 9), np.uint16), imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(MovieError, match="2 channels"):
        open_movie(tmp_path / "ij.tif")
    tifffile.imwrite(tmp_path / "tz.tif", np.zeros((4, 2, 8, 9), np.uint16), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(MovieError, match="4 time points of 2 slices"):
        open_movie(tmp_path / "tz.tif")
    tifffile.imwrite(tmp_path / "4d.tif", np.zeros((4, 2, 8, 9), np.uint16), photometric="minisblack")
    with pytest.raises(MovieError, match="which axis is time"):
        open_movie(tmp_path / "4d.tif")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_pixels_name_the_frame(bad, tmp_path):
    frames = np.zeros((6, 4, 5), np.float32)
    frames[4, 1, 2] = bad
    tifffile.imwrite(tmp_path / "movie.tif", frames, photometric="minisblack")
    with open_movie(tmp_path / "movie.tif") as movie:
        movie.read(0, 4)
        with pytest.raises(MovieError, match=r"frame 4 of .* 1 pixels"):
            movie.read(3, 6)


def test_ranges_outside_the_movie(frames, tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", frames)
    with open_movie(tmp_path / "movie.tif") as movie:
        for start, stop in ((-1, 2), (0, N + 1), (3, 2)):
            with pytest.raises(IndexError, match="asked for"):
                movie.read(start, stop)
        with pytest.raises(ValueError, match="frames_per_block"):
            next(movie.blocks(0))


def test_damaged_data_name_the_frame(tmp_path):
    path = tmp_path / "movie.tif"
    write_movie(path, np.random.default_rng(0).integers(0, 9999, (5, 30, 30)).astype(np.uint16))
    with tifffile.TiffFile(path) as file:
        at, length = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[at : at + length] = b"\x55" * length
    path.write_bytes(data)
    with open_movie(path) as movie:
        movie.read(0, 3)
        with pytest.raises(MovieError, match=r"frame 3 of .* cannot be decoded"):
            movie.read(0, 5)


def test_reader_goes_to_other_processes_and_threads(frames, tmp_path):
    write_movie(tmp_path / "movie.tif", frames)
    movie = open_movie(tmp_path / "movie.tif")
    movie.read(0, 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(movie)).read(0, N), frames)
    wrong = []

    def work(offset):
        for step in range(40):
            at = (offset + step) % N
            if not np.array_equal(movie.read(at, at + 1)[0], frames[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_the_frames_asked_for_are_loaded(tmp_path):
    import tracemalloc

    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, np.zeros((200, 128, 128), np.uint16), photometric="minisblack")
    tracemalloc.start()
    with open_movie(path) as movie:
        movie.read(50, 52)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 128 * 128 * 2 / 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "resolution": (10.0, 8.0), "metadata": {"unit": "um", "axes": "TYX"}}, (100, 125)),
        ({"imagej": True, "metadata": {"axes": "TYX"}}, None),
        ({"ome": True, "metadata": {"axes": "TYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.11}}, (100, 110)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
)
def test_pixel_size(options, expected, frames, tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", frames, photometric="minisblack", **options)
    size = open_movie(tmp_path / "movie.tif").pixel_size_nm
    assert size == (None if expected is None else pytest.approx(expected))


# --- writing


def test_written_movies_come_back(frames, tmp_path):
    path = tmp_path / "movie.tif"
    with MovieWriter(path, pixel_size_nm=(100, 110.5)) as movie:
        movie.write(frames[:3])
        movie.write(frames[3])
        movie.write(frames[4:])
    reader = check(path, frames)
    assert reader.pixel_size_nm == pytest.approx((100, 110.5))
    assert reader.field_nm == pytest.approx((1700, 1326))
    np.testing.assert_array_equal(tifffile.imread(path), frames)
    write_movie(path, iter([frames[:2].astype(np.float32)]))
    check(path, frames[:2].astype(np.float32))
    assert os.listdir(tmp_path) == ["movie.tif"]


def test_a_movie_that_outgrows_the_limit_becomes_big(tmp_path):
    frames = np.random.default_rng(0).integers(0, 65_535, (40, 30, 31), dtype=np.uint16)
    path = tmp_path / "movie.tif"
    with MovieWriter(path, classic_limit=30_000) as movie:
        movie.write(frames)
    assert path.read_bytes()[2] == 43
    check(path, frames)
    assert os.listdir(tmp_path) == ["movie.tif"]
    with MovieWriter(path) as movie:
        movie.write(frames)
    assert path.read_bytes()[2] == 42


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_a_write_that_fails(failure, frames, tmp_path):
    path = tmp_path / "movie.tif"
    write_movie(path, frames)

    def blocks():
        yield frames[:2] + 1
        assert len(os.listdir(tmp_path)) == 2
        raise failure

    with pytest.raises(failure):
        write_movie(path, blocks())
    assert os.listdir(tmp_path) == ["movie.tif"]
    check(path, frames)
    with pytest.raises(failure):
        write_movie(tmp_path / "new.tif", blocks())
    assert os.listdir(tmp_path) == ["movie.tif"]


def test_what_cannot_be_written(frames, tmp_path):
    (tmp_path / "file").write_text("")
    for place, message in (
        (tmp_path / "no" / "movie.tif", "there is no folder"),
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "movie.tif", "there is no folder"),
    ):
        with pytest.raises(OutputError, match=message):
            write_movie(place, frames)
    with pytest.raises(OutputError, match="no frame was written"):
        write_movie(tmp_path / "movie.tif", [])
    with pytest.raises(ValueError, match="those before"):
        write_movie(tmp_path / "movie.tif", [frames, frames[:, 1:]])
    with pytest.raises(ValueError, match="not empty"):
        write_movie(tmp_path / "movie.tif", frames[:, :0])
    with pytest.raises(ValueError, match="of type bool"):
        write_movie(tmp_path / "movie.tif", frames > 3)
    assert os.listdir(tmp_path) == ["file"]


def test_atomic_path_keeps_the_suffix_and_the_usual_rights(tmp_path):
    target = tmp_path / "result.csv"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".csv"
        assert temporary.parent == tmp_path
        temporary.write_text("x")
        assert not target.exists()
    (tmp_path / "usual").write_text("")
    assert target.stat().st_mode == (tmp_path / "usual").stat().st_mode

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("y")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert target.read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["result.csv", "usual"]


# --- real stacks


def test_real_stacks_open(data):
    stacks = sorted(data.glob("*/*.tif"))
    assert len(stacks) > 10
    for path in stacks:
        with open_movie(path) as movie, tifffile.TiffFile(path) as file:
            assert len(movie) == len(file.pages)
            last = movie.read(len(movie) - 1, len(movie))[0]
            np.testing.assert_array_equal(last, file.pages[-1].asarray())


def test_random_damage_is_reported_and_nothing_else_happens(frames, tmp_path):
    """Bytes changed at random: the movie opens, or a MovieError says why not."""
    rng = np.random.default_rng(0)
    path = tmp_path / "movie.tif"
    refused = 0
    for options in (
        {"metadata": None},
        {"compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "TYX"}},
    ):
        tifffile.imwrite(path, frames, photometric="minisblack", **options)
        whole = path.read_bytes()
        for _ in range(120):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 500), 3):
                data[at] = rng.integers(0, 256)
            path.write_bytes(data)
            try:
                with open_movie(path) as movie:
                    movie.read(0, len(movie))
            except MovieError:
                refused += 1
    assert refused > 50
