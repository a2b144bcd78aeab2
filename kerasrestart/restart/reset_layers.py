"""Re-initialises whole layers, the whole model or the optimizer's state, in place of filters.

`kerasrestart.restart.remedies` has each as an object for `PartialRestart(reset=...)`.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network.arguments import check, check_share, check_whole, is_number
from kerasrestart.network.filter_layers import find_filter_layers
from kerasrestart.network.keras_internals import (
    configurable_learning_rate,
    layers_inside,
    trained_by,
)
from kerasrestart.network.names import layer_keys
from kerasrestart.network.operations import NORMS
from kerasrestart.network.optimizers import leaves
from kerasrestart.network.text import did_you_mean, one_line
from kerasrestart.network.traced_graph import check_model, is_listed
from kerasrestart.restart import slots
from kerasrestart.restart.initializers import derive_seed
from kerasrestart.restart.optimizers import check_optimizers, optimizers_of
from kerasrestart.restart.writing import Replacement, plan_writes


def reset_layer(
    model: keras.Model, layers: str | Sequence[str], *, seed: int = 0, optimizer: Any = None
) -> None:
    """Re-initialises whole layers as their own initializers draw them.

    Example:
    ```python
    kerasrestart.reset_layer(model, "logits", seed=1)  # a new head for a new task
    ```

    Any layer can be reset, output layers too. The norm that belongs to a layer with filters is
    reset with it, and so is the optimizer state of all these weights. Weights that do not train
    stay, except the statistics of norms that do.

    Source: for the last layers of a network, RIFLE: Li et al., "RIFLE: Backpropagation in Depth for
    Deep Transfer Learning through Re-Initializing the Fully-connected LayEr" (ICML 2020).

    Args:
        model: A built model.
        layers: Name of a layer, or several; a path such as `"block/conv"` where names are not
            unique, as `kerasrestart.describe` shows it.
        seed: 0 or more. The weights are a function of it and of the layer's place. Defaults to 0.
        optimizer: The Keras optimizer whose state is reset, or several. Defaults to None: those of
            the model.

    Raises:
        ValueError: There is no layer of that name, several have it, it has no weights that train,
            or it cannot be made again from its config; or the optimizer's slots are not known.
        TypeError: `model` is not a Keras model.
    """
    check_model(model)
    check_whole("seed", seed, 0)
    chosen = [_layer_named(model, name) for name in checked_names(layers)]
    norms = _norms(model)
    chosen += [norms[id(layer)] for layer in chosen if id(layer) in norms]
    _reset(model, chosen, seed, optimizer)


def reset_model(model: keras.Model, *, seed: int = 0, optimizer: Any = None) -> None:
    """Re-initialises all layers that train, and the whole state of the optimizers.

    Example:
    ```python
    kerasrestart.reset_model(model, seed=1)  # trains from scratch
    ```

    Frozen layers stay. The learning rate stays as it is now.

    Args:
        model: A built model.
        seed: 0 or more. Defaults to 0.
        optimizer: The Keras optimizer whose state is reset, or several. Defaults to None: those of
            the model.

    Raises:
        ValueError, TypeError: As `reset_layer`, or as `reset_optimizer`.
    """
    check_model(model)
    check_whole("seed", seed, 0)
    check_optimizers(model, optimizer)
    reset_state = _new_optimizers(model, optimizer)
    _reset(model, [model], seed, optimizer)
    reset_state()


def shrink_and_perturb(
    model: keras.Model, shrink: float, perturb: float, *, seed: int = 0, optimizer: Any = None
) -> None:
    """Shrinks all weights that train, and adds noise: `shrink * weight + perturb * N(0, 1)`.

    Example:
    ```python
    kerasrestart.shrink_and_perturb(model, 0.4, 0.01, seed=1)  # before training on more data
    ```

    The statistics of norms stay. The paper makes a new optimizer each time, and so the state of
    this one is reset, too.

    Source: Ash and Adams, "On Warm-Starting Neural Network Training" (NeurIPS 2020), section 4.

    Args:
        model: A built model.
        shrink: What weights are multiplied by, from 0 to 1.
        perturb: Standard deviation of the noise, 0 or more.
        seed: 0 or more. Defaults to 0.
        optimizer: The Keras optimizer whose state is reset, or several. Defaults to None: those of
            the model.

    Raises:
        ValueError, TypeError: An argument is out of range; or as `reset_optimizer`.
    """
    check_model(model)
    check_whole("seed", seed, 0)
    check_shrink(shrink, perturb)
    check_optimizers(model, optimizer)
    reset_state = _new_optimizers(model, optimizer)
    replacements = []
    for place, variable in enumerate(model.trainable_variables):
        # A kernel that trains in float16 is drawn in float32.
        noise = keras.random.normal(variable.shape, dtype="float32", seed=derive_seed(seed, place))
        old = tf.cast(tf.convert_to_tensor(variable.value), tf.float32)
        replacements.append(_whole(variable, shrink * old + perturb * noise))
    for write in plan_writes(replacements, model.distribute_strategy):
        write.apply()
    reset_state()


def reset_optimizer(model: keras.Model, *, optimizer: Any = None) -> None:
    """Sets the state of all optimizers of a model to that of new ones.

    Example:
    ```python
    kerasrestart.reset_optimizer(model)  # before a new task
    ```

    These are the slots and the count of steps, and with it Adam's bias correction and the place in
    a schedule. A learning rate that is a number stays as it is now, and so does a loss scale.

    Args:
        model: A model. Optimizers that are not built have no state.
        optimizer: The Keras optimizer, or several. Defaults to None: those of the model.

    Raises:
        ValueError: The layout of an optimizer's slots is not known.
        TypeError: `model` is not a Keras model.
    """
    check_model(model)
    check_optimizers(model, optimizer)
    _new_optimizers(model, optimizer)()


def checked_names(layers: Any) -> tuple[str, ...]:
    """The names of layers as a tuple; raises ValueError where they are none."""
    names = (layers,) if isinstance(layers, str) else layers
    right = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    check("layers", layers, right and bool(names), "the name of a layer, or several")
    return tuple(names)


def check_shrink(shrink: float, perturb: float) -> None:
    """Raises ValueError where an argument of `shrink_and_perturb` is out of range."""
    check_share("shrink", shrink, low=True, high=True)
    check("perturb", perturb, is_number(perturb) and perturb >= 0, "a number, 0 or more")


def check_reset(model: keras.Model, layers: str | Sequence[str] | None) -> None:
    """Checks that `reset_layer`, or `reset_model` with `layers=None`, can reset a model.

    Raises:
        ValueError: As these.
    """
    roots = [model] if layers is None else [_layer_named(model, n) for n in checked_names(layers)]
    for layer in _inside(roots):
        list(_fresh(layer, seed=0))


def _new_optimizers(model: keras.Model, optimizer: Any) -> Callable[[], None]:
    """Makes new optimizers; returns what gives their state to those of the model."""
    pairs = []
    for one in optimizers_of(model, optimizer):
        for leaf in filter(lambda leaf: leaf.built, leaves(one)):
            with model.distribute_strategy.scope(), configurable_learning_rate(leaf):
                new = type(leaf).from_config(leaf.get_config())
                new.build(trained_by(leaf))
            pairs.append((leaf, new))

    def reset_state() -> None:
        for leaf, new in pairs:
            for variable, initial in zip(leaf.variables, new.variables, strict=True):
                variable.assign(initial.value)
            for weight in trained_by(leaf):  # an average begins at the weight as it is now
                slots.reset_slots(leaf, weight, np.ones(weight.shape, bool))

    return reset_state


def _layer_named(model: keras.Model, name: str) -> keras.Layer:
    inside = {id(layer): layer for layer in layers_inside(model)}.values()
    keys, described = layer_keys(model, lambda layer: True), layer_keys(model, is_listed)
    # As `describe` does, which looks for equal names among the layers that it lists alone.
    keys |= {id(layer): described[id(layer)] for layer in inside if is_listed(layer)}
    found = [layer for layer in inside if keys[id(layer)] == name]
    found = [layer for layer in found if is_listed(layer)] or found
    found = found or [layer for layer in inside if layer.path == name]
    if len(found) != 1:
        count = sum(name in (layer.name, layer.path) for layer in inside)
        what = f"has {count} layers" if count else "has no layer"
        known = [keys[id(layer)] for layer in inside if layer.trainable_variables]
        raise ValueError(
            f"layers must be one of {known}: model {model.name!r} {what} of that name. Received: "
            f"{name!r}{did_you_mean(name, known)}"
        )
    if not found[0].built:
        raise ValueError(
            "layers must be of a model that was called once on a batch of its inputs, model(x). "
            f"Received: {name!r}, which is not built"
        )
    if not found[0].trainable_variables:
        raise ValueError(f"layers must have weights that train. Received: {name!r}, which has none")
    return found[0]


def _norms(model: keras.Model) -> dict[int, keras.Layer]:
    """The norm that belongs to each layer with filters, by `id` of the layer."""
    try:
        found = find_filter_layers(model, ".*").layers.values()
    except (TypeError, ValueError):  # no layer whose norm could be known
        return {}
    return {id(one.layer): one.norm for one in found if one.norm is not None}


def _reset(model: keras.Model, roots: Iterable[keras.Layer], seed: int, optimizer: Any) -> None:
    check_optimizers(model, optimizer)
    every = {id(layer): place for place, layer in enumerate([model, *layers_inside(model)])}
    # Everything is drawn before anything is written, so that an error leaves the model unchanged.
    replacements = [
        replacement
        for layer in _inside(roots)
        for replacement in _fresh(layer, derive_seed(seed, every[id(layer)]))
    ]
    for write in plan_writes(replacements, model.distribute_strategy):
        write.apply()
    for one in optimizers_of(model, optimizer):
        for variable, _, mask in replacements:
            slots.reset_slots(one, variable, mask)


def _inside(roots: Iterable[keras.Layer]) -> list[keras.Layer]:
    """Layers with all that they hold, each once."""
    found = {id(inner): inner for root in roots for inner in [root, *layers_inside(root)]}
    return list(found.values())


def _fresh(layer: keras.Layer, seed: int) -> Iterator[Replacement]:
    """Yields initial values of the weights that a layer itself holds, without those inside it."""
    own = _own_weights(layer)
    if not own or not layer.trainable:
        return
    try:
        with _default_seeds(seed):
            new = type(layer).from_config(_seeded(layer.get_config(), seed))
            new.build_from_config(layer.get_build_config())
        initial = _own_weights(new)
        shapes = [tuple(variable.shape) for variable in initial]
        if shapes != [tuple(variable.shape) for variable in own]:
            raise ValueError(f"its weights would have the shapes {shapes}")
    except Exception as error:
        raise ValueError(
            f"Layer {layer.path!r} cannot be made again from its config: get_config and build must "
            f"make its weights. Received: a layer of class {type(layer).__name__}, which raised "
            f"{one_line(error, 200)}"
        ) from error
    statistics_train = isinstance(layer, NORMS)
    for variable, value in zip(own, initial, strict=True):
        # A norm's statistics never train as such. What else does not train stays: a kernel that is
        # frozen by itself or quantized, or what `Normalization.adapt` has learned of the data.
        if variable.trainable or (statistics_train and not value.trainable):
            if not np.isfinite(np.asarray(value.value, np.float64)).all():
                raise ValueError(
                    f"The initializers of layer {layer.path!r} must draw finite numbers. Received: "
                    f"infinite numbers or NaN for {variable.path}"
                )
            yield _whole(variable, tf.convert_to_tensor(value.value))


def _own_weights(layer: keras.Layer) -> list[keras.Variable]:
    inner = {id(v) for inside in layers_inside(layer) for v in inside.weights}
    return [v for v in layer.weights if id(v) not in inner]


def _whole(variable: keras.Variable, new: tf.Tensor) -> Replacement:
    return Replacement(variable, new, np.ones(variable.shape, bool))


@contextlib.contextmanager
def _default_seeds(seed: int) -> Iterator[None]:
    """Seeds the generator from which Keras seeds initializers that have no seed of their own."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _seeded(config: Any, seed: int) -> Any:
    """Replaces all seeds of a config, each by one of its own."""
    places = itertools.count()

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                key: derive_seed(seed, next(places)) if key == "seed" else walk(value)
                for key, value in part.items()
            }
        return type(part)(map(walk, part)) if type(part) in (list, tuple) else part

    return walk(config)
