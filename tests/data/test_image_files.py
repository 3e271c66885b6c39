"""Image files of every format are decoded as Keras decodes them, or are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfprune.data.image_files import FileExamples, ImageFiles, inspect, listing

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
MODES = {"RGB": 3, "L": 1, "LA": 2, "RGBA": 4, "P": 3, "1": 1, "CMYK": 3}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "cache"))


def read(root: Path, name: str, channels: int, size: tuple[int, int] = (6, 7)) -> np.ndarray:
    found = inspect(root, listing(root, [name]))
    assert not found.problems
    column = ImageFiles.of(root, [name], found.shapes, size, channels)
    return FileExamples(column, np.zeros(1, np.int64)).sample(1).inputs[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *[("png", mode) for mode in ("RGB", "L", "LA", "RGBA", "P", "1")],
        *[("jpg", mode) for mode in ("RGB", "L", "CMYK")],
        *[("bmp", mode) for mode in ("RGB", "L", "RGBA")],
        ("gif", "P"),
    ],
)
def test_every_format_has_the_channels_that_are_asked_for(tmp_path, suffix, mode, channels):
    name = f"image.{suffix}"
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / name)
    image = read(tmp_path, name, channels)
    assert image.shape == (6, 7, channels)
    content = tf.io.read_file(str(tmp_path / name))
    own = tf.io.decode_image(content, expand_animations=False).numpy()
    if channels == 3:
        theirs = tf.io.decode_image(content, channels=3, expand_animations=False)
        np.testing.assert_array_equal(image, theirs)
    elif own.shape[-1] < 3:
        np.testing.assert_array_equal(image, own[..., :1])
    else:
        grey = own[..., :3] @ np.array([0.2989, 0.587, 0.114])
        assert np.abs(image[..., 0] - grey).max() <= 1


def test_an_image_is_resized_and_rounded(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    wanted = tf.round(tf.image.resize(PIXELS, (3, 4), antialias=True))
    np.testing.assert_array_equal(read(tmp_path, "image.png", 3, (3, 4)), wanted)


def test_only_the_first_picture_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path, "image.gif", 3, (4, 4))[..., 0].min() == 255


@pytest.mark.reliability("files that are cut, renamed or not what they say", "refused")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_is_found(tmp_path, suffix, kept):
    Image.fromarray(PIXELS).save(tmp_path / f"whole.{suffix}")
    content = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(kept * len(content))])
    names = [f"whole.{suffix}", f"cut.{suffix}", "missing.png"]
    found = inspect(tmp_path, listing(tmp_path, names))
    assert set(found.problems) == {1, 2}
    assert found.problems[2] == "No such file or directory"
    assert found.readable.tolist() == [True, False, False]
    assert found.shapes[0].tolist() == [6, 7, 3]


@pytest.mark.reliability("files that are cut, renamed or not what they say", "right")
@pytest.mark.parametrize("name", ["a b.png", "ünïcode.png", "line\nbreak.png", "\udcff.png"])
def test_a_file_may_have_any_name(tmp_path, name):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path, name, 3), PIXELS)


def test_values_of_pixels_are_found_where_they_are_looked_for(tmp_path):
    for value in (3, 250):
        Image.fromarray(np.full((2, 2), value, np.uint8)).save(tmp_path / f"{value}.png")
    files = listing(tmp_path, ["3.png", "250.png"])
    found = inspect(tmp_path, files, values=True).values
    assert np.flatnonzero(found >= 0).tolist() == [3, 250]
    assert (found[3], found[250]) == (0, 1)
    assert (inspect(tmp_path, files).values == -1).all()
