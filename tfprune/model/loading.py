"""Loads Keras models: from `.keras` and `.h5` files, from addresses, functions, and the zoo."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import tempfile
import warnings
import weakref
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.legacy.saving import saving_utils

from tfprune import functions, zoo
from tfprune.archives import HDF5, check_archive
from tfprune.errors import TfpruneError, UsageError, one_line
from tfprune.files import existing, existing_file
from tfprune.functions import IMPORTS, FileFunction, import_module
from tfprune.model import graph, keras2
from tfprune.model.input_shape import fix_input_shape
from tfprune.model.reference import InputShape, ModelReference, find_model

_ZIP = b"PK"
# Arguments of `zoo.build` that are not options of a net.
_TOLD_BY_DATA = ("input_shape", "classes", "mean", "std", "seed")
# The first bytes of a file, which identify its type.
_HEAD = 512
_CONVERT = (
    "in a Python with tf_keras, convert it by "
    "tf_keras.models.load_model({path!r}).save({target!r}), and give that file"
)


def load(
    model: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    input_shape: InputShape | None = None,
    defaults: Mapping[str, Any] | None = None,
    imports: Sequence[str] = (),
) -> keras.Model:
    """Loads or builds a Keras model, whatever names it; all commands and pipelines do this.

    Example:
        ```python
        model = tfprune.load("net.keras")
        model = tfprune.load("net.h5", imports=["my_layers.py"])  # with custom layers
        model = tfprune.load("my_model.py:build", options={"width": 8})
        model = tfprune.load("vgg", input_shape=(32, 32, 3), options={"classes": 10})
        ```

    A model of Keras 2 becomes a model of Keras 3; settings that Keras 3 does not have are dropped
    if they have no effect. Code in a file of a model, such as that of a Lambda layer, is not run;
    the Python file of a function is.

    Args:
        model: a `.keras` or `.h5` file that holds a whole model, or its address, which may have
            `#sha256=` and the checksum behind it; `FILE.py:FUNCTION`, a function that returns a
            Keras model; or the name of a net of `tfprune.zoo` or of `keras.applications`, in upper
            or lower case. What is at an address is kept in the user's cache.
        options: the arguments of the function, or the options of the net.
        input_shape: the shape of one example, without the batch, or those of several inputs by
            their names. A function or a net that has an argument `input_shape` gets it. What the
            model then leaves open gets these sizes: see `fix_input_shape`.
        defaults: what data tell, such as `input_shape`, `classes`, `mean`, `std` and `seed`. A
            function or a net that has such an argument gets it, unless `options` gives it.
        imports: modules, or paths of Python files, with the custom layers of the model; see
            `import_layers`. The modules in the environment variable TFPRUNE_IMPORT are imported
            too.

    Returns:
        The model. One from a file is compiled if the file says so, with a new optimizer. One of
        the zoo is not. One of a function is as the function returns it; its layers have the names
        of a new process, and weights whose initializers have no seed depend on `seed` alone, 0 if
        `defaults` has none.

    Raises:
        UsageError: the name or an option is unknown, an argument is missing, or the shape does not
            fit; the file is of another type, or needs a class or a function that is not imported,
            or something that only Keras 2 has; the function returns no model.
        TfpruneError: the file is missing, is damaged, or would become too large when unpacked, or
            cannot be downloaded; the function raises an error; pretrained weights cannot be
            fetched.
    """
    import_layers(*_modules_to_import(), *imports)
    reference = find_model(model, options)
    known = dict(defaults or {})
    if input_shape is not None:
        known["input_shape"] = input_shape
    if (file := reference.file()) is not None:
        loaded = _load_file(file)
    elif reference.function is not None:
        loaded = _call(reference.function, reference.options, known)
    else:
        loaded = _build(reference, known)
    return loaded if input_shape is None else fix_input_shape(loaded, input_shape)


def _load_file(path: Path) -> keras.Model:
    path = existing(path)
    check_size(path)
    if _head(path).startswith(_ZIP):
        config, version = _zip_config(path)
        compiled = config.get("compile_config")
    else:
        config, version, compiled = _hdf5_config(path)
    old = version.startswith(("0", "1", "2"))
    if old:
        try:
            config = keras2.to_keras3(config)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        # The config does not have the structure of any that Keras writes.
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, error) from error
        _refuse_unknown(path, config)
    try:
        model = _read(path, config if old else None)
    # A damaged file makes Keras raise KeyError, OSError, ValueError, BadZipFile and others.
    except Exception as error:
        _refuse_unknown(path, config)
        raise TfpruneError(
            f"{path} cannot be loaded ({_innermost(error)}): save it again, or give the modules of "
            "its custom layers with --import"
        ) from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{path} holds a {type(model).__name__}: give the file of a whole model")
    if graph.is_graph(model) and model.built:
        graph.finalize_states(model)
    if isinstance(compiled, dict):
        _compile(model, path, compiled)
    return model


def _compile(model: keras.Model, path: Path, config: dict[str, Any]) -> None:
    """Compiles a model as its file says, with a new optimizer; a warning says where it cannot."""
    try:
        if "optimizer_config" in config:
            # Other libraries print why they do not find a class.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arguments = saving_utils.compile_args_from_training_config(
                    keras2.training_config(config)
                )
        else:
            arguments = keras.saving.deserialize_keras_object(config)
        model.compile(**arguments)
    # A loss that is not known, or of Keras 2, raises anything.
    except Exception as error:
        warnings.warn(
            f"{path}: its loss and metrics are left out, since one is not known "
            f"({_innermost(error)}): give its module with --import, or say them anew",
            stacklevel=4,
        )


def import_layers(*modules: str) -> None:
    """Imports modules that define custom layers, so that models which use these can be loaded.

    Example:
        ```python
        import_layers("my_package.layers", "more_layers.py")
        ```

    An object that a module registers with Keras is found by its registered name; other layers,
    models and functions of the module by their own names.

    Args:
        *modules: names such as `my_package.layers`, or paths of Python files.

    Raises:
        UsageError: one cannot be imported.
    """
    for name in modules:
        for key, value in _named_objects(import_module(name)).items():
            keras.saving.get_custom_objects().setdefault(key, value)


def check_size(path: Path) -> None:
    """Refuses a file that is not a Keras model, or would become too large when unpacked.

    Example:
        ```python
        check_size(Path("net.keras"))  # raises before anything is unpacked
        ```

    Args:
        path: the file to load.

    Raises:
        UsageError: the file is of another type.
        TfpruneError: the file is empty, damaged or too large.
    """
    if problem := _describe_other_kind(path):
        raise UsageError(f"{path} {problem}")
    if path.stat().st_size == 0:
        raise TfpruneError(f"{path} is empty: save or copy the model again")
    check_archive(path)


# -- functions and nets -------------------------------------------------------------------------


def _call(
    function: FileFunction, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> keras.Model:
    """The model that a user's function returns."""
    # A file of this model may need the layers that the function's file defines.
    import_layers(str(existing_file(function.file)))
    with _as_in_a_new_process(int(defaults.get("seed", 0))):
        model = functions.call(function, options, defaults)
    if not isinstance(model, keras.Model):
        kind = type(model)
        raise UsageError(
            f"{function} returns {'nothing' if model is None else _kind(kind)}: let it return a "
            "Keras model"
        )
    if model in _returned:
        raise UsageError(
            f"{function} returns the same model again, which may have been trained by now: build "
            "the model inside the function"
        )
    _returned.add(model)
    shape = defaults.get("input_shape")
    if isinstance(model, keras.Sequential) and not model.built and isinstance(shape, tuple | list):
        model.build((None, *shape))
    return model


_returned: weakref.WeakSet[keras.Model] = weakref.WeakSet()


def _kind(kind: type) -> str:
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"a {name}"


def _build(reference: ModelReference, defaults: Mapping[str, Any]) -> keras.Model:
    """A net of the zoo."""
    taken = {name: value for name, value in defaults.items() if name in _TOLD_BY_DATA}
    arguments = {**taken, **reference.options}
    missing = {
        "input_shape": "the shape of an image, --input-shape 32x32x3 or input_shape=(32, 32, 3)",
        "classes": "the number of logits, --option classes=10 or options={'classes': 10}",
    }
    for name, advice in missing.items():
        if not arguments.get(name):
            raise UsageError(f"{reference.name} needs {name}: give data, or {advice}")
    shape = arguments["input_shape"]
    if isinstance(shape, Mapping):
        if len(shape) != 1:
            raise UsageError(f"{reference.name} has one input: give one input_shape")
        (shape,) = shape.values()
    return zoo.build(reference.name, **{**arguments, "input_shape": tuple(shape)})


@contextlib.contextmanager
def _as_in_a_new_process(seed: int) -> Iterator[None]:
    """Lets layers have the names, and random weights the values, that they have in a new process.

    Keras numbers layers without a name over all models of a process, and initializers without a
    seed draw one from Python's generator.
    """
    names = global_state.get_global_attribute("object_name_uids")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - users call it.
    global_state.set_global_attribute("object_name_uids", defaultdict(int))
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", names)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


# -- imports ------------------------------------------------------------------------------------


def _modules_to_import() -> list[str]:
    return [name for name in os.environ.get(IMPORTS, "").split(os.pathsep) if name]


def _named_objects(module: ModuleType) -> dict[str, Any]:
    """Public callables that a module defines and does not register with Keras, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and callable(value)
        # Instances, such as a metric, are callable and have no name that a file could hold.
        and hasattr(value, "__name__")
        and not name.startswith("_")
        and keras.saving.get_registered_object(keras.saving.get_registered_name(value)) is None
    }


# -- reading ------------------------------------------------------------------------------------


def _read(path: Path, config: dict[str, Any] | None) -> keras.Model:
    """Reads a model from a file; with a config, reads only the weights from the file."""
    with _suffixed(path) as file:
        if config is None:
            return keras.saving.load_model(file, compile=False)
        model = keras.saving.deserialize_keras_object(config)
        model.load_weights(file)
        return model


def _innermost(error: Exception) -> str:
    """The innermost error of a message of Keras, which stands after those of the outer objects."""
    *_, last = str(error).rpartition("Exception encountered: ")
    return one_line(Exception(last)) if last.strip() else type(error).__name__


@contextlib.contextmanager
def _suffixed(path: Path) -> Iterator[Path]:
    """The file under a name with the suffix that Keras expects."""
    suffix = ".keras" if _head(path).startswith(_ZIP) else ".h5"
    if path.suffix in (suffix, ".hdf5" if suffix == ".h5" else suffix) and _plain(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tfprune-") as scratch:
        named = Path(scratch, f"model{suffix}")
        shutil.copyfile(path, named)
        yield named


def _plain(path: Path) -> bool:
    """Whether Keras and HDF5 can open a whole model under this name."""
    # HDF5 needs a name in UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    # For Keras, this suffix means a file of weights only.
    return not path.name.endswith(".weights.h5")


def _zip_config(path: Path) -> tuple[dict[str, Any], str]:
    try:
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))
            metadata = json.loads(file.read("metadata.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, RuntimeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(config, dict) or not isinstance(metadata, dict):
        raise _damaged(path, ValueError("config.json is not a table"))
    return config, str(metadata.get("keras_version", ""))


def _hdf5_config(path: Path) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """The config of the model, the version of Keras, and how the model was compiled."""
    try:
        with path.open("rb") as raw, h5py.File(raw, "r") as file:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2")
            compiled = file.attrs.get("training_config")
            weights = "layer_names" in file.attrs or bool({"layers", "_layer_checkpoint"} & {*file})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error
    if config is None:
        raise UsageError(
            f"{path} holds the weights of a model without its layers: build the model in Python, "
            "call model.load_weights(...), then model.save('model.keras')"
            if weights
            else f"{path} is an HDF5 file that holds no Keras model: give a .keras or .h5 file of "
            "a model"
        )
    try:
        model_config = json.loads(config)
        training_config = None if compiled is None else json.loads(compiled)
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(model_config, dict):
        raise _damaged(path, ValueError("model_config is not a table"))
    version = version.decode() if isinstance(version, bytes) else str(version)
    return model_config, version, training_config


def _damaged(path: Path, error: Exception) -> TfpruneError:
    return TfpruneError(
        f"{path} is cut short or damaged ({one_line(error)}): save or copy it again"
    )


# -- refused files ------------------------------------------------------------------------------


def _refuse_unknown(path: Path, config: dict[str, Any]) -> None:
    """Refuses a config with Python code, or with a class or function that is not known."""
    for entry, layer in keras2.named_classes(config):
        name = str(entry["class_name"])
        if keras2.is_code(entry):
            raise UsageError(
                f"{path}: layer {layer!r} is a Lambda, whose Python code is in the file and is "
                "not run, since it could do anything: replace it by a layer, or by a function "
                "in a module that is registered with keras.saving.register_keras_serializable"
            )
        if name.startswith("__") or not _missing(entry):
            continue
        if name in ("function", "builtin_function_or_method"):
            name = str(entry["config"])
        problem = f"{path} needs {name!r}" + (f" for layer {layer!r}" if layer else "")
        if advice := keras2.advice(name):
            raise UsageError(f"{problem}: {advice}")
        home = str(entry.get("module") or "")
        source = "FILE.py" if home in ("", "custom", "__main__", "builtins") else home
        raise UsageError(
            f"{problem}, which no imported module defines: give the Python file or the module "
            f"that defines it, --import {source}"
        )


def _missing(entry: dict[str, Any]) -> bool:
    """Whether Keras knows no class or function for the name in a config."""
    name, module = str(entry["class_name"]), str(entry.get("module") or "")
    if module == "builtins" and name in ("function", "builtin_function_or_method"):
        name = str(entry["config"])
        if any(hasattr(getattr(keras, home), name) for home in ("activations", "ops", "losses")):
            return False
    elif module.partition(".")[0] in ("keras", "builtins", "collections"):
        return False
    elif name in ("function", "builtin_function_or_method"):
        name = str(entry.get("registered_name") or entry["config"])
        if name == "function":
            name = str(entry["config"])
    else:
        if not module and keras2.is_of_keras(name):
            return False
        name = str(entry.get("registered_name") or name)
    return keras.saving.get_registered_object(name) is None


def _describe_other_kind(path: Path) -> str | None:
    """What a path is that is not a Keras model, and what to do; None if it may be a model."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return "is not a file: give a .keras or .h5 file"
    head, suffix = _head(path), path.suffix.lower()
    if head.startswith(HDF5):
        return None
    if head.startswith(_ZIP):
        return _other_zip(path)
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file itself: run `git lfs pull`"
    if head[4:8] == b"TFL3":
        return _compiled("a TFLite file")
    if suffix in (".pt", ".pth") or head.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05")):
        return _torch()
    if suffix == ".onnx":
        return _compiled("an ONNX file")
    if suffix == ".pb":
        return (
            "is a graph of TensorFlow without Keras layers: give the .keras or .h5 file of the "
            "model, or save the model again from the code that built it"
        )
    if head.lstrip()[:1] == b"<":
        return "is a web page: download the file itself"
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"7z")):
        return "is a packed archive: unpack it, and give the .keras or .h5 file in it"
    if head.lstrip()[:1] == b"{":
        return "is a JSON text, which holds no weights: save the whole model as a .keras file"
    if head and suffix not in (".keras", ".h5", ".hdf5"):
        return "is not a file that Keras writes: give a .keras or .h5 file"
    if head and not _ZIP.startswith(head[:2]):
        return "is not a Keras model, despite its name: give a .keras or .h5 file"
    return None


def _folder(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        target = f"{path.name}.h5"
        return (
            "is a SavedModel, a program without Keras layers (`tfprune measure` runs it): if Keras "
            f"2 wrote it, {_CONVERT.format(path=str(path), target=target)}"
        )
    if (path / "config.json").exists() and (path / "metadata.json").exists():
        return "is an unpacked .keras file: zip its content again, without compression"
    return "is a directory: give a .keras or .h5 file"


def _other_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError):
        return None
    if "config.json" in names and "metadata.json" in names:
        return None
    if any(name.endswith("data.pkl") for name in names):
        return _torch()
    if names and all(name.endswith(".npy") for name in names):
        return "holds arrays without a model: give a .keras or .h5 file"
    return "is a zip file, but not one of Keras (no config.json in it): give a .keras or .h5 file"


def _compiled(what: str) -> str:
    return (
        f"is {what}, which `tfprune measure` runs but which cannot become a Keras model again: "
        "give the .keras or .h5 file that it was made from"
    )


def _torch() -> str:
    return (
        "is a file of PyTorch, and tfprune prunes Keras models: build the model in Keras, copy the "
        "weights, and give its .keras file"
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise TfpruneError(f"{path} cannot be read ({error.strerror}): check the path") from error
