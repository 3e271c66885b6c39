"""An index of files and targets: FILE.csv or FILE.toml, one example a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from tfprune.data.checking import (
    SPLITS,
    ClassOptions,
    Share,
    checked,
    default_shares,
    few,
    hash_place,
    hash_split,
)
from tfprune.data.image_files import (
    Channels,
    FileExamples,
    ImageFiles,
    common_channels,
    common_size,
    inspect,
    is_image,
    listing,
    unreadable,
)
from tfprune.data.sources.base import Opened, Source
from tfprune.errors import UsageError, did_you_mean, one_line
from tfprune.files import document_hash, sha256
from tfprune.validation import read_toml

if TYPE_CHECKING:
    import pandas as pd

    from tfprune.data.splits import Split, Tree

_EXAMPLES = "examples"
_GREY = (1, 2)
_BLACK_AND_WHITE = (0, 255)
_VALUES = 256
_LOSSY = (".jpg", ".jpeg")

Columns = str | list[str] | dict[str, str | list[str]]


class IndexOptions(ClassOptions):
    """Options of an index.

    Attributes:
        inputs: a column; several columns of numbers, which become one input (n, columns), or of
            image files, each an input by its name; or a table of inputs by name.
        targets: likewise. One column of texts or integers holds classes; image files are masks.
        weights: a column of sample weights.
        split: a column that says train, validation or test.
        shares: of train, validation and test where no column says it and the inputs are files.
        channels: 1 for grey images, 3 for colour; None: grey if every file is.
        mask_values: the pixel values of masks in the order of the classes.
        separator: between the columns of FILE.csv.
    """

    inputs: Columns | None = None
    targets: Columns | None = None
    weights: str | None = None
    split: str | None = None
    shares: Annotated[list[Share], Field(min_length=3, max_length=3)] | None = None
    channels: Channels | None = None
    mask_values: list[Annotated[int, Field(ge=0, lt=_VALUES)]] | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","


class Index(Source):
    """FILE.csv or FILE.toml with one example a row: image files, numbers, names of classes.

    Example:
        ```python
        # photo,age,price
        # a.jpg,3,1200.5
        options = {"inputs": "photo", "targets": "price"}
        Index("cars.csv", Request(image_size=(64, 64), options=options)).open()
        ```

    A TOML file has an array of tables `examples`, and may have options beside it:

    ```toml
    inputs = "photo"
    targets = "price"

    [[examples]]
    photo = "a.jpg"
    price = 1200.5
    ```

    Files are relative to the index. A column is of files if its texts end as image files do. As a
    target, an image is a mask: it is grey, its pixels are class numbers 0, 1, ... or black and
    white, or what the option `mask_values` lists, and it becomes an array (height, width).

    Without a column that says the split, a hash of the first file of each row chooses it; rows
    without a file are all of the train split, from which the others are held out.
    """

    meaning = "FILE.csv or FILE.toml, an index of files and targets"
    order = 30

    @classmethod
    def takes(cls, name: str) -> bool:
        """A file that ends in .csv or .toml."""
        return name.lower().endswith((".csv", ".toml"))

    @property
    def _path(self) -> Path:
        return Path(self.name).expanduser()

    @property
    def _root(self) -> Path:
        return self._path.parent

    def check(self) -> None:
        """Checks that the columns and the files are there."""
        table = self._table
        for tree in (self._columns("inputs"), self._columns("targets")):
            for column in _flat(tree):
                self._known(column)
        for other in (self._options.weights, self._options.split):
            if other is not None:
                self._known(other)
        if not len(table):
            raise UsageError(f"{self.name} has no rows: write one for each example")
        if not self._shares[0]:
            raise UsageError(f"the data options of {self.name}: shares gives train nothing")
        _ = self._splits

    def fingerprint(self) -> str:
        """The content of the index, and the sizes and times of its files."""
        return document_hash([sha256(self._path), list(self._files.values())])

    @cached_property
    def _document(self) -> Mapping[str, Any]:
        """A TOML file; empty for FILE.csv."""
        if not self._path.is_file():
            raise UsageError(f"{self.name} does not exist: check the path")
        return read_toml(self._path) if self._path.suffix.lower() == ".toml" else {}

    @cached_property
    def _options(self) -> IndexOptions:
        beside = {key: value for key, value in self._document.items() if key != _EXAMPLES}
        return IndexOptions.of(self.name, beside | dict(self.request.options))

    @cached_property
    def _table(self) -> pd.DataFrame:
        import pandas as pd

        options = self._options
        if self._path.suffix.lower() == ".toml":
            rows = self._document.get(_EXAMPLES)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise UsageError(
                    f"{self.name} has no array of tables {_EXAMPLES}: write [[{_EXAMPLES}]] before "
                    "the columns of each example"
                )
            return pd.DataFrame(rows)
        try:
            # An empty field is missing; a class may be called NA.
            return pd.read_csv(
                self._path,
                sep=options.separator,
                keep_default_na=False,
                na_values=[""],
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,
            )
        except (OSError, ValueError, pd.errors.ParserError) as error:
            raise UsageError(
                f"{self.name} cannot be read as a table ({one_line(error)}): write a line with the "
                "names of columns, then a line for each example, in UTF-8"
            ) from error

    def _known(self, column: str) -> None:
        columns = [str(each) for each in self._table.columns]
        if column not in columns:
            raise UsageError(
                f"{self.name} has no column {column!r}: {did_you_mean(column, columns)}"
            )

    def _columns(self, role: str) -> Columns:
        given = getattr(self._options, role)
        if given is None or given in ([], {}):
            raise UsageError(
                f"{self.name} has the columns {few(list(self._table.columns), most=9)}: name those "
                f"that are the {role} by the data option {role}"
            )
        return given

    @cached_property
    def _file_columns(self) -> list[str]:
        """The columns of files that are used, inputs first."""
        used = [*_flat(self._columns("inputs")), *_flat(self._columns("targets"))]
        for column in used:
            self._known(column)
        return [column for column in dict.fromkeys(used) if self._holds_files(column)]

    def _holds_files(self, column: str) -> bool:
        values = self._table[column].dropna()
        return len(values) > 0 and bool(
            values.map(lambda value: isinstance(value, str) and is_image(value)).all()
        )

    def _names(self, column: str) -> list[str]:
        values = self._table[column]
        if values.isna().any():
            raise UsageError(
                f"{self.name} has no file in column {column!r} of {_rows(values.isna())}: add it, "
                "or remove the row"
            )
        return [str(value) for value in values]

    @cached_property
    def _files(self) -> dict[str, list[list[Any]]]:
        """The files of each column of files, with their sizes and times."""
        return {column: listing(self._root, self._names(column)) for column in self._file_columns}

    @property
    def _shares(self) -> Sequence[float]:
        return self._options.shares or default_shares(self.request.validation)

    @cached_property
    def _splits(self) -> np.ndarray:
        """The split of each row."""
        column = self._options.split
        if column is not None:
            values = self._table[column]
            splits = [SPLITS.get(str(value).strip().lower(), "") for value in values]
            wrong = [value for value, split in zip(values, splits, strict=True) if not split]
            if wrong:
                shown = few(list(dict.fromkeys(wrong)))
                raise UsageError(
                    f"{self.name} has {shown} in its column {column!r} of splits: write train, "
                    "validation or test"
                )
            if "train" not in splits:
                raise UsageError(f"{self.name} has no row of the train split: add some")
            return np.array(splits)
        files = [name for name in self._file_columns if name in _flat(self._columns("inputs"))]
        if not files:
            if self._options.shares:
                raise UsageError(
                    f"{self.name} has no files as inputs, whose names choose the split: leave the "
                    "data option shares out, or name a column by the data option split"
                )
            return np.full(len(self._table), "train")
        return np.array([hash_split(name, self._shares) for name in self._names(files[0])])

    def open(self) -> Opened:
        """The examples; images are decoded when they are needed."""
        from tfprune.data.caching import cached
        from tfprune.data.splits import Arrays

        self.check()
        images = _Images(self)
        rows = images.rows
        options = self._options
        columns = (
            self._tree(self._columns("inputs"), images, "inputs"),
            self._tree(self._columns("targets"), images, "targets"),
            self._numbers(options.weights, rows) if options.weights else None,
        )
        # Not in the order of the file, which is often that of classes: a limit takes the first.
        files = self._names(self._file_columns[0]) if self._file_columns else []
        places = [hash_place(files[row] if files else str(row), "order ") for row in rows]
        order = np.argsort(places, kind="stable")
        splits = self._splits[rows]
        chosen = {
            split: order[splits[order] == split]
            for split in dict.fromkeys(SPLITS.values())
            if split in splits
        }
        given = {split: _selected(columns, which) for split, which in chosen.items()}
        hashed = bool(files) and not options.split
        found = checked(self.name, given, options, hashed=hashed)
        read: dict[str, Split] = {}
        for split, part in found.parts.items():
            trees = (part.inputs, part.targets, part.weights)
            if self._file_columns:
                read[split] = FileExamples(*trees)
            else:
                read[split] = Arrays(*trees)
        if self._file_columns:
            sizes = [self.request.image_size, self.request.usual_size]
            how = [sizes, self._shares, rows.tolist()]
            key = document_hash(
                [str(self._root.resolve()), self.fingerprint(), options.model_dump(), how]
            )
            read = cached(read, self.request, key, self.name, len(found.classes))
        origin = f"{len(rows):,} rows of {self.name}"
        if hashed:
            origin += ", split by a hash of each file's name"
        if images.resized:
            origin += f", resized to {images.size[0]}x{images.size[1]}"
        left_out = "; ".join(said for said in [images.left_out, found.left_out] if said)
        return Opened(origin, found.classes, read, left_out)

    def _tree(self, columns: Columns, images: _Images, role: str) -> Tree:
        """The arrays and files of some columns."""
        if isinstance(columns, dict):
            return {name: self._tree(part, images, role) for name, part in columns.items()}
        if isinstance(columns, list) and len(columns) == 1:
            columns = columns[0] if self._holds_files(columns[0]) else columns
        if isinstance(columns, list):
            files = [self._holds_files(column) for column in columns]
            if all(files):
                return {column: images.column(column, role) for column in columns}
            if any(files):
                raise UsageError(
                    f"{self.name} has files and numbers in the columns {few(columns, most=9)}: "
                    f"give a table of {role} by name, {{ photo = COLUMN, numbers = [COLUMN, ...] }}"
                )
            return np.stack([self._numbers(column, images.rows) for column in columns], axis=1)
        if self._holds_files(columns):
            return images.column(columns, role)
        if role == "targets":
            return self._target(columns, images.rows)
        return self._numbers(columns, images.rows)[:, None]

    def _filled(self, column: str, rows: np.ndarray) -> pd.Series:
        values = self._table[column].iloc[rows]
        if values.isna().any():
            raise UsageError(
                f"{self.name} has no value in its column {column!r} of {_rows(values.isna())}: add "
                "it, or remove the row"
            )
        return values

    def _target(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Integers and texts may be classes; other numbers are not."""
        values = self._filled(column, rows)
        if values.dtype.kind in "iu":
            return values.to_numpy(np.int64)
        if values.dtype.kind == "b":
            return values.to_numpy(np.int64)
        if values.dtype.kind == "f":
            return self._numbers(column, rows)
        kinds = {type(value) for value in values}
        if kinds != {str}:
            mixed = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise UsageError(
                f"{self.name} has values of several kinds ({mixed}) in its column {column!r}: "
                "write either texts or numbers"
            )
        return np.array([str(value).strip() for value in values], np.str_)

    def _numbers(self, column: str, rows: np.ndarray) -> np.ndarray:
        values = self._filled(column, rows)
        wrong = [value for value in values if not isinstance(value, int | float | np.number | bool)]
        if wrong:
            raise UsageError(
                f"{self.name} has {wrong[0]!r} in its column {column!r}, which is neither a number "
                "nor an image file: write numbers, or leave the column out"
            )
        numbers = values.to_numpy(np.float64)
        if not np.isfinite(numbers).all():
            bad = values[~np.isfinite(numbers)].index + 1
            raise UsageError(
                f"{self.name} has NaN or infinity in its column {column!r} of row {bad[0]}: "
                "correct it, or remove the row"
            )
        return numbers.astype(np.float32)


class _Images:
    """The image files of an index, which were all decoded once.

    Args:
        index: the index.

    Attributes:
        rows: int64: the rows whose files can be read.
        size: (height, width) of all images.
        resized: whether the size is one that only varying images get.
        left_out: what cannot be read, for reports.

    Raises:
        UsageError: see `unreadable`, `common_size`; masks are not masks.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        name = self._name = index.name
        self._names = {column: index._names(column) for column in index._file_columns}
        masks = _flat(index._columns("targets"))
        self._found = {
            column: inspect(index._root, index._files[column], values=column in masks)
            for column in self._names
        }
        files: list[str] = [""] * len(index._table)
        problems: dict[int, str] = {}
        for column, found in self._found.items():
            for row, said in found.problems.items():
                files[row] = self._names[column][row]
                problems[row] = said
        self.left_out = unreadable(name, files, problems, index.request)
        every = np.arange(len(files))
        self.rows = every[~np.isin(every, list(problems))]
        if not len(self.rows):
            raise UsageError(f"{name} has no row whose files can be read: check its files")
        self._photos = [column for column in self._names if column not in masks]
        self.size = (0, 0)
        self.resized = False
        if self._names:
            shapes = np.concatenate(
                [self._found[column].shapes[self.rows] for column in self._photos or self._names]
            )
            self.size = common_size(name, shapes, index.request)
            varied = bool((shapes[:, :2] != self.size).any())
            self.resized = varied and not index.request.image_size
            self._channels = index._options.channels or common_channels(shapes)

    def column(self, column: str, role: str) -> ImageFiles:
        """A column of images, or of masks."""
        shapes = self._found[column].shapes[self.rows]
        names = [self._names[column][row] for row in self.rows]
        root = self._index._root
        if role == "inputs":
            return ImageFiles.of(root, names, shapes, self.size, self._channels)
        numbers = self._class_numbers(column, names, shapes)
        return ImageFiles.of(root, names, shapes, self.size, 1, numbers)

    def _class_numbers(self, column: str, names: list[str], shapes: np.ndarray) -> np.ndarray:
        """The class number of each pixel value of masks."""
        where = f"{self._name}: the masks in column {column!r}"
        lossy = [name for name in names if name.lower().endswith(_LOSSY)]
        if lossy:
            raise UsageError(
                f"{where} are JPEG files ({few(lossy)}), which do not keep class numbers: save "
                "them as PNG"
            )
        coloured = np.flatnonzero(~np.isin(shapes[:, 2], _GREY))
        if len(coloured):
            raise UsageError(
                f"{where} have colours or a palette ({few([names[row] for row in coloured])}): "
                "save class numbers as grey values"
            )
        for photo in self._photos:
            other = self._found[photo].shapes[self.rows]
            differ = np.flatnonzero((shapes[:, :2] != other[:, :2]).any(axis=1))
            if len(differ):
                row = differ[0]
                raise UsageError(
                    f"{where} differ in size from their images ({names[row]} is "
                    f"{shapes[row][0]}x{shapes[row][1]}, and the image in column {photo!r} is "
                    f"{other[row][0]}x{other[row][1]}): save them in one size"
                )
        owners = self._found[column].values
        values = np.flatnonzero(owners >= 0)
        listed = self._index._options.mask_values
        known = list(listed or range(len(values)))
        if listed is None and set(values) <= set(_BLACK_AND_WHITE):
            known = list(_BLACK_AND_WHITE)
        strange = [int(value) for value in values if value not in known]
        if strange:
            raise UsageError(
                f"{where} have pixels of the values {few(strange)} (such as "
                f"{self._names[column][owners[strange[0]]]}), and class numbers are "
                f"{few(known, most=9)}: list all values in the order of the classes in the data "
                "option mask_values"
            )
        if len(values) < 2:
            raise UsageError(
                f"{where} have only pixels of the value {few(list(values))}: a task needs two "
                "classes or more (masks of 16 bits are read as 8: save them with 8)"
            )
        classes = self._index._options.names
        if classes is not None and len(known) > len(classes):
            raise UsageError(
                f"{where} have {len(known)} classes, and the data option classes names "
                f"{len(classes)}: name each"
            )
        numbers = np.zeros(_VALUES, np.uint8)
        numbers[known] = np.arange(len(known))
        return numbers


def _selected(trees: tuple[Tree, Tree, Tree], rows: np.ndarray) -> tuple[Tree, Tree, Tree]:
    from tfprune.data.splits import mapped

    inputs, targets, weights = (
        None if tree is None else mapped(lambda leaf: leaf[rows], tree) for tree in trees
    )
    return inputs, targets, weights


def _flat(columns: Columns) -> list[str]:
    if isinstance(columns, dict):
        return [column for part in columns.values() for column in _flat(part)]
    return [columns] if isinstance(columns, str) else list(columns)


def _rows(marked: pd.Series) -> str:
    """How messages call the rows that are marked."""
    places = [int(place) + 1 for place in marked.index[marked]]
    return f"row{'s' if len(places) > 1 else ''} {few(places)}"
