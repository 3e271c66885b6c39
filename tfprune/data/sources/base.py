"""What every source of data shares. Importing it loads no TensorFlow."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from tfprune.data.splits import Split

Cache = Literal["memory", "disk"]
Unreadable = Literal["fail", "skip"]
CACHE_MIB = 1024
"""How much of a data set a cache may hold, in MiB, if nothing else is said."""


@dataclass(frozen=True)
class Request:
    """How a data set is asked for; see `tfprune.data.load`.

    Example:
        ```python
        Request(image_size=(32, 32)).wanted("train", classes=10)  # None: all examples
        ```

    Attributes:
        data_dir: where tensorflow_datasets keeps its data sets; None for its own default.
        validation: share of the train split that is held out; 0 to 1.
        image_size: (height, width) that images are resized to; None keeps their size.
        usual_size: (height, width) for images that vary in size and have no `image_size`, such as
            what the model takes.
        limit: the largest number of examples in each split; None for all.
        options: arguments of the source, such as those of a user's function.
        cache: where examples that are read from files are kept after their first reading.
        cache_mib: the largest size of what is cached or taken into memory, in MiB.
        unreadable: what happens with files that cannot be read.
    """

    data_dir: str | os.PathLike[str] | None = None
    validation: float = 0.1
    image_size: tuple[int, int] | None = None
    usual_size: tuple[int, int] | None = None
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cache: Cache | None = None
    cache_mib: float = CACHE_MIB
    unreadable: Unreadable = "fail"

    def wanted(self, split: str, classes: int) -> int | None:
        """How many examples of a split are needed at most.

        Args:
            split: "train", "validation" or "test".
            classes: the number of classes; 0 if the targets are not classes.
        """
        if self.limit is None or split != "train":
            return self.limit
        # With so many examples, each split can reach the limit, and stratification finds each class
        # twice.
        share = min(self.validation, 1 - self.validation)
        return math.ceil(max(self.limit, 2 * classes) / share)


@dataclass(frozen=True)
class Opened:
    """What a source gives.

    Attributes:
        origin: a description of the data set and its version, for reports.
        classes: the name of each label, in order; empty if the targets are not classes.
        splits: by name: "train" at least, and "validation" and "test" if the source has them. The
            loader holds out the others.
        left_out: what is not in the splits, such as files that cannot be read; for reports.
    """

    origin: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    left_out: str = ""


class Source(ABC):
    """A place that examples come from; a subclass is a kind of source.

    Every module of this package is imported, so a new module with a subclass is all that a new kind
    of source needs:

    ```python
    class Stripes(Source):
        "Two classes of images, made up."

        meaning = "stripes: two classes of images that a test makes"

        @classmethod
        def takes(cls, name):
            return name == "stripes"

        def open(self):
            images = np.zeros((40, 2, 2, 1), np.uint8)
            labels = np.tile(np.arange(2), 20)
            images[np.arange(40), labels] = 255
            return Opened("stripes", ("top", "bottom"), {"train": Arrays(images, labels)})
    ```

    Attributes:
        meaning: how the name is written and what it stands for, for help texts and errors.
        order: kinds with a lower number are asked first whether they take a name.
        name: as the user wrote it.
        request: how it is asked for.
    """

    meaning: ClassVar[str]
    order: ClassVar[int] = 50

    def __init__(self, name: str, request: Request) -> None:
        self.name = name
        self.request = request

    def __init_subclass__(cls) -> None:
        KINDS.append(cls)

    @classmethod
    @abstractmethod
    def takes(cls, name: str) -> bool:
        """Whether a name is one of this kind; it loads no TensorFlow."""

    def check(self) -> None:  # noqa: B027 - most kinds have nothing to check so early.
        """Checks what can be checked without TensorFlow.

        Raises:
            UsageError: the data cannot be there.
        """

    def fingerprint(self) -> str | None:
        """A hash that changes when the data do; None if only the examples themselves can tell."""
        return None

    def signature(self) -> str | None:
        """What changes when files do, for a source without a fingerprint.

        None if it cannot be known without loading the examples.
        """
        return self.fingerprint()

    @abstractmethod
    def open(self) -> Opened:
        """The splits.

        Raises:
            UsageError: the data are not what the name says, or an option is wrong.
            TfpruneError: the data are missing or damaged.
        """


KINDS: list[type[Source]] = []
"""The kinds of sources; a class of `Source` is added by itself."""
