"""Rebuilds a model so that it computes as its integer file will."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras.src.ops.nn import Gelu
from keras.src.ops.numpy import Add, Subtract

from tfprune.model.graph import Call, calls, functional, path_matches
from tfprune.model.inlining import (
    SEPARABLE,
    Arguments,
    rebuilt,
    separated,
    unused_name,
    with_output_names,
)
from tfprune.model.layer_table import TRANSPOSED_CONVOLUTIONS
from tfprune.model.quantized_layers import (
    STEPS,
    FakeQuantize,
    QuantizedLayer,
    QuantizedPReLU,
    QuantizedScale,
    Rounding,
    has_offset,
)
from tfprune.quantize.rules import (
    DIVISIONS,
    FIXED_RANGES,
    FUSED,
    Rule,
    activation_name,
    number_of,
    operands,
    rule_of,
    slope_of,
)
from tfprune.vocabulary import ActivationTypeName, RangeName, WeightTypeName


def is_quantize_aware(model: Any) -> bool:
    """Whether a model computes with rounded numbers, as `quantize_aware` makes it.

    Example:
        ```python
        is_quantize_aware(tfprune.quantize_aware(model, images))  # True
        ```
    """
    return any(isinstance(layer, FakeQuantize) for layer in getattr(model, "layers", ()))


def split_up(model: keras.Model) -> keras.Model:
    """A model whose layers are operators of TFLite each.

    Sums and products are of two tensors, an average is a sum and a product, and a separable
    convolution is two convolutions, with the weights that it has.

    Args:
        model: from `inlined`. It is returned as it is where nothing is to be split.
    """
    if not any(_parts_of(call) for call in calls(model)):
        return model
    taken = {operation.name for operation in functional(model).operations}
    made: dict[int, list[keras.Layer]] = {}

    def emit(call: Call, inputs: Arguments) -> Any:
        operation: Any = call.operation
        parts = _parts_of(call)
        if not parts:
            return operation(*inputs[0], **inputs[1])
        x, *others = keras.tree.flatten(inputs)
        if id(operation) not in made:
            layers = made[id(operation)] = parts(operation, len(call.inputs))
            for layer in layers[:-1]:
                layer.name = unused_name(f"{operation.name}_part", taken)
                taken.add(layer.name)
            layers[-1].name = operation.name
        for place, layer in enumerate(made[id(operation)]):
            x = layer([x, others[place]]) if place < len(others) else layer(x)
        return x

    return rebuilt(model, emit, model.name)


def _parts_of(call: Call) -> Callable[[Any, int], list[keras.Layer]] | None:
    kind = type(call.operation)
    if kind in (keras.layers.Add, keras.layers.Multiply, *_EXTREMES) and len(call.inputs) > 2:
        return lambda layer, count: [kind(dtype=layer.dtype_policy) for _ in range(count - 1)]
    if kind is keras.layers.Average:
        return lambda layer, count: [
            *(keras.layers.Add(dtype=layer.dtype_policy) for _ in range(count - 1)),
            keras.layers.Rescaling(1 / count, dtype=layer.dtype_policy),
        ]
    if kind in SEPARABLE:
        return lambda layer, count: separated(layer)
    return None


_EXTREMES = (keras.layers.Maximum, keras.layers.Minimum)
# -- ranges -------------------------------------------------------------------------------------


class _Sets:
    """Which tensors share a range: a union-find over keys."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def of(self, key: Hashable) -> Hashable:
        """The key that stands for the set of a key."""
        while (parent := self._parent.get(key, key)) != key:
            key = parent
        return key

    def unite(self, one: Hashable, other: Hashable) -> None:
        """Makes one set of two."""
        self._parent[self.of(one)] = self.of(other)


@dataclass
class _Value:
    """A tensor of the new graph, and the layer that rounded it; None where it is in float."""

    tensor: Any
    range: FakeQuantize | None = None
    step: Any = None
    # How the file rounds it, and what it computes with for that; see `FakeQuantize`.
    beside: tuple[Any, ...] = ()
    numbers: tuple[float, ...] = ()
    rounding: Rounding = "even"


def _scaled(made: Any, before: _Value, slope: float) -> _Value:
    """A rounded tensor that goes to another range, its negative numbers multiplied by a slope."""
    return _Value(made, beside=(before.tensor, before.step), numbers=(slope,), rounding="scaled")


class Builder:
    """Emits the quantization-aware graph of a flat model.

    Args:
        model: from `inlined`; its layers go into the new graph.
        weights: how kernels are rounded.
        ranges: see `FakeQuantize`.
        momentum: see `FakeQuantize`.
        activations: how activations are rounded.
        exclude: names or globs of layers that stay in float.

    Attributes:
        floats: what stays in float by the rules, by name, with the reason.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: WeightTypeName,
        ranges: RangeName,
        momentum: float,
        activations: ActivationTypeName = "int8",
        exclude: Sequence[str] = (),
    ) -> None:
        self.floats: dict[str, str] = {}
        self._model = model
        self._weights: WeightTypeName = weights
        self._activations: ActivationTypeName = activations
        self._options: dict[str, Any] = {
            "ranges": ranges,
            "momentum": momentum,
            "activation_type": activations,
        }
        self._fixed = FIXED_RANGES[activations]
        self._exclude = exclude
        self._calls = list(calls(model))
        self._rules = {id(call.outputs[0]): self._rule(call) for call in self._calls}
        self._ends = keras.tree.flatten(functional(model)._outputs_struct)
        self._uses = Counter(id(x) for call in self._calls for x in call.inputs)
        self._uses.update(id(x) for x in self._ends)
        self._reader = {id(x): call for call in self._calls for x in call.inputs}
        self._maker = {id(x): call for call in self._calls for x in call.outputs}
        self._names = {operation.name for operation in functional(model).operations}
        # A wrapper applies no other than the fused ones, and takes the others off its layer.
        self._functions = {
            id(call.operation): activation_name(call.operation)
            for call in self._calls
            if self._of(call).kind == "kernel"
        }
        self._folded = self._foldable()
        self._sets = self._shared()
        self._taken: set[str] = set()
        self._wrappers: dict[int, keras.Layer] = {}
        self._range_layers: dict[Hashable, FakeQuantize] = {}
        self._sites = Counter[Hashable]()
        self._counted: Counter[Hashable] | None = None

    def build(self) -> keras.Model:
        """The new model, of copies of the layers; its ranges are not known yet."""
        # How many sites a range has is known at the end, and its layer needs it at the beginning.
        self._emitted()
        self._counted = self._sites
        model = keras.Model(*self._emitted(), name=self._model.name)
        return with_output_names(model, functional(self._model).output_names)

    # -- what is known of the graph --

    def _rule(self, call: Call) -> Rule:
        rule = rule_of(call)
        name = call.operation.name
        if any(path_matches(name, pattern) for pattern in self._exclude):
            return Rule(None)
        if rule.kind is None:
            self.floats[name] = rule.reason
        return rule

    def _of(self, call: Call) -> Rule:
        return self._rules[id(call.outputs[0])]

    def _foldable(self) -> dict[int, keras.Layer]:
        """The BatchNorm that each layer takes in, by the id of the layer."""
        found: dict[int, keras.Layer] = {}
        for layer in {id(call.operation): call.operation for call in self._calls}.values():
            mine = [call for call in self._calls if call.operation is layer]
            if any(self._of(call).kind != "kernel" for call in mine):
                continue
            if self._functions[id(layer)] != "linear" or layer.activity_regularizer is not None:
                continue
            readers = [self._only_reader(call.outputs[0]) for call in mine]
            norm = readers[0].operation if readers[0] is not None else None
            if not isinstance(norm, keras.layers.BatchNormalization) or any(
                each is None or each.operation is not norm or self._of(each).kind != "scaled"
                for each in readers
            ):
                continue
            if len(readers) == sum(call.operation is norm for call in self._calls):
                found[id(layer)] = norm
        return found

    def _only_reader(self, x: Any) -> Call | None:
        return self._reader.get(id(x)) if self._uses[id(x)] == 1 else None

    def _shared(self) -> _Sets:
        sets = _Sets()
        for call in self._calls:
            rule = self._of(call)
            if rule.kind in ("moved", "averaged") or rule.function == "linear":
                sets.unite(id(call.inputs[0]), id(call.outputs[0]))
            if rule.kind == "joined":
                for x in call.inputs:
                    # The file rounds a range that is prescribed to the one of the others.
                    if not self._is_fixed(x):
                        sets.unite(id(x), id(call.outputs[0]))
        return sets

    def _is_fixed(self, x: Any) -> bool:
        call = self._maker.get(id(x))
        if call is None:
            return False
        rule = self._of(call)
        if rule.kind in ("moved", "averaged") or rule.function == "linear":
            return self._is_fixed(call.inputs[0])
        if rule.kind == "kernel":
            return self._functions[id(call.operation)] in self._fixed
        return rule.function in self._fixed

    def _goes_on(self, call: Call) -> bool:
        """Whether what reads a call is a part of the same operator of the file."""
        reader = self._only_reader(call.outputs[0])
        if reader is None:
            return False
        if self._takes_in(call, reader):
            return True
        rule = self._of(call)
        if rule.kind == "kernel":
            able = self._functions[id(call.operation)] == "linear"
            able = able and len(self._fused(call.operation)) > 1
        elif rule.kind == "scaled":
            maker = self._maker.get(id(call.inputs[0]))
            able = (
                len(self._fused(maker.operation)) > 1
                if maker is not None and self._takes_in(maker, call)
                else has_offset(call.operation)
            )
        else:
            sums = rule.kind == "constant" and isinstance(call.operation, Add | Subtract)
            able = rule.kind == "sum" or sums
        following = self._of(reader)
        return able and following.kind == "activation" and following.function in ("relu", "relu6")

    def _fused(self, layer: Any) -> tuple[str, ...]:
        """The activations that are a part of a layer's operator."""
        # The converter leaves ReLU an operator of its own behind a transposed convolution.
        return ("linear",) if isinstance(layer, TRANSPOSED_CONVOLUTIONS) else FUSED

    def _takes_in(self, call: Call, reader: Call) -> bool:
        return self._folded.get(id(call.operation)) is reader.operation

    def _is_folded(self, call: Call) -> bool:
        maker = self._maker.get(id(call.inputs[0]))
        return maker is not None and self._takes_in(maker, call)

    # -- emission --

    def _emitted(self) -> tuple[Any, Any]:
        """The inputs and outputs of the new graph."""
        values: dict[int, _Value] = {}
        graph = functional(self._model)
        self._taken, self._sites, self._wrappers, self._range_layers = set(), Counter(), {}, {}

        def fresh(x: Any) -> Any:
            made = keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name, sparse=x.sparse)
            values[id(x)] = _Value(made)
            return made

        inputs = keras.tree.map_structure(fresh, graph._inputs_struct)
        for call in self._calls:
            made = self._emit(call, values)
            if isinstance(made, _Value):
                values[id(call.outputs[0])] = made
            else:
                for x, y in zip(call.outputs, keras.tree.flatten(made), strict=True):
                    values[id(x)] = _Value(y)
        return inputs, keras.tree.map_structure(
            lambda x: self._read(x, values).tensor, graph._outputs_struct
        )

    def _emit(self, call: Call, values: dict[int, _Value]) -> Any:
        rule, operation, out = self._of(call), call.operation, call.outputs[0]
        if rule.kind is None:
            return self._called(call, {id(x): values[id(x)] for x in call.inputs})
        first = values[id(call.inputs[0])]
        if self._is_folded(call):
            return first if self._goes_on(call) else self._round(first, id(out), operation)
        if rule.kind == "moved" or rule.function == "linear":
            return replace(first, tensor=self._called(call, {id(call.inputs[0]): first}))
        if rule.kind == "activation":
            maker = self._maker.get(id(call.inputs[0]))
            if maker is None or not self._goes_on(maker) or first.range is not None:
                first = self._read(call.inputs[0], values)
            elif rule.function in FUSED:
                made = replace(first, tensor=self._called(call, {id(call.inputs[0]): first}))
                return self._round(made, id(out), operation)
            return self._activated(rule.function, first, call)
        read = {id(x): self._read(x, values) for x in call.inputs}
        if rule.kind == "averaged":
            (x,) = read.values()
            # Where TFLite divides by a count.
            averages = isinstance(
                operation, keras.layers.AveragePooling1D | keras.layers.AveragePooling2D
            )
            made = _Value(self._called(call, read), rounding="average" if averages else "up")
            return self._rounded_by(x.range, made, id(out))
        if rule.kind == "joined":
            joint = self._sets.of(id(out))
            read = {
                key: value
                if value.range is self._range_layers.get(joint)
                else self._round(_scaled(value.tensor, value, 1.0), id(out), operation)
                for key, value in read.items()
            }
            layer = self._range_layers[joint]
            return _Value(self._called(call, read), layer, next(iter(read.values())).step)
        made = self._computed(call, read)
        if self._goes_on(call):
            return made
        function = self._functions.get(id(operation)) or "linear"
        if function in self._fused(operation):
            return self._round(made, id(out), operation)
        inner = self._round(made, ("before", id(out)), operation)
        return self._activated(function, inner, call)

    def _computed(self, call: Call, read: dict[int, _Value]) -> _Value:
        """What a call gives before it is rounded, and how the file rounds that."""
        kind, operation = self._of(call).kind, call.operation
        if kind in ("kernel", "scaled"):
            (x,) = read.values()
            made, *beside = self._wrapper(call)(x.tensor, x.step)
            return _Value(made, None, None, tuple(beside), (), "sum" if beside[1:] else "product")
        if kind == "constant":
            return self._with_number(call, read)
        values = [read[id(x)] for x in call.inputs]
        steps = tuple(value.step for value in values)
        made = self._called(call, read)
        if kind == "own" and len(values) == 1:
            shapes = [x.shape[1:] for x in (call.inputs[0], call.outputs[0])]
            if any(None in shape for shape in shapes):
                # The count is not known, only its result.
                return _Value(made)
            before, after = (math.prod(shape) for shape in shapes)
            return _Value(made, None, None, steps, (after / before,), "product")
        if kind == "own":
            return _Value(made, None, None, steps, (), "product")
        less = isinstance(operation, keras.layers.Subtract | Subtract)
        tensors = tuple(value.tensor for value in values)
        return _Value(made, None, None, tensors + steps, (), "difference" if less else "sum")

    def _with_number(self, call: Call, read: dict[int, _Value]) -> _Value:
        """What a sum or product of a tensor and a number gives; the number has a range too."""
        (value,), number = read.values(), number_of(call)
        assert number is not None
        made = self._called(call, read)
        if isinstance(call.operation, DIVISIONS):
            number = 1 / number
        step = abs(number) / STEPS[self._activations]
        if not isinstance(call.operation, Add | Subtract):
            return _Value(made, None, None, (value.step,), (step,), "product")
        place = float(isinstance(operands(call)[0], keras.KerasTensor))
        less = isinstance(call.operation, Subtract)
        return _Value(
            made,
            None,
            None,
            (value.tensor, value.step),
            (place, number, step),
            "difference" if less else "sum",
        )

    def _called(self, call: Call, values: dict[int, _Value]) -> Any:
        args, kwargs = keras.tree.map_structure(
            lambda x: values[id(x)].tensor if isinstance(x, keras.KerasTensor) else x,
            (tuple(call.args), dict(call.kwargs)),
        )
        return call.operation(*args, **kwargs)

    def _read(self, x: Any, values: dict[int, _Value]) -> _Value:
        """A tensor as a rounded one, if it holds floats."""
        value = values[id(x)]
        if value.range is None and keras.backend.is_float_dtype(x.dtype):
            operation = x._keras_history.operation
            value = values[id(x)] = self._round(value, id(x), operation)
        return value

    def _wrapper(self, call: Call) -> keras.Layer:
        layer: Any = call.operation
        if id(layer) not in self._wrappers:
            options = {"name": layer.name, "dtype": layer.dtype_policy}
            if self._of(call).kind == "scaled":
                made = QuantizedScale(layer, **self._options, **options)
            else:
                if self._functions[id(layer)] not in self._fused(layer):
                    layer.activation = keras.activations.linear
                made = QuantizedLayer(layer, self._folded.get(id(layer)), self._weights, **options)
            self._wrappers[id(layer)] = made
        return self._wrappers[id(layer)]

    def _activated(self, function: str, x: _Value, call: Call) -> _Value:
        """What an activation makes of a rounded tensor; a new layer computes it."""
        operation: Any = call.operation
        out = id(call.outputs[0])
        name = self._fresh(operation.name, function)
        if function == "silu":
            gate = keras.layers.Activation("sigmoid", name=self._fresh(operation.name, "gate"))
            opened = self._round_fixed(gate(x.tensor), "sigmoid", operation)
            made = keras.layers.Multiply(name=name)([x.tensor, opened.tensor])
            product = _Value(made, beside=(x.step, opened.step), rounding="product")
            return self._round(product, out, operation)
        if function == "hard_sigmoid" and self._activations == "int8":
            # Its sixths, and the ends of the range clip.
            line = keras.layers.Rescaling(1 / 6, 0.5, name=name, dtype=operation.dtype_policy)
            options = {"name": name, "dtype": operation.dtype_policy}
            made, *beside = QuantizedScale(line, **self._options, **options)(x.tensor, x.step)
            layer = FakeQuantize(1, fixed=(0.0, 1.0), clips=True, **self._named(operation))
            rounded, step = layer(made, beside=beside, rounding="sum")
            return _Value(rounded, layer, step)
        if function == "prelu" and self._activations == "int16":
            # The file computes it in float.
            return self._round(_Value(self._called(call, {id(call.inputs[0]): x})), out, operation)
        if function == "prelu":
            options = {"name": operation.name, "dtype": operation.dtype_policy}
            if id(operation) not in self._wrappers:
                self._wrappers[id(operation)] = QuantizedPReLU(operation, **options)
            made = self._wrappers[id(operation)](x.tensor)
            return self._round(_Value(made, rounding="up"), out, operation)
        if function == "leaky_relu":
            slope = slope_of(operation)
            made = keras.layers.LeakyReLU(slope, name=name)(x.tensor)
            return self._round(_scaled(made, x, slope), out, operation)
        if isinstance(operation, Gelu):
            # It may be the approximation.
            return self._round(_Value(self._called(call, {id(call.inputs[0]): x})), out, operation)
        made = keras.layers.Activation(function, name=name)(x.tensor)
        if function in self._fixed:
            return self._round_fixed(made, function, operation)
        return self._round(_Value(made), out, operation)

    def _round(self, value: _Value, key: Hashable, operation: Any) -> _Value:
        """Rounds a tensor to the range of the set that a key is in."""
        joint = self._sets.of(key)
        if joint not in self._range_layers:
            sites = 1 if self._counted is None else self._counted[joint]
            self._range_layers[joint] = FakeQuantize(
                sites, **self._options, **self._named(operation)
            )
        return self._rounded_by(self._range_layers[joint], value, key)

    def _rounded_by(self, layer: FakeQuantize | None, value: _Value, key: Hashable) -> _Value:
        assert layer is not None
        joint = self._sets.of(key)
        site = self._sites[joint]
        self._sites[joint] += 1
        if self._counted is None:
            # Nothing is computed yet.
            return _Value(value.tensor, layer, keras.KerasTensor((), "float32"))
        given: dict[str, Any] = {"site": site if layer.sites > 1 else 0}
        if self._activations == "int8":
            # Steps of int16 are so small that how a half is rounded says nothing.
            given |= {
                "beside": list(value.beside),
                "numbers": list(value.numbers),
                "rounding": value.rounding,
            }
        # Keras writes down what a call is given: only what is not the default.
        plain = {"beside": [], "numbers": [], "site": 0, "rounding": "even"}
        options = {key: each for key, each in given.items() if each != plain[key]}
        rounded, step = layer(value.tensor, **options)
        return _Value(rounded, layer, step)

    def _round_fixed(self, x: Any, function: str, operation: Any) -> _Value:
        layer = FakeQuantize(
            1,
            fixed=self._fixed[function],
            activation_type=self._activations,
            **self._named(operation),
        )
        rounded, step = layer(x)
        return _Value(rounded, layer, step)

    def _named(self, operation: Any) -> dict[str, Any]:
        """The options of a layer that rounds what an operation gives."""
        policy = getattr(operation, "dtype_policy", None)
        return {"name": self._fresh(operation.name, "range"), "dtype": policy}

    def _fresh(self, name: str, what: str) -> str:
        fresh = unused_name(f"{name}_{what}", self._names | self._taken)
        self._taken.add(fresh)
        return fresh
