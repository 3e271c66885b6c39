"""The data set that needs no download."""

from __future__ import annotations

import numpy as np

from tfprune.data.sources.base import Opened, Source

_TEST_SHARE = 0.2


class Digits(Source):
    """The digits that scikit-learn contains, with a stratified test split of 20 %.

    Example:
        ```python
        Digits("digits", Request()).open().classes  # ("0", "1", ..., "9")
        ```
    """

    meaning = "digits, which is embedded"
    order = 0

    @classmethod
    def takes(cls, name: str) -> bool:
        """Its one name."""
        return name == "digits"

    def signature(self) -> str:
        """The version of scikit-learn, of which the digits are a part."""
        import importlib.metadata

        return importlib.metadata.version("scikit-learn")

    def open(self) -> Opened:
        """1,797 images of 8x8x1, pixels of 0 to 255."""
        import sklearn
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        from tfprune.data.image_files import resize
        from tfprune.data.splits import Arrays

        digits = load_digits()
        images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
        labels = digits.target.astype(np.int64)
        parts = train_test_split(
            np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=0
        )
        classes = tuple(str(name) for name in digits.target_names)
        splits = {}
        for split, rows in zip(("train", "test"), parts, strict=True):
            chosen = rows[: self.request.wanted(split, len(classes))]
            resized = images[chosen]
            if self.request.image_size:
                resized = resize(resized, self.request.image_size).numpy()
            splits[split] = Arrays(resized, labels[chosen])
        return Opened(f"digits, embedded in scikit-learn {sklearn.__version__}", classes, splits)
