"""What weight pruning touches: the kernels of a model, never its biases or norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

from tfprune.errors import UsageError, did_you_mean
from tfprune.graph import named
from tfprune.weights.patterns import Axes, axes_of

Pick: TypeAlias = "str | Callable[[Any], bool]"
Picks: TypeAlias = "Pick | Iterable[Pick] | None"

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)
_RECURRENT = (
    keras.layers.SimpleRNNCell,
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
    # The cell of a ConvLSTM is not public; the layer shows the cell's weights as its own.
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
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


# Attention, Bidirectional, TimeDistributed and RNN are not here: they are walked into.
_PRUNABLE: dict[type, tuple[str, ...]] = {
    **dict.fromkeys(_CONVOLUTIONS, ("kernel",)),
    **dict.fromkeys(_SEPARABLE, ("depthwise_kernel", "pointwise_kernel")),
    **dict.fromkeys(_DENSE, ("kernel",)),
    **dict.fromkeys(_RECURRENT, ("kernel", "recurrent_kernel")),
    keras.layers.Embedding: ("embeddings",),
}


def register_prunable(layer_type: type, *names: str) -> None:
    """Says which weights of a layer type may be pruned, for a layer tfprune does not know.

    Args:
        layer_type: a layer class; its subclasses follow unless they are registered themselves.
        *names: the weights' names, as given to `add_weight`. None of them: nothing to prune.
    """
    _PRUNABLE[layer_type] = names


def prunable(
    model: keras.Model, include: Picks = None, exclude: Picks = None
) -> list[tuple[str, keras.Variable]]:
    """Lists the weights of a model that weight pruning may touch.

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
    return [(each.path, each.variable) for each in kernels(model, include, exclude)]


def kernels(model: keras.Model, include: Picks = None, exclude: Picks = None) -> list[Kernel]:
    """As `prunable`, with the axes of each weight."""
    layers = list(_walk(model))
    owners = [(path, layer) for path, layer in layers if _kernels(layer)]
    wanted, unwanted = _as_list(include), _as_list(exclude)
    known = {name for path, layer in layers for name in (path, layer.name)}
    for argument, picks in (("include", wanted), ("exclude", unwanted)):
        for pick in picks:
            if isinstance(pick, str) and not any(named(path, pick) for path, _ in layers):
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
    found: dict[int, Kernel] = {}
    for path, layer in owners:
        if include is not None and not any(_matches(pick, path, layer) for pick in wanted):
            continue
        if any(_matches(pick, path, layer) for pick in unwanted):
            continue
        for variable in _kernels(layer):
            found.setdefault(id(variable), Kernel(path, variable, axes_of(layer, variable)))
    return list(found.values())


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


def _kernels(layer: Any) -> list[keras.Variable]:
    names = next((_PRUNABLE[kind] for kind in type(layer).__mro__ if kind in _PRUNABLE), ())
    # A quantized kernel holds integers: there is nothing to train and nothing to rank.
    return [
        variable
        for variable in (layer.weights if names else ())
        if variable.name in names and keras.backend.is_float_dtype(variable.dtype)
    ]


def _matches(pick: Pick, path: str, layer: Any) -> bool:
    if callable(pick):
        return bool(pick(layer))
    return named(path, pick)


def _as_list(picks: Picks) -> Sequence[Pick]:
    if picks is None:
        return []
    return [picks] if isinstance(picks, str) or callable(picks) else list(picks)
