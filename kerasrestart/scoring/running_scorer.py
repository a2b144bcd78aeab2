"""Running means of the scores of all filters, for restarts between batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.scoring import replicas
from kerasrestart.scoring.scorer import Scorer


class RunningScorer(Scorer):
    """Exponential mean of each filter's saliency over the scored batches, bias-corrected.

    With the mean saliency s of a batch, `u = decay * u + (1 - decay) * s`, and the score is
    `u / (1 - decay^k)` after k batches since the filter was restarted. `decay^k` is kept as a
    number for each filter, so that batches that are not scored do not count.

    A step updates the variables on the device; the host reads them when it asks for `result`.

    Source: Dohare et al., "Loss of plasticity in deep continual learning" (Nature 632, 2024).

    Args:
        model: As in `Scorer`.
        criterion: As in `Scorer`. Defaults to `"taylor"`.
        decay: From 0, the last batch alone, to below 1. Defaults to 0.99.
        **options: The other arguments of `Scorer`.
    """

    def __init__(
        self, model: keras.Model, criterion: Any = "taylor", *, decay: float = 0.99, **options: Any
    ):
        super().__init__(model, criterion, **options)
        self._decay = decay
        with model.distribute_strategy.scope():
            # How much of the mean is made of batches: 1 - decay^k.
            self._shares = replicas.sum_variable(tf.zeros(self._sums.shape), "score_shares")

    def _accumulate(self, sums: tf.Tensor, seen: tf.Tensor, scored: tf.Tensor) -> None:
        total = replicas.total(scored)
        # A batch of which nothing was scored, as one that overflows, changes nothing.
        decay = tf.where(total > 0, self._decay, 1.0)
        part = tf.math.divide_no_nan(1 - decay, total)
        self._sums.assign(decay * self._sums + part * sums)
        self._shares.assign(decay * self._shares + part * scored)
        self._examples.assign_add(tf.stack([seen, scored]))

    @property
    def ready(self) -> bool:
        """Whether `result` means anything: a batch was scored, also by the one it continues."""
        return not self.needs_step or bool((self.state()[1] > 0).any())

    def _mean_values(self) -> np.ndarray:
        sums, shares = self.state()
        return np.divide(sums, shares, out=np.zeros_like(sums), where=shares > 0)

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the running means and their shares, as `load` takes them."""
        return self._sums.read_value().numpy(), self._shares.read_value().numpy()

    def load(self, sums: np.ndarray, shares: np.ndarray) -> None:
        """Continues from the `state` of another scorer of this model and criterion."""
        for variable, value in ((self._sums, sums), (self._shares, shares)):
            variable.assign(tf.constant(value, tf.float32))

    def forget(self, chosen: Mapping[str, np.ndarray]) -> None:
        """Begins the means of some filters again, also those of what reads them.

        Args:
            chosen: By layer, indices of filters.
        """
        keep = np.ones(self._sums.shape, np.float32)
        ends = np.cumsum([layer.filters for layer in self._layers])
        for number, (name, layer) in enumerate(self.layers.items()):
            filters = chosen.get(name, ())
            if len(filters):
                keep[ends[number] - layer.filters + np.asarray(filters, int)] = 0
                if self._inputs is not None:
                    path = self.filter_layers.channels.outgoing(layer.layer, filters)
                    for reader in path.readers:
                        start = self._filters + self._inputs.start_of(reader.name)
                        keep[start + np.array(reader.channels)] = 0
        for variable in (self._sums, self._shares):
            variable.assign(keep * variable.read_value())

    def reset(self) -> None:
        """Forgets all examples seen."""
        super().reset()
        self._shares.assign(tf.zeros(self._shares.shape))
