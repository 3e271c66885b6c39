"""The data sets of tensorflow_datasets."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.data.sources.base import Opened, Source
from tfprune.errors import OpenSizeError, TfpruneError, UsageError, did_you_mean
from tfprune.files import document_hash

if TYPE_CHECKING:
    import tensorflow as tf

    from tfprune.data.splits import Split

_LONGEST_NAME = 128
_LONGEST_SHOWN = 60
_LONGEST_ERROR = 200
_READ_BATCH = 1024
_MIB = 2**20
_EMBEDDED = ("digits",)


def data_root(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where tensorflow-datasets keeps its data: here, in `TFDS_DATA_DIR`, or in its default."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


class TensorflowDatasets(Source):
    """A data set of tensorflow_datasets, downloaded and prepared if it is missing.

    Example:
        ```python
        source = TensorflowDatasets("cifar10", Request(data_dir="/data/tfds"))
        source.open().classes[0]  # "airplane"
        ```

    The examples are the pairs of the data set's supervised keys, or of the features that the
    options `inputs` and `targets` name. A data set that is larger than `cache_mib` is streamed: the
    files are read again in each epoch.
    """

    meaning = "a data set of tensorflow-datasets, such as cifar10"
    order = 100

    @classmethod
    def takes(cls, name: str) -> bool:
        """Any name that no other kind takes: `check` knows whether there is one."""
        return True

    def check(self) -> None:
        """Checks that the data set is one of tensorflow_datasets, or lies in its directory.

        Raises:
            UsageError: it is neither; the message names the nearest.
        """
        name, base = self.name, self._base
        # What is prepared in the directory needs no code in tensorflow_datasets; what has a
        # namespace is a community's, whose names only the network knows.
        if ":" in name and not name.partition(":")[2][:1].isdigit():
            return
        plain = base.isidentifier() and len(base) < _LONGEST_NAME
        if plain and (self._root / base).is_dir():
            return
        import tensorflow_datasets

        known = tensorflow_datasets.list_builders(with_community_datasets=False)
        if base not in known:
            raise UsageError(self._unknown(known))

    @property
    def _base(self) -> str:
        """The name without its config and version."""
        return self.name.partition(":")[0].partition("/")[0]

    @property
    def _root(self) -> Path:
        return data_root(self.request.data_dir)

    def _unknown(self, known: list[str]) -> str:
        from tfprune.data.sources import meanings

        shown = self.name
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[: _LONGEST_SHOWN - 3]}..."
        hint = did_you_mean(
            self._base[:_LONGEST_NAME].lower(),
            [*known, *_EMBEDDED],
            "see tensorflow_datasets' catalog for names",
        )
        return (
            f"unknown data set {shown!r}: {hint}; there is no folder or file of this name either "
            f"(data can be {'; '.join(meanings())})"
        )

    def signature(self) -> str | None:
        """The sizes and times of its files; None where they are not where they can be seen."""
        files = sorted(path for path in (self._root / self._base).rglob("*") if path.is_file())
        if not files:
            return None
        stats = [(path, path.stat()) for path in files]
        return document_hash(
            [
                [path.relative_to(self._root).as_posix(), stat.st_size, stat.st_mtime_ns]
                for path, stat in stats
            ]
        )

    def open(self) -> Opened:
        """Its train and test splits; its validation split too, if it has all three."""
        builder = self._prepared()
        features = _Features(self.name, builder.info, self.request.options)
        splits = builder.info.splits
        test = "test" if "test" in splits else "validation"
        if "train" not in splits or test not in splits:
            raise UsageError(
                f"{self.name} has the splits {', '.join(splits)}: take a set with 'train' and "
                "'test'"
            )
        import tensorflow_datasets as tfds

        from tfprune.data.caching import cached

        origin = f"{builder.info.full_name} of tensorflow_datasets {tfds.__version__}"
        if test == "validation":
            origin += ", which has no test split: its validation split serves as test"
        names = {"train": "train", "test": test}
        if {"test", "validation"} <= set(splits):
            names["validation"] = "validation"
        read = {name: self._read(builder, stored, name, features) for name, stored in names.items()}
        # What is a stream is larger than any cache may be: it is refused, and not left uncached.
        read = cached(read, self.request, None, self.name)
        return Opened(origin, features.classes, read)

    def _prepared(self) -> Any:
        import tensorflow as tf
        import tensorflow_datasets as tfds

        path = self.request.data_dir or os.environ.get("TFDS_DATA_DIR")
        directory = Path(path or tfds.core.constants.DATA_DIR).expanduser()
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"data directory {directory} is a file: name a directory")
        try:
            builder = tfds.builder(self.name, data_dir=directory)
        except (ValueError, AssertionError, ImportError) as error:
            known = tfds.list_builders(with_community_datasets=False)
            if self._base in known:
                # The data set exists, but not its version or config.
                said = _line(error.__cause__ or error)
                raise UsageError(f"data set {self.name!r} cannot be opened: {said}") from None
            raise UsageError(self._unknown(known)) from None
        # What cannot be used is refused before it is downloaded.
        _Features(self.name, builder.info, self.request.options)
        try:
            # tensorflow_datasets reports downloads on stdout, which is for results.
            with contextlib.redirect_stdout(sys.stderr):
                builder.download_and_prepare()
        except (
            PermissionError,
            FileNotFoundError,
            NotADirectoryError,
            tf.errors.PermissionDeniedError,
        ) as error:
            raise UsageError(
                f"{self.name} is not in {directory} and cannot be written there ({_line(error)}): "
                "set data_dir or TFDS_DATA_DIR to a directory that holds it or can be written"
            ) from error
        except Exception as error:
            raise TfpruneError(
                f"{self.name} is not in {directory} and could not be prepared there "
                f"({_line(error)}): go online once, or set data_dir or TFDS_DATA_DIR to a "
                "directory that holds it"
            ) from error
        return builder

    def _read(self, builder: Any, stored: str, split: str, features: _Features) -> Split:
        """A split in memory, or as a stream where it is larger than the cache."""
        import tensorflow as tf

        from tfprune.data.image_files import resize
        from tfprune.data.splits import Arrays, Stream

        size = self.request.image_size
        if size is None and features.open_size:
            size = self.request.usual_size
        if size is None and (open_size := features.open_size):
            raise OpenSizeError(
                f"the {open_size} of {self.name} vary in size: give image_size, such as (64, 64)"
            )
        most = self.request.wanted(split, len(features.classes))

        def examples(seed: int = 0, epoch: int = 0) -> tf.data.Dataset:
            dataset = builder.as_dataset(split=stored, shuffle_files=False)
            if most:
                dataset = dataset.take(most)

            def pair(example: Any) -> tuple[Any, Any]:
                inputs, targets = features.pair(example)
                if size:
                    inputs = features.resized(inputs, lambda image: resize(image, size))
                return inputs, targets

            return dataset.map(pair, tf.data.AUTOTUNE, deterministic=True)

        count = builder.info.splits[stored].num_examples
        count = min(count, most) if most else count
        spec = examples().element_spec
        if count * _bytes(spec) > self.request.cache_mib * _MIB:
            return Stream(examples, count, spec)
        try:
            parts = list(examples().batch(_READ_BATCH).as_numpy_iterator())
        except (tf.errors.OpError, OSError) as error:
            raise TfpruneError(
                f"{self.name} in {builder.data_dir} cannot be read ({_line(error)}): "
                "delete its folder there and load it again"
            ) from error
        flat = [tf.nest.flatten(part) for part in parts]
        arrays = [np.concatenate(column) for column in zip(*flat, strict=True)]
        inputs, targets = tf.nest.pack_sequence_as(parts[0], arrays)
        return Arrays(inputs, targets.astype(np.int64) if features.classes else targets)


class _Features:
    """Which features of a data set are the inputs and the targets.

    Raises:
        UsageError: the data set does not say so, or an option names a feature that it lacks.
    """

    def __init__(self, name: str, info: Any, options: Any) -> None:
        import tensorflow_datasets as tfds

        unknown = set(options) - {"inputs", "targets"}
        if unknown:
            raise UsageError(
                f"{name} has no option {min(unknown)!r}: data sets of tensorflow_datasets take "
                "'inputs' and 'targets', names of features"
            )
        inputs, targets = (info.supervised_keys or (None, None))[:2]
        self._keys = (options.get("inputs", inputs), options.get("targets", targets))
        for key in self._keys:
            for feature in [key] if isinstance(key, str) else key or [None]:
                if feature not in info.features:
                    raise UsageError(
                        f"{name} does not say what is the input and what is the target "
                        f"(its supervised keys are {info.supervised_keys}, its features "
                        f"{', '.join(info.features)}): name them by the data options 'inputs' and "
                        "'targets'"
                    )
        self._features = info.features
        for feature in self._used:
            found = info.features[feature]
            spec = found.get_tensor_spec()
            image = isinstance(found, tfds.features.Image)
            if not hasattr(spec, "shape") or spec.dtype.name in ("string", "variant"):
                raise UsageError(
                    f"the feature {feature!r} of {name} is not an array of numbers: take another, "
                    "or make numbers of it in a function, FILE.py:FUNCTION"
                )
            if image and spec.dtype.name != "uint8":
                raise UsageError(
                    f"the images of {name} are not of 8 bits: take another data set, or make "
                    "pixels of 0 to 255 in a function, FILE.py:FUNCTION"
                )
            if (None in spec.shape and not image) or (image and spec.shape[-1] is None):
                raise UsageError(
                    f"the feature {feature!r} of {name} has the open shape {tuple(spec.shape)}: "
                    "give it a fixed one in a function, FILE.py:FUNCTION"
                )
        target = info.features[self._keys[1]] if isinstance(self._keys[1], str) else None
        self.classes: tuple[str, ...] = (
            tuple(target.names) if isinstance(target, tfds.features.ClassLabel) else ()
        )
        self._images = {
            feature
            for feature in self._used
            if isinstance(info.features[feature], tfds.features.Image)
        }

    @property
    def _used(self) -> list[str]:
        return [
            feature for key in self._keys for feature in ([key] if isinstance(key, str) else key)
        ]

    @property
    def open_size(self) -> str | None:
        """The feature whose images vary in size."""
        for feature in self._images:
            if None in self._features[feature].shape:
                return "images" if len(self._images) == 1 else f"images {feature!r}"
        return None

    def pair(self, example: Any) -> tuple[Any, Any]:
        """The inputs and the targets of an example."""
        inputs, targets = (
            example[key] if isinstance(key, str) else {name: example[name] for name in key}
            for key in self._keys
        )
        return inputs, targets

    def resized(self, inputs: Any, function: Any) -> Any:
        """The inputs with a function applied to each that is an image."""
        if isinstance(inputs, dict):
            return {
                name: function(value) if name in self._images else value
                for name, value in inputs.items()
            }
        return function(inputs) if self._keys[0] in self._images else inputs


def _bytes(spec: Any) -> int:
    import tensorflow as tf

    return sum(leaf.dtype.size * (leaf.shape.num_elements() or 0) for leaf in tf.nest.flatten(spec))


def _line(error: BaseException) -> str:
    """The type and the message of an error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST_ERROR]}" if text else type(error).__name__
