"""A folder of JPEG photos: small cuttings of the two photos that scikit-learn contains."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

CUT = 48
"""Height and width of a cutting, in pixels."""

# Each split takes its cuttings from its own part of the photo's width.
PARTS = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0)}


def write_photos(folder: Path, count: int = 200, seed: int = 0) -> Path:
    """Writes the folder: `train/china/0.jpg` and so on.

    Args:
        folder: where the photos go; a folder that is complete stays as it is.
        count: photos of each class in the train split; a quarter of it in the others.
        seed: of where the cuttings lie.
    """
    complete = folder / "complete"
    if complete.exists():
        return folder
    rng = np.random.default_rng(seed)
    sample = load_sample_images()
    for split, (left, right) in PARTS.items():
        for name, photo in zip(sample.filenames, sample.images, strict=True):
            height, width = photo.shape[:2]
            place = folder / split / Path(name).stem
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count if split == "train" else max(2, count // 4)):
                row = rng.integers(0, height - CUT)
                column = rng.integers(int(left * width), int(right * width) - CUT)
                cut = photo[row : row + CUT, column : column + CUT]
                Image.fromarray(cut).save(place / f"{number}.jpg", quality=90)
    complete.touch()
    return folder


def photos(count: int = 200) -> Path:
    """The folder, made when it is missing.

    Args:
        count: photos of each class in the train split.

    Returns:
        A folder that is read like any other folder of images.
    """
    return write_photos(Path(tempfile.gettempdir()) / f"tfprune-photos-{count}", count)
