"""Tickets nest, begin where they are rewound to, and their controls differ in one thing each."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.errors import UsageError
from tfprune.weights import Lottery, prunable, tickets


def _kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for _, variable in prunable(model)]


class Shaken:
    """A training that multiplies every weight by something drawn; notes where each one began."""

    def __init__(self) -> None:
        self.starts: list[list[np.ndarray]] = []
        self.ends: list[list[np.ndarray]] = []
        self._rng = np.random.default_rng(0)

    def __call__(self, model, callbacks):
        self.starts.append(model.get_weights())
        model.set_weights(
            [value * self._rng.normal(1, 1, value.shape) for value in model.get_weights()]
        )
        self.ends.append(model.get_weights())
        return len(self.starts)


@pytest.fixture
def fitted(data):
    """Really trains, on all examples at once, so that each epoch is one step."""

    def train(model, callbacks, optimizer="adam", epochs=6):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # A few steps are over before a graph is traced.
        model.compile(optimizer, loss, run_eagerly=True)
        return model.fit(
            *data, batch_size=64, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0
        )

    return train


@pytest.mark.filterwarnings("ignore:lottery, level .. the sparsity would have left")
@settings(max_examples=25, deadline=None)
@given(
    share=st.floats(0, 0.9),
    own=st.none() | st.floats(0, 1),
    rounds=st.integers(1, 4),
    one_shot=st.booleans(),
    scope=st.sampled_from(["layer", "global"]),
)
def test_masks_nest_and_have_the_density_of_their_level(share, own, rounds, one_shot, scope):
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(7), keras.layers.Dense(3, name="last")]
    )
    layers = {"last": own} if own is not None and scope == "layer" else None
    lottery = Lottery(rounds, share, layers, scope, one_shot=one_shot)
    drawn = list(tickets(model, Shaken(), lottery))
    assert [each.level for each in drawn] == [0, *([rounds] if one_shot else range(1, rounds + 1))]
    before = drawn[0].masks
    assert all(mask.all() for mask in before.values())
    for ticket in drawn[1:]:
        kept = [1 - share, 1 - share if layers is None else 1 - own]
        wanted = [size * part**ticket.level for size, part in zip((35, 21), kept, strict=True)]
        alive = [np.count_nonzero(mask) for mask in ticket.masks.values()]
        if scope == "global":
            wanted, alive = [sum(wanted)], [sum(alive)]
        # One weight stays in each tensor, whatever the share.
        wanted = np.maximum(wanted, len(before) / len(alive))
        np.testing.assert_allclose(alive, wanted, atol=0.5 + 1e-6)
        assert all(mask.any() for mask in ticket.masks.values())
        assert ticket.density == sum(alive) / 56
        for name, mask in ticket.masks.items():
            assert not np.any(mask & ~before[name])
        for mask, kernel in zip(ticket.masks.values(), _kernels(ticket.model), strict=True):
            assert not kernel[~mask].any()
        before = ticket.masks


def test_the_smallest_trained_weights_die(make_model):
    train = Shaken()
    _, first, second = tickets(make_model(), train, Lottery(2, 0.5))
    for before, ticket in ((0, first), (1, second)):
        for place, mask in zip((0, 2), ticket.masks.values(), strict=True):
            trained = np.abs(train.ends[before][place])
            old = trained > 0
            assert trained[mask].min() >= trained[old & ~mask].max()


def test_tickets_begin_at_mask_times_initial_weights(make_model):
    model, train = make_model(), Shaken()
    for ticket in tickets(model, train, Lottery(2, 0.5)):
        kernels = iter(ticket.masks.values())
        for start, early in zip(train.starts[-1], model.get_weights(), strict=True):
            mask = next(kernels) if early.ndim == 2 else True
            np.testing.assert_array_equal(start, np.where(mask, early, 0))


@pytest.mark.parametrize("rewind", ["lr", "finetune"])
def test_rewinding_the_learning_rate_keeps_the_weights(make_model, rewind):
    train, finetune = Shaken(), Shaken()
    drawn = list(tickets(make_model(), train, Lottery(2, 0.5, rewind=rewind), finetune=finetune))
    trainings = [(train, 0), (train, 1), (train, 2)]
    if rewind == "finetune":
        trainings = [(train, 0), (finetune, 0), (finetune, 1)]
    for level in (1, 2):
        (before, last), (now, this) = trainings[level - 1], trainings[level]
        kernels = iter(drawn[level].masks.values())
        for start, trained in zip(now.starts[this], before.ends[last], strict=True):
            mask = next(kernels) if trained.ndim == 2 else True
            np.testing.assert_array_equal(start, np.where(mask, trained, 0))


def test_tickets_rewound_to_a_step_begin_there(make_model, fitted):
    starts = []

    def train(model, callbacks):
        starts.append(model.get_weights())
        return fitted(model, callbacks)

    _, ticket = tickets(make_model(), train, Lottery(1, 0.5, rewind=2))
    # The same training, cut short.
    early = make_model()
    fitted(early, [], epochs=2)
    kernels = iter(ticket.masks.values())
    for start, value in zip(starts[1], early.get_weights(), strict=True):
        mask = next(kernels) if value.ndim == 2 else True
        np.testing.assert_array_equal(start, np.where(mask, value, 0))
    # Six steps less two.
    assert len(ticket.result["loss"]) == 4


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_nothing_pruned_and_rewound_to_a_step_ends_where_the_dense_training_ended(
    make_model, fitted, optimizer
):
    def train(model, callbacks):
        rate = keras.optimizers.schedules.CosineDecay(0.05, 6)
        kind = keras.optimizers.Adam if optimizer == "adam" else keras.optimizers.SGD
        own = kind(rate) if optimizer == "adam" else kind(rate, momentum=0.9)
        return fitted(model, callbacks, own)

    dense, again = tickets(make_model(), train, Lottery(1, 0.0, rewind=3))
    for one, other in zip(dense.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.result["loss"] == dense.result["loss"][3:]


def test_the_reinit_control_has_the_tickets_masks_and_other_weights(make_model):
    train = Shaken()
    lottery = Lottery(2, 0.5, controls=["reinit"])
    drawn = list(tickets(make_model(), train, lottery))
    assert [(each.level, each.method) for each in drawn[1:]] == [
        (1, "ticket"),
        (1, "reinit"),
        (2, "ticket"),
        (2, "reinit"),
    ]
    for place in (1, 3):
        ticket, control = drawn[place], drawn[place + 1]
        for mask, own in zip(ticket.masks.values(), control.masks.values(), strict=True):
            np.testing.assert_array_equal(mask, own)
        for mask, mine, others in zip(
            ticket.masks.values(),
            train.starts[place][::2],
            train.starts[place + 1][::2],
            strict=True,
        ):
            np.testing.assert_array_equal(others != 0, mask)
            assert not np.isclose(mine[mask], others[mask]).any()


def test_the_random_control_has_the_density_of_each_layer_and_nests(make_model):
    lottery = Lottery(3, 0.4, scope="global", controls=["random"])
    drawn = list(tickets(make_model(), Shaken(), lottery))
    before = None
    for ticket, control in zip(drawn[1::2], drawn[2::2], strict=True):
        assert control.method == "random"
        for name, mask in ticket.masks.items():
            assert np.count_nonzero(mask) == np.count_nonzero(control.masks[name])
            assert before is None or not np.any(control.masks[name] & ~before[name])
        assert any((mask != control.masks[name]).any() for name, mask in ticket.masks.items())
        before = control.masks


@pytest.mark.slow
def test_controls_do_not_change_the_tickets(make_model, fitted):
    plain = list(tickets(make_model(), fitted, Lottery(1, 0.5)))
    lottery = Lottery(1, 0.5, controls=["reinit", "random"])
    beside = [each for each in tickets(make_model(), fitted, lottery) if each.method == "ticket"]
    for one, other in zip(plain, beside, strict=True):
        for mine, theirs in zip(_kernels(one.model), _kernels(other.model), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_weights_that_are_zero_to_begin_with_live(make_model, fitted):
    model = make_model(kernel_initializer="zeros", bias_initializer="ones")
    *_, ticket = tickets(model, fitted, Lottery(2, 0.25))
    (first, last), (mask, _) = _kernels(ticket.model), ticket.masks.values()
    assert np.count_nonzero(mask) == 27
    assert first[mask].any()
    assert not first[~mask].any()
    assert last.any()


def test_the_model_stays_as_it_is_and_nothing_stays_in_tickets(make_model, fitted):
    model = make_model()
    before = model.get_weights()
    drawn = list(tickets(model, fitted, Lottery(1, 0.5, rewind=1, controls=["random"])))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(v.constraint is None for each in drawn for _, v in prunable(each.model))


def test_excluded_and_frozen_layers_stay_dense(make_model):
    model = make_model()
    (_, ticket) = tickets(model, Shaken(), Lottery(1, 0.5, exclude=["last"]))
    assert list(ticket.masks) == ["first/kernel"]
    assert ticket.density == 0.5
    model.get_layer("first").trainable = False
    (_, ticket) = tickets(model, Shaken(), Lottery(1, 0.5))
    assert list(ticket.masks) == ["last/kernel"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "rounds is 0; there must be at least 1"),
        (
            {"rounds": 1, "rewind": "weights"},
            "rewind is 'weights'; choose 'init', 'lr', 'finetune', or the step of the dense "
            "training to rewind to",
        ),
        (
            {"rounds": 1, "rewind": -1},
            "rewind is -1; choose 'init', 'lr', 'finetune', or the step of the dense training to "
            "rewind to",
        ),
        (
            {"rounds": 1, "controls": ["redraw"]},
            "controls: 'redraw' is unknown; choose 'reinit' and 'random'",
        ),
        (
            {"rounds": 1, "layers": {"a": 0.1}, "scope": "global"},
            "layers have shares of their own only under the scope 'layer'",
        ),
        (
            {"rounds": 1, "rewind": "finetune"},
            'rewind="finetune" trains with another learning rate: give that function as finetune',
        ),
        (
            {"rounds": 1, "exclude": ["*"]},
            "nothing to prune in the model 'mine': it must have trainable kernels that are not "
            "excluded",
        ),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_trains(make_model, options, said):
    model = make_model()
    model.name = "mine"
    with pytest.raises(UsageError) as caught:
        tickets(model, Shaken(), Lottery(**options))
    assert str(caught.value) == said


def test_a_training_without_its_callbacks_is_found_out(make_model, fitted):
    def careless(model, callbacks):
        return fitted(model, [])

    drawn = tickets(make_model(), careless, Lottery(1, 0.5))
    next(drawn)
    with pytest.raises(UsageError, match="train: pruned weights of 'first' came back: give the"):
        next(drawn)
    with pytest.raises(UsageError, match="train ended after 0 steps, before step 2 to rewind to"):
        next(tickets(make_model(), careless, Lottery(1, 0.5, rewind=2)))
