"""Re-initialises chosen filters, and leaves every other number of the model as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.arguments import check, check_choice, check_whole
from kerasrestart.network.filter_layers import FilterLayer, FilterLayers, find_filter_layers
from kerasrestart.network.optimizers import leaves
from kerasrestart.network.paths import Path
from kerasrestart.network.text import did_you_mean
from kerasrestart.restart import initializers, slots
from kerasrestart.restart.compensation import compensations
from kerasrestart.restart.drawing import (
    check_alive,
    check_norm,
    chosen_mask,
    draw,
    filter_mask,
    layer_seeds,
)
from kerasrestart.restart.filter_indices import checked_filters
from kerasrestart.restart.initializer_names import describe
from kerasrestart.restart.initializers import derive_seed
from kerasrestart.restart.norms import channel_values, norm_channels
from kerasrestart.restart.optimizers import optimizers_of, owners
from kerasrestart.restart.outgoing import outgoing_masks, outgoing_paths
from kerasrestart.restart.reset import SECOND_MOMENTS, check_outgoing
from kerasrestart.restart.restart_warnings import restart_warnings
from kerasrestart.restart.writing import Replacement, plan_writes


def restart_filters(
    model: keras.Model,
    chosen: Mapping[str, Sequence[int] | np.ndarray],
    *,
    initializer: Any = "uniform",
    outgoing: str = "keep",
    second_moment: str = "zero",
    norms: bool = True,
    reader_input_means: Mapping[str, np.ndarray] | None = None,
    optimizer: Any = None,
    seed: int = 0,
    found: FilterLayers | None = None,
) -> None:
    """Re-initialises the chosen filters of a model in place.

    ```python
    scores = kerasrestart.score_filters(model, x, y)
    chosen = kerasrestart.select_filters(scores, fraction=0.1)
    kerasrestart.restart_filters(model, chosen, initializer="he_uniform", seed=1)
    ```

    Each chosen filter gets new incoming weights, and a bias by the layer's own `bias_initializer`.
    Its channel of the norm that belongs to it gets the values of a new norm, and so does its
    channel of the batch norms that it passes unmixed further on (after a concatenation; with
    `outgoing="zero"` also after a depthwise convolution). The optimizers' slots of these numbers
    are reset. All else stays bit for bit, except what a constraint changes.

    Only variables that train are written, and their constraints hold afterwards. Nothing is changed
    if an argument is refused.

    Args:
        model: A built model.
        chosen: By key of the layer (its name, where that is unique), the indices of the filters,
            as `select_filters` returns them.
        initializer: See `kerasrestart.restart.initializers`. Defaults to `"uniform"`.
        outgoing: What happens to the weights with which other layers read the filters. `"keep"`
            leaves them, as in the paper: the function of the network jumps. `"zero"` sets them to
            zero, so that new filters change nothing until they have learned; where the filters
            contributed nothing, the network computes the same function as before. Of two new
            filters in consecutive layers, the second gets all of its new incoming weights. A
            depthwise filter that reads a new filter stays, and the weights that read the depthwise
            filter count as outgoing. Defaults to `"keep"`.
        second_moment: `"zero"` or `"survivors"`, see `kerasrestart.restart.slots.reset_slots`.
            Defaults to `"zero"`.
        norms: Whether the filters' channels of norms are reset. Defaults to True.
        reader_input_means: Mean inputs of the layers, as `kerasrestart.reader_input_means` returns
            them. With `outgoing="zero"` the bias of each reader rises by what the filters gave it
            on average (or the moving mean of a batch norm behind it falls). Defaults to None: no
            compensation.
        optimizer: The optimizer that trains the filters, or several. Defaults to None: the model's
            own, all that it or its layers keep in attributes, and those seen in a training step of
            `fit` with `PartialRestart`.
        seed: 0 or more. New weights are a function of the seed and the layer's place in the model,
            whichever other layers take part: give each restart its own seed. Defaults to 0.
        found: The model's filter layers, if already known. Defaults to None: they are searched.

    Raises:
        ValueError: A layer, index, initializer, `outgoing` or `second_moment` is not known; an
            index comes twice; a layer's kernel does not train, or all of its filters are chosen;
            the optimizer's slots are not known; with `outgoing="zero"`: the outgoing weights belong
            to other filters too, or a layer's new incoming weights, or the scale of its norm, are
            all zero, so that it would never learn again; with `reader_input_means`: a reader has
            neither bias nor batch norm, or no means.
        TypeError: `model` is not a Keras model or was not called yet, or `optimizer` is not a Keras
            optimizer.

    Source: Han and Zhang, "Partial Restart of Neural Network".
    """
    check_outgoing(outgoing, beside="" if reader_input_means is None else "reader_input_means")
    check_choice("second_moment", second_moment, SECOND_MOMENTS)
    check("norms", norms, isinstance(norms, bool), "True or False")
    check_whole("seed", seed, 0)
    rule, name = initializers.get(initializer), describe(initializer)
    found = find_filter_layers(model, ".*") if found is None else found
    taken = _checked(model, found, chosen)
    found_optimizers = _checked_optimizers(model, found.layers, taken, optimizer)
    # Everything is drawn before anything is written, so that an error leaves the model unchanged.
    replacements: list[Replacement] = []
    shifts: list[tuple[keras.Variable, np.ndarray]] = []
    if outgoing == "zero":
        for one in found_optimizers:
            check_adafactor(one, second_moment)
        # First: where a filter's outgoing weights are another's incoming ones, the new weights
        # count. A filter with only zeros on both sides would never learn again.
        paths = outgoing_paths(found.channels, found.layers, taken)
        for kernel, mask in outgoing_masks(paths):
            replacements.append(Replacement(kernel, tf.zeros(kernel.shape), mask))
        if reader_input_means is not None:
            shifts = list(compensations(found.graph, paths, taken, reader_input_means))
    else:
        paths = {key: found.channels.path(found.layers[key].layer, taken[key]) for key in taken}
    trained = {id(variable) for variable in model.trainable_variables}
    seeds = layer_seeds(found, seed)
    for key in taken:
        filter_layer, own_seed = found.layers[key], seeds[id(found.layers[key].layer)]
        drawn = list(draw(filter_layer, taken[key], rule, name, own_seed, trained))
        if outgoing == "zero":
            check_alive(key, drawn[0])
        replacements += drawn
        if norms:
            if outgoing == "zero" and filter_layer.norm is not None:
                check_norm(key, filter_layer.norm)
            replacements += _reset_norms(filter_layer, taken[key], paths[key], own_seed)
    writes = plan_writes(replacements, model.distribute_strategy, shifts)
    for line in restart_warnings(found, paths, norms=norms):
        warnings.warn(line, stacklevel=2)
    for write in writes:
        write.apply()
    for one in found_optimizers:
        for variable, shift in shifts:
            slots.shift_copies(one, variable, shift)
        for variable, _, mask in replacements:
            slots.reset_slots(one, variable, mask, second_moment)


def reset_optimizer_state(
    model: keras.Model,
    chosen: Mapping[str, Sequence[int] | np.ndarray],
    *,
    second_moment: str = "zero",
    norms: bool = True,
    optimizer: Any = None,
    found: FilterLayers | None = None,
) -> None:
    """Resets the optimizer state of the chosen filters, and changes no weight.

    This is the control `PartialRestart(control="slots")`: it resets the slots that
    `restart_filters` would reset with `outgoing="keep"`.

    Args:
        model: As in `restart_filters`.
        chosen: As in `restart_filters`.
        second_moment: As in `restart_filters`. Defaults to `"zero"`.
        norms: Whether the slots of the filters' norms are reset too. Defaults to True.
        optimizer: As in `restart_filters`. Defaults to None.
        found: As in `restart_filters`. Defaults to None.

    Raises:
        ValueError: As in `restart_filters`.
        TypeError: As in `restart_filters`.
    """
    check_choice("second_moment", second_moment, SECOND_MOMENTS)
    found = find_filter_layers(model, ".*") if found is None else found
    taken = _checked(model, found, chosen)
    found_optimizers = _checked_optimizers(model, found.layers, taken, optimizer)
    for key, filters in taken.items():
        filter_layer = found.layers[key]
        path = found.channels.path(filter_layer.layer, filters)
        replaced = [
            (kernels.incoming_kernel(filter_layer.layer), filter_mask(filter_layer, filters))
        ]
        if filter_layer.layer.bias is not None:
            replaced.append((filter_layer.layer.bias, chosen_mask(filter_layer, filters)))
        if norms:
            reset = _reset_norms(filter_layer, filters, path, 0)
            replaced += [(variable, mask) for variable, _, mask in reset]
        for variable, mask in replaced:
            for one in found_optimizers:
                slots.reset_slots(one, variable, mask, second_moment)


def obstacles(
    model: keras.Model, found: FilterLayers, keys: Iterable[str], *, outgoing: str = "keep"
) -> dict[str, str]:
    """Finds the layers whose filters cannot be restarted now.

    Args:
        model: The model. A layer may have been frozen after `found` was made.
        found: Its filter layers.
        keys: The layers to look at.
        outgoing: As in `restart_filters`. Defaults to `"keep"`.

    Returns:
        By key, the reason.
    """
    trained = {id(variable) for variable in model.trainable_variables}
    reasons = {}
    for key in keys:
        if key not in found.layers:
            reasons[key] = f"it {found.left_out.get(key, 'is not in the model')}"
            continue
        layer = found.layers[key].layer
        if id(kernels.incoming_kernel(layer)) not in trained:
            reasons[key] = "its kernel is not trainable"
        elif outgoing == "zero" and (obstacle := found.channels.outgoing(layer).obstacle()):
            reasons[key] = obstacle
    return reasons


def check_adafactor(optimizer: keras.optimizers.Optimizer, second_moment: str) -> None:
    """Refuses `outgoing="zero"` where Adafactor would turn the kernel into NaN; ValueError."""
    adafactor = any(isinstance(leaf, keras.optimizers.Adafactor) for leaf in leaves(optimizer))
    if adafactor and second_moment == "zero":
        raise ValueError(
            "Adafactor divides zero by zero at the first step of a filter whose outgoing weights "
            "are zero: second_moment must be 'survivors', or outgoing='keep'. Received: "
            f"outgoing='zero', second_moment={second_moment!r}"
        )


def _checked(
    model: keras.Model,
    found: FilterLayers,
    chosen: Mapping[str, Sequence[int] | np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns the chosen filters of the layers that lose any, in execution order."""
    check("chosen", chosen, isinstance(chosen, Mapping), "{layer: indices of filters}")
    checked = {key: _checked_filters(found, key, chosen[key]) for key in chosen}
    taken = {key: checked[key] for key in found.layers if len(checked.get(key, ()))}
    for key, reason in obstacles(model, found, taken).items():
        raise ValueError(
            f"chosen must have layers that train. Received: {key!r}, which cannot be restarted: "
            f"{reason}"
        )
    return taken


def _checked_filters(
    found: FilterLayers, key: str, indices: Sequence[int] | np.ndarray
) -> np.ndarray:
    if key in found.left_out:
        raise ValueError(
            f"chosen must have some of the layers {list(found.layers)}. Received: {key!r}, which "
            f"cannot be restarted: it {found.left_out[key]}"
        )
    if key not in found.layers:
        raise ValueError(
            f"chosen must have some of the layers {list(found.layers)}. Received: {key!r}"
            f"{did_you_mean(key, found.layers) if isinstance(key, str) else ''}"
        )
    return checked_filters("chosen", key, indices, found.layers[key].filters)


def _checked_optimizers(
    model: keras.Model,
    filter_layers: Mapping[str, FilterLayer],
    taken: Mapping[str, np.ndarray],
    optimizer: Any,
) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers of a model, once the state of those that train filters is known."""
    found = optimizers_of(model, optimizer)
    written = [kernels.incoming_kernel(filter_layers[key].layer) for key in taken]
    for one in owners(found, written):
        slots.check_slots(one)
    if any(one.built for one in found):
        for variable in written:
            if not owners(found, [variable]):
                warnings.warn(
                    f"No optimizer was found that trains '{variable.path}': its optimizer state is "
                    "not reset. Pass the optimizer to restart_filters(optimizer=).",
                    stacklevel=3,
                )
                break
    return found


def _reset_norms(
    filter_layer: FilterLayer, filters: np.ndarray, path: Path, seed: int
) -> Iterator[Replacement]:
    for norm, channels in norm_channels(filter_layer, filters, path):
        for variable, new, mask in channel_values(norm, channels, derive_seed(seed, 2)):
            yield Replacement(variable, new, mask)
