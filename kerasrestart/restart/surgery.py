"""Gives chosen filters new weights, and leaves every other number of the model as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import FilterLayer, FilterLayers, find_filter_layers
from kerasrestart.network.kernels import WITH_FILTERS
from kerasrestart.network.paths import Path
from kerasrestart.restart import initializers, slots
from kerasrestart.restart.compensation import compensations
from kerasrestart.restart.initializers import derive_seed
from kerasrestart.restart.outgoing import outgoing_masks, outgoing_paths
from kerasrestart.restart.reset import check_outgoing

FRESH_NORM = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


def restart_filters(
    model: keras.Model,
    chosen: Mapping[str, Sequence[int] | np.ndarray],
    *,
    initializer: Any = "uniform",
    outgoing: str = "keep",
    second_moment: str = "zero",
    reset_norm: bool = True,
    reader_input_means: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    found: FilterLayers | None = None,
) -> None:
    """Re-initialises the chosen filters of a model in place.

    For each chosen filter: its incoming weights are drawn anew, its bias by the layer's own
    `bias_initializer`; its channel of the norm that belongs to it, and of the batch norms that it
    passes by itself further on (behind a concatenation; with `outgoing="zero"` also behind a
    depthwise convolution), where these are trainable, becomes that of a new layer (gamma 1, beta 0,
    moving mean 0, moving variance 1); the optimizer's slots for just these numbers become those of
    a new weight. All else stays bit for bit. Nothing is changed if an argument is refused.

    Args:
        model: A built Functional or Sequential model. Its optimizer is looked after if it has one.
        chosen: By layer name, the indices of the filters, as `select_filters` gives them. Layers of
            any kind in `kerasrestart.network.kernels.WITH_FILTERS`, dense ones among them.
        initializer: See `kerasrestart.restart.initializers.get`. Defaults to `"uniform"`.
        outgoing: What becomes of the weights by which other layers read the filters: `"keep"`
            leaves them (the paper's: the function of the network jumps); `"zero"` sets them to
            zero, so that new filters change nothing until they have learned, and where the filters
            gave nothing the network computes the same function as before. Of two new filters in
            layers that follow each other, the second is drawn whole, with what it reads of the
            first. A depthwise filter that reads a new one stays, and the weights that read the
            depthwise filter count as outgoing. Defaults to `"keep"`.
        second_moment: See `kerasrestart.restart.slots.reset_slots`. Defaults to `"zero"`.
        reset_norm: Whether the channels of norms begin anew; else they stay. Defaults to True.
        reader_input_means: What layers read on average, as `kerasrestart.reader_input_means` gives it: with
            `outgoing="zero"` the bias of each reader takes up what the filters gave it on average,
            or the moving mean of a batch norm behind a reader without one. Defaults to None: what
            they gave is lost.
        seed: The new weights are a function of the seed and of which of the model's layers with
            filters it is, whichever others take part: a second restart needs another seed to draw
            others. Defaults to 0.
        found: The survey of the model, where it is known already. Defaults to None: it is made.

    Raises:
        ValueError: A layer, index, initializer, `outgoing` or `second_moment` is not known; a layer
            would lose all of its filters; the optimizer's slots are not known; with
            `outgoing="zero"`: the outgoing weights are not the filters' own, or a filter's new
            incoming weights are all zero too, so that it would never learn again; with
            `reader_input_means`: a reader has neither a bias nor a batch norm, or its means are missing.
        TypeError: The model has no graph.
    """
    check_outgoing(outgoing, compensates=reader_input_means is not None)
    slots.check_second_moment(second_moment)
    rule = initializers.get(initializer)
    found = find_filter_layers(model, ".*") if found is None else found
    filter_layers = found.layers
    taken = {name: _checked(filter_layers, name, filters) for name, filters in chosen.items()}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        slots.check_slots(optimizer)
    if rule is None:
        return
    if rule is initializers.slots and outgoing != "keep":
        raise ValueError(
            "initializer='slots' changes no weight: expected outgoing='keep'. "
            f"Received: outgoing={outgoing!r}"
        )
    # All is drawn before anything is replaced, so that a rule that fails leaves the model whole.
    replacements, shifts = [], []
    channels = ChannelMap(found.graph)
    if outgoing == "zero":
        check_adafactor(optimizer, second_moment)
        # First, so that where a filter's outgoing weights are another's incoming ones, these are
        # new: a filter with nothing but zeros on both sides would stay so for ever.
        paths = outgoing_paths(channels, filter_layers, taken)
        for kernel, mask in outgoing_masks(paths):
            replacements.append((kernel, tf.zeros(kernel.shape), mask))
        if reader_input_means is not None:
            shifts = list(compensations(found.graph, paths, taken, reader_input_means))
    else:
        used = {name: filters for name, filters in taken.items() if len(filters)}
        paths = {name: channels.path(filter_layers[name].layer, used[name]) for name in used}
    first_calls = (call.operation for call in found.graph.calls if call.occurrence == 0)
    with_filters = (layer for layer in first_calls if isinstance(layer, WITH_FILTERS))
    numbers = {id(layer): number for number, layer in enumerate(with_filters)}
    for name, filter_layer in filter_layers.items():
        if len(taken.get(name, ())):
            own_seed = derive_seed(seed, numbers[id(filter_layer.layer)])
            drawn = list(_draw(filter_layer, taken[name], rule, own_seed))
            if outgoing == "zero":
                _check_alive(name, *drawn[0])
            replacements += drawn
            if reset_norm:
                keeps = rule is initializers.slots
                replacements += _renew_norms(filter_layer, taken[name], paths[name], keeps)
    for variable, shift in shifts:
        variable.assign_add(tf.cast(shift, variable.dtype))
        slots.shift_copies(optimizer, variable, shift)
    for variable, new, mask in replacements:
        # Replica by replica: the statistics of a batch norm may be each replica's own.
        for own in model.distribute_strategy.experimental_local_results(variable.value):
            own.assign(tf.where(mask, tf.cast(new, own.dtype), own))
        slots.reset_slots(optimizer, variable, new, mask, second_moment)


def check_draws(filter_layers: Iterable[FilterLayer], initializer: Any, *, outgoing: str) -> None:
    """Draws half of the filters of each layer as a trial, and drops them.

    It is tried on made-up weights: the present ones may be zero, but not when a restart comes.
    Layers with kernels of the same shape are tried as one; a layer of one filter loses none ever.

    Args:
        filter_layers: The layers to draw for.
        initializer: As in `restart_filters`, not `none`.
        outgoing: As in `restart_filters`.

    Raises:
        ValueError: The initializer cannot draw for such a layer; or draws zeros, with
            `outgoing="zero"`. An error of an initializer of one's own comes as it is, with a note
            that names the layer.
    """
    rule = initializers.get(initializer)
    tried = set()
    for filter_layer in filter_layers:
        kernel = kernels.incoming_kernel(filter_layer.layer)
        layout = type(filter_layer.layer), tuple(kernel.shape), kernel.value.dtype
        if filter_layer.filters < 2 or layout in tried:
            continue
        tried.add(layout)
        made_up = tf.random.stateless_normal(kernel.shape, (0, 0), 0, 0.1, kernel.value.dtype)
        filters = np.arange(filter_layer.filters // 2)
        try:
            drawn = _draw_kernel(
                filter_layer, kernels.by_filter(filter_layer.layer, made_up), filters, rule, 0
            )
        except Exception as error:
            error.add_note(
                f"It came from a trial draw of the initializer for '{filter_layer.name}'."
            )
            raise
        if outgoing == "zero":
            _check_alive(filter_layer.name, *drawn)


def _checked(
    filter_layers: Mapping[str, FilterLayer], name: str, indices: Sequence[int] | np.ndarray
) -> np.ndarray:
    if name not in filter_layers:
        raise ValueError(
            f"No filters to restart in a layer '{name}'. Expected one of {list(filter_layers)}."
        )
    filters, count = np.asarray(indices), filter_layers[name].filters
    if not filters.size:
        return np.zeros(0, int)
    if filters.ndim != 1 or not np.issubdtype(filters.dtype, np.integer):
        raise ValueError(f"The filters of '{name}' must be a list of indices. Received: {filters}")
    if not 0 <= filters.min() <= filters.max() < count:
        raise ValueError(f"The filters of '{name}' lie in 0 to {count - 1}. Received: {filters}")
    if len(set(filters.tolist())) == count:
        raise ValueError(f"All {count} filters of '{name}' are chosen: some must survive.")
    return filters


def _draw(
    filter_layer: FilterLayer, filters: np.ndarray, rule: initializers.Rule, seed: int
) -> Iterator[tuple[keras.Variable, tf.Tensor, np.ndarray]]:
    """Yields kernel and bias of a filter_layer, with new values and the mask of those."""
    layer = filter_layer.layer
    kernel = tf.convert_to_tensor(kernels.incoming_kernel(layer).value)
    yield _draw_kernel(filter_layer, kernels.by_filter(layer, kernel), filters, rule, seed)
    if layer.bias is not None:
        chosen = np.zeros(filter_layer.filters, bool)
        chosen[filters] = True
        keeps = rule is initializers.slots
        bias_rule = rule if keeps else initializers.from_keras(layer.bias_initializer)
        new = bias_rule(tf.convert_to_tensor(layer.bias.value), -1, derive_seed(seed, 1), chosen)
        yield layer.bias, new, chosen


def _draw_kernel(
    filter_layer: FilterLayer,
    old: tf.Tensor,
    filters: np.ndarray,
    rule: initializers.Rule,
    seed: int,
) -> tuple[keras.Variable, tf.Tensor, np.ndarray]:
    """The kernel of a filter_layer, with new values and the mask of those; `old` is it by filter."""
    chosen = np.zeros(filter_layer.filters, bool)
    chosen[filters] = True
    kernel = kernels.incoming_kernel(filter_layer.layer)
    new = rule(old, filter_layer.filter_axis, derive_seed(seed, 0), chosen)
    return kernel, tf.reshape(new, kernel.shape), kernels.filter_mask(filter_layer.layer, filters)


def _renew_norms(
    filter_layer: FilterLayer, filters: np.ndarray, path: Path, keeps: bool
) -> Iterator[tuple[keras.Variable, tf.Tensor, np.ndarray]]:
    """Yields the variables of all norms that filters pass by themselves, as `_draw` does.

    That is the norm that belongs to the layer, and the batch norms further on, such as those behind
    the concatenations of a dense block. Behind a sum these hold other filters' channels too.
    """
    places = {} if filter_layer.norm is None else {filter_layer.norm: filters}
    if not path.shared_with:
        places |= {reading.layer: list(reading.channels) for reading in path.norms}
    for norm, channels in places.items():
        for name, fresh in FRESH_NORM.items() if norm.trainable else ():
            variable = getattr(norm, name, None)
            if variable is not None:  # None: a norm without scale, centre or moving statistics
                mask = np.zeros(variable.shape, bool)
                mask[channels] = True
                yield variable, variable.value if keeps else tf.fill(variable.shape, fresh), mask


def _check_alive(name: str, kernel: keras.Variable, new: tf.Tensor, mask: np.ndarray) -> None:
    mask = np.broadcast_to(mask, kernel.shape)
    if not np.asarray(new)[mask].any():
        raise ValueError(
            f"The new weights of '{name}' are all zero, and so would its outgoing ones be: its "
            "filters would never learn again. Use another initializer, or outgoing='keep'."
        )


def check_adafactor(optimizer: keras.optimizers.Optimizer | None, second_moment: str) -> None:
    """Refuses `outgoing="zero"` where Adafactor would turn the kernel into NaN; ValueError."""
    found = [] if optimizer is None else slots.leaves(optimizer)
    adafactor = any(isinstance(leaf, keras.optimizers.Adafactor) for leaf in found)
    if adafactor and second_moment == "zero":
        raise ValueError(
            "Adafactor divides zero by zero at the first step of a filter whose outgoing weights "
            "are zero: use second_moment='survivors', or outgoing='keep'."
        )
