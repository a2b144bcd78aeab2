"""All uses of private Keras attributes, in one place: what to check when Keras changes.

The names of optimizers' slots are in the table of `restart/slots.py`, with their initial values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state


def layers_inside(layer: keras.Layer) -> list[keras.Layer]:
    """All layers that a layer holds, at any depth, without itself."""
    return layer._flatten_layers(include_self=False)


def direct_sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that a layer holds on its own attributes."""
    return layer._flatten_layers(include_self=False, recursive=False)


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables that a layer holds on its own attributes."""
    return layer._trainable_variables + layer._non_trainable_variables


def call_method(layer: keras.Layer) -> str:
    """The name of the method that a call of a layer runs."""
    return "quantized_call" if getattr(layer, "quantization_mode", None) else "call"


def takes_training(layer: keras.Layer) -> bool:
    """Whether the `call` of a layer has an argument `training`."""
    return bool(layer._call_has_training_arg)


def input_structure(model: keras.Model) -> Any:
    """The symbolic inputs of a Functional or built Sequential model, else None."""
    functional = getattr(model, "_functional", None) or model
    return getattr(functional, "_inputs_struct", None)


def compute_loss(
    model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, *, training: bool
) -> Any:
    """The loss as Keras's own step takes it: a `compute_loss` need not have all arguments."""
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def record_loss(model: keras.Model, loss: Any, batch_size: Any) -> None:
    """Adds a batch to the metric `loss` of a model."""
    model._loss_tracker.update_state(loss, sample_weight=batch_size)


def given_learning_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate: a variable where it is a number, else the schedule or function."""
    return optimizer._learning_rate


@contextlib.contextmanager
def configurable_learning_rate(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Gives an optimizer a schedule that has a config, in place of one that need not have any."""
    before = given_learning_rate(optimizer)
    if isinstance(before, keras.Variable):
        yield
        return
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.0])
    object.__setattr__(optimizer, "_learning_rate", schedule)
    try:
        yield
    finally:
        object.__setattr__(optimizer, "_learning_rate", before)


def added_losses(layer: keras.Layer) -> list[Any]:
    """The losses that calls have added to a layer and to all layers that it holds."""
    return [loss for inner in layer._flatten_layers() for loss in inner._losses]


def forget_losses(layer: keras.Layer) -> None:
    """Drops the losses that calls have added to a layer and to all layers that it holds."""
    layer._clear_losses()


def trained_by(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that a built optimizer trains, without those of optimizers inside it."""
    return list(optimizer._trainable_variables)


def index_in(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int | None:
    """The place of a variable among those that an optimizer trains; None if it is not one."""
    # The optimizer's own key, by identity: it also finds the backend's variable inside a Keras one.
    return optimizer._trainable_variables_indices.get(optimizer._var_key(variable))


def slot_of(
    optimizer: keras.optimizers.Optimizer, name: str, variable: keras.Variable
) -> keras.Variable | None:
    """The slot of a variable that an optimizer trains; None if it has none of this name.

    Args:
        optimizer: A built optimizer.
        name: The attribute that holds the slots of one kind.
        variable: A variable that it trains.
    """
    of_all = getattr(optimizer, name, None)
    if isinstance(of_all, Mapping):  # Muon of Keras 3.10 uses the path
        return of_all.get(variable.path)
    return of_all[index_in(optimizer, variable)] if of_all else None


def unused_slots(optimizer: keras.optimizers.Optimizer, name: str) -> list[keras.Variable]:
    """The slots of one kind that are never used, of variables that an optimizer was given twice.

    Keras makes slots for both, and uses the last.

    Args:
        optimizer: A built optimizer.
        name: The attribute that holds the slots.
    """
    of_all = getattr(optimizer, name, None)
    if not isinstance(of_all, Sequence):
        return []
    pairs = zip(trained_by(optimizer), of_all, strict=False)
    return [one for place, (v, one) in enumerate(pairs) if index_in(optimizer, v) != place]


@contextlib.contextmanager
def layer_names_from_start() -> Iterator[None]:
    """Names layers as in a new process: the first `Conv2D` inside is `conv2d`, whatever exists."""
    key = "object_name_uids"
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(key, before)
