"""What a user may give as a model: a file, its address, `FILE.py:FUNCTION`, or a name of the zoo.

It needs no Keras: commands and pipelines check a model before anything is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfprune import zoo
from tfprune.errors import UsageError
from tfprune.files import MODEL_FILES, existing, existing_file, sha256
from tfprune.functions import FileFunction, file_function, is_file_function, sources
from tfprune.model.download import cached_path, fetched, is_address

# Of one example, without the batch: that of the only input, or those of some by their names.
InputShape = Sequence[int] | Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class ModelReference:
    """A model that is not loaded yet; `tfprune.load` loads it.

    Attributes:
        name: what the user gave; a name of the zoo in its own upper and lower case.
        options: arguments of the function, or options of the net.
        path: the file with the model, where it is one; of an address, where it is kept when it has
            been downloaded.
        function: the function that returns the model, where it is one.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    function: FileFunction | None = None

    @property
    def is_net(self) -> bool:
        """Whether it is a net of the zoo or of keras.applications, by its name."""
        return self.path is None and self.function is None

    @property
    def pretrained(self) -> bool:
        """Whether the model may be worth something before it is trained."""
        if not self.is_net:
            return True
        of_keras = self.name in zoo.APPLICATIONS
        return of_keras and self.options.get("weights", "imagenet") != "random"

    def file(self) -> Path | None:
        """The file with the model, downloaded if need be; None where the model is not in a file.

        Raises:
            TfpruneError: it does not exist, or cannot be downloaded.
        """
        if self.path is None:
            return None
        return fetched(self.name) if is_address(self.name) else existing(self.path)

    def check_files(self) -> None:
        """Checks that the files which the model is read from exist; downloads that of an address.

        Raises:
            TfpruneError: one does not, or cannot be downloaded.
        """
        if self.function is not None:
            existing_file(self.function.file)
        elif self.path is not None:
            self.file()
        elif (weights := self._weights_file) is not None:
            existing_file(weights)

    def identity(self) -> dict[str, Any]:
        """What the model depends on, for the hash of a result.

        Of a function it is the content of its file and of the files beside it that it imports, and
        the options; what it reads is not in it.

        Raises:
            TfpruneError: a file does not exist.
        """
        if (file := self.file()) is not None:
            return {"sha256": sha256(file)}
        if self.function is not None:
            content = sha256(existing_file(self.function.file))
            name = self.function.function
            return {
                "function": name,
                "sha256": content,
                "options": dict(self.options),
                **imports(self.function.file),
            }
        known: dict[str, Any] = {"name": self.name, "options": dict(self.options)}
        weights = self._weights_file
        return known if weights is None else {**known, "sha256": sha256(weights)}

    @property
    def _weights_file(self) -> str | None:
        """The file with the weights of a net of `keras.applications`."""
        weights = self.options.get("weights", "random")
        return None if weights in ("imagenet", "random") else weights


def imports(file: Path) -> dict[str, Any]:
    """The files beside a user's file that it imports, for the hash of a result.

    Example:
        ```python
        imports(Path("my_model.py"))  # {"imports": {"my_layers.py": "9f86d0818..."}}
        ```

    Returns:
        Their SHA-256 by their names; nothing at all if it imports none.
    """
    own = file.resolve()
    found = {name: sha256(path) for name, path in sources(file).items() if path != own}
    return {"imports": found} if found else {}


def find_model(
    name: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> ModelReference:
    """Finds out what a user means by the name of a model, and checks its options.

    Example:
        ```python
        find_model("net.keras").path  # Path("net.keras")
        find_model("mobilenetv2").name  # "MobileNetV2"
        find_model("my_model.py:build", {"width": 8}).function
        ```

    Args:
        name: a `.keras`, `.h5` or `.hdf5` file, or its address (`https://…`, with `#sha256=…`
            behind it to check it); `FILE.py:FUNCTION`; or a name of `tfprune.zoo`, in upper or
            lower case. Files need not exist; a file that does may have any name.
        options: arguments of the function, or options of the net.

    Raises:
        UsageError: there is no such name, it has no such option, or a file has options.
    """
    text, given = os.fspath(name), dict(options or {})
    if not text:
        raise UsageError(
            "MODEL is empty: give a .keras or .h5 file, FILE.py:FUNCTION, or a net of the zoo"
        )
    if is_address(text):
        path = cached_path(text)
        _refuse_options(text, given)
        return ModelReference(text, path=path)
    if is_file_function(text):
        return ModelReference(text, given, function=file_function(text))
    path = Path(text)
    if not _is_path(path, text):
        zoo.check(text, given)
        return ModelReference(zoo.canonical(text) or text, given)
    _refuse_options(text, given)
    return ModelReference(text, path=path)


def _refuse_options(text: str, given: Mapping[str, Any]) -> None:
    if given:
        raise UsageError(
            f"{text} is a file, which has no option {' and '.join(given)}: leave it out, or give "
            "FILE.py:FUNCTION or a net of the zoo"
        )


def _is_path(path: Path, text: str) -> bool:
    try:
        if text.endswith(MODEL_FILES) or path.is_file():
            return True
        # A folder of results may be called like its net.
        if zoo.canonical(text) is not None:
            return False
        return path.exists() or bool(path.suffix) or os.sep in text
    # A name that is too long; who opens the file says so.
    except OSError:
        return True
