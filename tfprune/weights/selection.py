"""What weight pruning touches: the kernels of a model, never its biases or norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

from tfprune.errors import UsageError, did_you_mean
from tfprune.model.graph import path_matches
from tfprune.model.layer_table import LAYER_TABLE, Axes, axes_of

Pick: TypeAlias = "str | Callable[[Any], bool]"
Picks: TypeAlias = "Pick | Iterable[Pick] | None"

# Their weights may have as many axes as their input, and are not matrices.
_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
    keras.layers.SpectralNormalization,
    keras.layers.PReLU,
)


class Kernel(NamedTuple):
    """A weight that may be pruned."""

    path: str
    variable: keras.Variable
    axes: Axes

    @property
    def name(self) -> str:
        """The layer's path, then the weight's name, as in "backbone/conv_1/kernel"."""
        return f"{self.path}/{self.variable.name}"


# The weights that users name for their own layer types. Attention, Bidirectional, TimeDistributed
# and RNN have no row in the layer table: the layers inside them do.
_REGISTERED: dict[type, tuple[str, ...]] = {}


def register_prunable(layer_type: type, *names: str) -> None:
    """Names the weights of a layer type that may be pruned, for a layer tfprune does not know.

    Example:
        ```python
        register_prunable(MyLayer, "kernel")
        ```

    Args:
        layer_type: a layer class; its subclasses follow unless they are registered themselves.
        *names: the weights' names, as given to `add_weight`; without any, nothing is pruned.
    """
    _REGISTERED[layer_type] = names


def prunable(
    model: keras.Model, include: Picks = None, exclude: Picks = None
) -> list[tuple[str, keras.Variable]]:
    """Lists the weights of a model that weight pruning may touch.

    Example:
        ```python
        for path, kernel in prunable(model, exclude="logits"):
            print(path, kernel.shape)
        ```

    Kernels of convolutions, Dense, EinsumDense (and so the projections of attention), embeddings
    and recurrent cells, in nested models too. A shared layer or a tied weight comes once.

    Args:
        model: a built model.
        include: only these layers; a layer's name or path, a glob of them such as `"conv*"`, a
            `(layer) -> bool`, or several of these. The name of a nested model or a wrapper
            stands for all inside it.
        exclude: all but these layers, in the same form. It wins over `include`.

    Returns:
        (layer path, variable) pairs in the order of the layers. A path joins the names from the
        model down with "/", as in "backbone/conv_1".

    Raises:
        UsageError: a name that is no layer of the model, or an included layer without a kernel.
    """
    return [(kernel.path, kernel.variable) for kernel in kernels(model, include, exclude)]


def kernels(model: keras.Model, include: Picks = None, exclude: Picks = None) -> list[Kernel]:
    """As `prunable`, with the axes of each weight."""
    layers = list(_walk(model))
    owners = [(path, layer) for path, layer in layers if _kernels(layer)]
    wanted, unwanted = _as_list(include), _as_list(exclude)
    known = {name for path, layer in layers for name in (path, layer.name)}
    for argument, picks in (("include", wanted), ("exclude", unwanted)):
        for pick in picks:
            if isinstance(pick, str) and not any(path_matches(path, pick) for path, _ in layers):
                raise UsageError(
                    f"{argument}: the model {model.name!r} has no layer {pick!r}: "
                    + did_you_mean(pick, sorted(known), "see `tfprune inspect`")
                )
    for pick in wanted:
        if isinstance(pick, str) and not any(_matches(pick, *owner) for owner in owners):
            raise UsageError(
                f"include: layer {pick!r} has no kernel to prune; leave it out, "
                "or name its weights with register_prunable"
            )
    chosen: dict[int, Kernel] = {}
    for path, layer in owners:
        if not _is_picked(path, layer, None if include is None else wanted, unwanted):
            continue
        for variable in _kernels(layer):
            chosen.setdefault(id(variable), Kernel(path, variable, axes_of(layer, variable)))
    return list(chosen.values())


class Unpruned(NamedTuple):
    """Weights that stay dense though no pick leaves them out.

    Attributes:
        paths: of the layers that hold them.
        size: how many weights they are.
        reason: why, and what to do about it.
    """

    paths: list[str]
    size: int
    reason: str


def unpruned(model: keras.Model, include: Picks = None, exclude: Picks = None) -> list[Unpruned]:
    """Finds the matrices of a model that `prunable` passes over, or that do not train.

    Biases, norms and other weights with a single axis longer than 1 are not among them, nor is
    what the picks leave out.

    Args:
        model: as of `prunable`.
        include: as of `prunable`.
        exclude: as of `prunable`.

    Returns:
        The weights, by reason.
    """
    picked = list(_picked(model, include, exclude))
    # A layer may hold a kernel of another one as well, such as a tied embedding.
    kernel_ids = {id(kernel) for _, layer in _walk(model) for kernel in _kernels(layer)}
    counted: set[int] = set()
    frozen: dict[str, int] = {}
    unknown: dict[str, tuple[type, str, int]] = {}
    unbuilt = [path for path, layer in picked if not layer.built and _may_hold(layer)]
    for path, layer in picked:
        for variable in [*_kernels(layer), *_strange(layer)]:
            if id(variable) in counted:
                continue
            counted.add(id(variable))
            size = math.prod(variable.shape)
            if not variable.trainable:
                frozen[path] = frozen.get(path, 0) + size
            elif id(variable) not in kernel_ids:
                before = unknown.get(path, (type(layer), variable.name, 0))
                unknown[path] = (*before[:2], before[2] + size)
    parts = []
    if unknown:
        kind, name, _ = max(unknown.values(), key=lambda entry: entry[2])
        reason = (
            "of a type that tfprune does not know: register_prunable"
            f"({kind.__name__}, {name!r}) names the weights to prune"
        )
        size = sum(entry[2] for entry in unknown.values())
        parts.append(Unpruned(list(unknown), size, reason))
    if frozen:
        reason = "frozen: set trainable=True to prune them"
        parts.append(Unpruned(list(frozen), sum(frozen.values()), reason))
    if unbuilt:
        parts.append(Unpruned(unbuilt, 0, "not built: call the model once on data"))
    return parts


def unfinished(model: keras.Model, include: Picks = None, exclude: Picks = None) -> bool:
    """Whether a model, or a layer with weights to prune, is built only once it is called."""
    picked = (layer for _, layer in _picked(model, include, exclude))
    return not model.built or any(not layer.built and _may_hold(layer) for layer in picked)


def _picked(model: keras.Model, include: Picks, exclude: Picks) -> Iterator[tuple[str, Any]]:
    """The model itself and the layers in it, as far as the picks mean them."""
    wanted, unwanted = None if include is None else _as_list(include), _as_list(exclude)
    for path, layer in [(model.name, model), *_walk(model)]:
        if _is_picked(path, layer, wanted, unwanted):
            yield path, layer


def _is_own(layer: Any) -> bool:
    return type(layer).__module__.partition(".")[0] == "keras"


def _may_hold(layer: Any) -> bool:
    """Whether a layer that is not built may come to have kernels."""
    return bool(_names(layer)) or not (_is_own(layer) or _is_known(type(layer)))


def _strange(layer: Any) -> list[keras.Variable]:
    """Matrices of a layer of no type of Keras' own, trainable or frozen since.

    Those of a layer whose very type is registered are known, path_matches or not.
    """
    if _is_known(type(layer)) or isinstance(layer, _NORMS):
        return []
    if _is_own(layer) and not _foreign(layer):
        return []
    return [
        variable
        for variable in layer._trainable_variables
        if keras.backend.is_float_dtype(variable.dtype)
        and sum(side > 1 for side in variable.shape) > 1
    ]


def _foreign(layer: Any) -> bool:
    """Whether a layer of Keras holds the weights of another library."""
    return type(layer).__name__ in ("JaxLayer", "FlaxLayer", "TorchModuleWrapper", "TFSMLayer")


def _walk(layer: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) for every layer under a layer, a shared one at its first place."""
    seen = set() if seen is None else seen
    # `model.layers` stops at attention, wrappers and recurrent cells; Keras' own list does not.
    for child in layer._layers:
        if id(child) not in seen:
            seen.add(id(child))
            path = f"{prefix}{child.name}"
            yield path, child
            yield from _walk(child, f"{path}/", seen)


def _names(layer: Any) -> tuple[str, ...]:
    base = next((kind for kind in type(layer).__mro__ if _is_known(kind)), None)
    if base is None:
        return ()
    if base in _REGISTERED:
        return _REGISTERED[base]
    return tuple(kernel_type.name for kernel_type in LAYER_TABLE[base])


def _is_known(layer_type: type) -> bool:
    """Whether the very type has a row in the layer table, or is registered."""
    return layer_type in _REGISTERED or layer_type in LAYER_TABLE


def _kernels(layer: Any) -> list[keras.Variable]:
    names = _names(layer)
    # A quantized kernel holds integers: there is nothing to train and nothing to rank.
    return [
        variable
        for variable in (layer.weights if names else ())
        if variable.name in names and keras.backend.is_float_dtype(variable.dtype)
    ]


def _is_picked(
    path: str, layer: Any, wanted: Sequence[Pick] | None, unwanted: Sequence[Pick]
) -> bool:
    if any(_matches(pick, path, layer) for pick in unwanted):
        return False
    return wanted is None or any(_matches(pick, path, layer) for pick in wanted)


def _matches(pick: Pick, path: str, layer: Any) -> bool:
    if callable(pick):
        return bool(pick(layer))
    return path_matches(path, pick)


def _as_list(picks: Picks) -> Sequence[Pick]:
    if picks is None:
        return []
    return [picks] if isinstance(picks, str) or callable(picks) else list(picks)
