"""Functions in Python files of users, `FILE.py:FUNCTION`: imported, and called with options.

It needs no Keras. A file is imported once in a process, whoever asks for it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tfprune.errors import TfpruneError, UsageError, did_you_mean, one_line

IMPORTS = "TFPRUNE_IMPORT"
"""The environment variable that lists modules to import before a model is loaded, in this process
and in every process that it starts. It is separated like `PATH`."""

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<function>[^:/\\]*)", re.DOTALL)
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class FileFunction:
    """A function by the name that a user gives it: `FILE.py:FUNCTION`.

    Attributes:
        file: the Python file.
        function: the name of the function in it.
    """

    file: Path
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"


def is_file_function(name: str) -> bool:
    """Whether a name looks like `FILE.py:FUNCTION`.

    Example:
        ```python
        is_file_function("my_data.py:photos")  # True
        is_file_function("mnist:3.0.1")  # False
        ```
    """
    return _REFERENCE.fullmatch(name) is not None


def file_function(name: str) -> FileFunction:
    """Reads `FILE.py:FUNCTION`; the file need not exist yet.

    Example:
        ```python
        file_function("my_model.py:build").function  # "build"
        ```

    Raises:
        UsageError: the name is of another form.
    """
    found = _REFERENCE.fullmatch(name)
    if found is None or not found["function"].isidentifier():
        raise UsageError(f"{name!r} is not of the form FILE.py:FUNCTION: write my_file.py:build")
    return FileFunction(Path(found["file"]), found["function"])


def call(
    reference: FileFunction,
    options: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    *,
    settings: str = "--option",
) -> Any:
    """Imports a function and calls it.

    Example:
        ```python
        reference = file_function("my_model.py:build")  # def build(input_shape, width=16)
        call(reference, {"width": 8}, {"input_shape": (32, 32, 3), "classes": 10})
        ```

    Args:
        reference: the function.
        options: its arguments, as the user gave them.
        defaults: values for parameters that the function names and `options` does not give. Those
            that it does not name are left out.
        settings: how the user gives options, for messages.

    Returns:
        What the function returns.

    Raises:
        UsageError: the file cannot be imported or has no such function, or an argument is missing
            or unknown.
        TfpruneError: the function raises an error.
    """
    function = imported(reference)
    named, takes_any = _parameters(function)
    unknown = [name for name in options if name not in named]
    if unknown and not takes_any:
        known = did_you_mean(unknown[0], named) if named else "it takes no arguments"
        raise UsageError(f"unknown option {unknown[0]!r} of {reference}: {known}")
    given = {name: value for name, value in (defaults or {}).items() if name in named}
    arguments = given | dict(options)
    missing = [name for name, needed in named.items() if needed and name not in arguments]
    if missing:
        raise UsageError(
            f"{reference} needs {' and '.join(missing)}: give {settings} {missing[0]}=..., or "
            "a default in the function"
        )
    try:
        return function(**arguments)
    # A user's function may raise anything, and a script may exit.
    except (Exception, SystemExit) as error:
        raise TfpruneError(
            f"{reference} raises {type(error).__name__} ({one_line(error)})"
            f"{_place(error, reference.file)}: correct the function"
        ) from error


def imported(reference: FileFunction) -> Callable[..., Any]:
    """The function itself.

    Example:
        ```python
        imported(file_function("my_model.py:build"))(width=8)
        ```

    Raises:
        UsageError: the file cannot be imported, or has no such function.
    """
    module = import_module(str(reference.file))
    function = getattr(module, reference.function, None)
    if not callable(function):
        names = [
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        what = "no function" if function is None else "no function, but a value,"
        advice = did_you_mean(reference.function, names) if names else "it defines none"
        raise UsageError(f"{reference.file} has {what} {reference.function!r}: {advice}")
    return function


def import_module(name: str) -> ModuleType:
    """Imports a module by its name or by the path of its file, once.

    Example:
        ```python
        import_module("src/my_layers.py")
        import_module("my_package.layers")
        ```

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        return _import(name)
    # A user's module may raise anything, and a script may exit.
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{name} cannot be imported ({type(error).__name__}: {one_line(error)}): give a "
            "Python file, or a module that Python finds"
        ) from error


def importable(module: str) -> str:
    """The argument with which `import_module` imports a module in another Python process.

    Example:
        ```python
        import_module("src/my_layers.py")
        importable("my_layers")  # "/home/me/src/my_layers.py"
        importable("json")  # "json"
        ```

    Args:
        module: the name of an imported module.

    Returns:
        The path if `import_module` imported a file, else the name itself.
    """
    return imported_files().get(module, module)


@functools.cache
def imported_files() -> dict[str, str]:
    """The absolute paths of the files that were imported, by the names of their modules."""
    return {}


def sources(file: Path) -> dict[str, Path]:
    """A Python file, and those beside it that it imports; nothing is run.

    Example:
        ```python
        sources(Path("my_model.py"))  # {"my_layers.py": ..., "my_model.py": ...}
        ```

    Returns:
        The files by their names relative to the folder of the first one, in order. What is
        installed elsewhere, or imported by a name that is computed, is not among them.
    """
    root = file.resolve().parent
    found: set[Path] = set()
    waiting = [file.resolve()]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            names = []
            base = root
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    base = path.parents[min(node.level, len(path.parents)) - 1]
                module = node.module or ""
                names = [module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)]
            for name in filter(None, names):
                parts = name.split(".")
                for depth in range(1, len(parts) + 1):
                    place = base.joinpath(*parts[:depth])
                    waiting += [place.with_name(f"{place.name}.py"), place / "__init__.py"]
    beside = sorted(path for path in found if path.is_relative_to(root))
    return {path.relative_to(root).as_posix(): path for path in beside}


def _import(name: str) -> ModuleType:
    if not (name.endswith(".py") or os.sep in name):
        return importlib.import_module(name)
    path = Path(name).resolve()
    module = path.stem
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    content = path.read_bytes()
    if imported_files().get(module) == str(path):
        # A result is named by the content of the file, so the older code must not make it.
        if _contents().setdefault(module, content) != content:
            raise ImportError("it changed since it was imported: start Python again")
        return sys.modules[module]
    known = sys.modules.get(module)
    other = importlib.util.find_spec(module) if known is None else known.__spec__
    if other is not None or known is not None:
        if other is not None and other.origin and Path(other.origin).resolve() == path:
            _remember(module, path, content)
            return importlib.import_module(module)
        raise ImportError(f"there is another module called {module}: rename the file")
    specification = importlib.util.spec_from_file_location(module, path)
    if specification is None or specification.loader is None:
        raise ImportError("it is not a Python file")
    loaded = importlib.util.module_from_spec(specification)
    sys.modules[module] = loaded
    try:
        # As in a script, the file may import its neighbours. Afterwards they are off the path.
        sys.path.append(str(path.parent))
        try:
            specification.loader.exec_module(loaded)
        finally:
            sys.path.remove(str(path.parent))
    except BaseException:
        del sys.modules[module]
        raise
    _remember(module, path, content)
    return loaded


def _remember(module: str, path: Path, content: bytes) -> None:
    imported_files()[module] = str(path)
    _contents()[module] = content


@functools.cache
def _contents() -> dict[str, bytes]:
    """What was in the imported files, by the names of their modules."""
    return {}


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, bool], bool]:
    """The parameters that have a name, whether each needs a value; whether it takes any others."""
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(function).parameters.values()
    # Functions of C have none.
    except (TypeError, ValueError):
        return {}, True
    named = {each.name: each.default is each.empty for each in parameters if each.kind in _PLAIN}
    return named, any(each.kind is each.VAR_KEYWORD for each in parameters)


def _place(error: BaseException, file: Path) -> str:
    """Where in the user's file an error comes from."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == file.resolve()
    ]
    return f" in line {lines[-1]}" if lines else ""
