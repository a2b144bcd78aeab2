"""Takes filters out of a network for a while: their outgoing weights are held at zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayers
from kerasrestart.restart import slots, surgery
from kerasrestart.restart.compensation import compensations
from kerasrestart.restart.optimizers import optimizers_of
from kerasrestart.restart.outgoing import outgoing_masks, outgoing_paths
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.writing import Replacement, plan_writes

Chosen = Mapping[str, Sequence[int] | np.ndarray]


def drop_filters(
    model: keras.Model,
    chosen: Chosen,
    found: FilterLayers,
    reset: Reset,
    reader_input_means: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Sets the outgoing weights of filters to zero, and their optimizer state to that of new ones.

    The network computes what it would without the filters. Their incoming weights stay, and get no
    gradient.

    Args:
        model: The model.
        chosen: By layer, indices of filters.
        found: The filter layers of the model.
        reset: What happens to the optimizer state.
        reader_input_means: As in `restart_filters`. Defaults to None: no compensation.

    Raises:
        ValueError: The outgoing weights belong to other filters too.
    """
    taken = {name: np.asarray(filters, int) for name, filters in chosen.items()}
    paths = outgoing_paths(found.channels, found.layers, taken)
    shifts: list[tuple[keras.Variable, np.ndarray]] = []
    if reader_input_means is not None:
        shifts = list(compensations(found.graph, paths, taken, reader_input_means))
    zeros = [
        Replacement(kernel, tf.zeros(kernel.shape), mask) for kernel, mask in outgoing_masks(paths)
    ]
    for write in plan_writes(zeros, model.distribute_strategy, shifts):
        write.apply()
    for optimizer in optimizers_of(model):
        for variable, shift in shifts:
            slots.shift_copies(optimizer, variable, shift)
        for kernel, _, mask in zeros:
            slots.reset_slots(optimizer, kernel, mask, reset.second_moment)
    surgery.reset_optimizer_state(
        model, taken, second_moment=reset.second_moment, norms=reset.norms, found=found
    )


class HeldWeights:
    """Holds outgoing weights at zero in each step of the optimizer, as a constraint does.

    Nothing is traced again when other weights are held. Constraints of the kernels are applied
    first, and come back with `remove`.

    Args:
        model: A model whose training step is traced after this, and again after `remove`.
        found: Its filter layers.
    """

    def __init__(self, model: keras.Model, found: FilterLayers):
        self._found = found
        paths = [found.channels.outgoing(layer.layer) for layer in found.layers.values()]
        readers = {id(r.layer): r.layer for path in paths for r in path.readers}
        self._held: list[tuple[keras.Variable, _HeldAtZero]] = []
        with model.distribute_strategy.scope():
            for reader in readers.values():
                kernel, none = kernels.reading_kernel(reader), np.zeros(0, int)
                shape = kernels.reading_mask(reader, none).shape
                self._held.append((kernel, _HeldAtZero(kernel, shape)))
        for kernel, constraint in self._held:
            kernel.constraint = constraint

    def hold(self, chosen: Chosen) -> None:
        """Holds the outgoing weights of some filters, and no others.

        Args:
            chosen: By layer, indices of filters; empty to hold none.
        """
        taken = {name: np.asarray(filters, int) for name, filters in chosen.items()}
        paths = outgoing_paths(self._found.channels, self._found.layers, taken)
        masks = {id(kernel): mask for kernel, mask in outgoing_masks(paths)}
        for kernel, constraint in self._held:
            constraint.hold(masks.get(id(kernel)))

    def remove(self) -> None:
        """Gives the kernels their own constraints back."""
        for kernel, constraint in self._held:
            if kernel.constraint is constraint:
                kernel.constraint = constraint.own
            else:
                _remove_from_chain(kernel.constraint, constraint)
        self._held.clear()


class _HeldAtZero(keras.constraints.Constraint):
    """Multiplies a kernel by 0 where its weights are held, else by 1, after its own constraint."""

    def __init__(self, kernel: keras.Variable, shape: Iterable[int]):
        self.own: Any = kernel.constraint
        dtype = kernel.value.dtype
        self._free = tf.Variable(tf.ones(tuple(shape), dtype), trainable=False, name="free_weights")

    def __call__(self, w: Any) -> tf.Tensor:
        w = w if self.own is None else self.own(w)
        return tf.convert_to_tensor(w) * self._free

    def hold(self, mask: np.ndarray | None) -> None:
        """Holds the weights of a mask; None: no weights."""
        free = tf.ones_like(self._free) if mask is None else tf.cast(~mask, self._free.dtype)
        self._free.assign(free)


def _remove_from_chain(outer: Any, constraint: _HeldAtZero) -> None:
    """Takes a constraint out from under those that other callbacks have put around it."""
    while isinstance(outer, _HeldAtZero):
        if outer.own is constraint:
            outer.own = constraint.own
        outer = outer.own
