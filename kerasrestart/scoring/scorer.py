"""Accumulates the scores of all filters of a model, batch by batch, inside a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.network import kernels
from kerasrestart.network.filter_layers import FilterLayer, FilterLayers, find_filter_layers
from kerasrestart.scoring import criteria
from kerasrestart.scoring.affine_weights import (
    affine_weights,
    filter_columns,
    saliencies_of_weights,
)
from kerasrestart.scoring.criteria import Needs
from kerasrestart.scoring.feature_maps import FeatureMaps, positions_of, sums_of_maps, uses_of
from kerasrestart.scoring.reader_input_means import ReaderInputs
from kerasrestart.scoring.recorder import record_outputs
from kerasrestart.scoring.replicas import sum_variable


class Scorer:
    """Mean saliency of each filter over the examples seen since the last `reset`.

    With the Taylor criterion, for filter k of layer l with feature map z of M positions, M that of
    the convolution's own output, and cost C of one example,

        score(l, k) = mean over examples of |1/M * sum over positions of dC/dz * z|

    The scores of a layer that is used several times are summed over its uses. The criteria that
    are read right behind the activation are means over examples, positions and uses. Those of
    weights and their gradients are means over batches (over replicas' shares of them under a
    strategy), each by its number of examples.

    The state is two variables, whatever the number of layers: the sums of all filters of all
    layers end to end, and how many examples came and how many of them were scored. A criterion that
    needs nothing of the batches leaves the training step as it is: no layer is recorded, nothing is
    added up, and `result` can be had at any moment.

    Of a model that was built in the scope of a `tf.distribute.Strategy`, batches are added in the
    replicas' steps, and `result`, `seen`, `examples` are over all replicas.

    Args:
        model: A built Functional or Sequential model.
        criterion: See `kerasrestart.scoring.criteria.get`. Defaults to `"taylor"`.
        seed: Seed of a criterion that draws its scores. Defaults to 0.
        layers: Which layers are scored, see `kerasrestart.network.filter_layers.find_filter_layers`. Defaults to None:
            all convolutions.
        with_reader_input_means: Whether to take the means of what the readers of filters get, too.
            Defaults to False.

    Attributes:
        criterion: The `Criterion`.
        filter_layers: The `FilterLayers` of the model.
        layers: The scored layers, by name, in execution order.

    Raises:
        TypeError, ValueError: As `find_filter_layers` and `criteria.get` do, or the criterion needs the
            scale of a batch norm that has none.

    Example, in a training step of one's own:

    ```python
    with tf.GradientTape() as tape, scorer.record() as maps:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = scorer.gradients(
        tape, loss, model.trainable_weights, maps, batch_size=tf.shape(x)[0]
    )
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        criterion: str | criteria.Criterion | criteria.Saliency = "taylor",
        *,
        seed: int = 0,
        layers: str | Sequence[str] | None = None,
        with_reader_input_means: bool = False,
    ):
        self.criterion = criteria.get(criterion)
        self.seed = seed
        self.filter_layers: FilterLayers = find_filter_layers(model, layers)
        self.layers: dict[str, FilterLayer] = self.filter_layers.layers
        self._filter_layers = list(self.layers.values())
        self._weights: list[list[keras.Variable]] = []
        if self.criterion.needs is Needs.WEIGHT_GRADIENT:
            self._weights = [
                affine_weights(filter_layer, self.criterion) for filter_layer in self._filter_layers
            ]
        self._inputs = ReaderInputs(self.filter_layers) if with_reader_input_means else None
        self._filters = sum(filter_layer.filters for filter_layer in self._filter_layers)
        # The scores of all filters, and behind them the mean inputs of their readers.
        size = self._filters + (self._inputs.size if self._inputs else 0)
        with model.distribute_strategy.scope():
            self._sums = sum_variable(tf.zeros(size), "score_sums")
            self._examples = sum_variable(tf.zeros(2), "seen_and_scored_examples")

    @contextlib.contextmanager
    def record(self) -> Iterator[FeatureMaps]:
        """Records the feature maps of the one forward pass that is made inside the context.

        Raises:
            ValueError: At the end of the context: not all of the model was called in it.
        """
        uses = [
            use
            for filter_layer in self._filter_layers
            for use in uses_of(filter_layer, self.criterion)
        ]
        operations = [call.operation for use in uses for call in use]
        maps = FeatureMaps()
        if self._inputs:
            operations += self._inputs.operations
        with record_outputs(operations) as outputs:
            yield maps
        for operation in operations:
            if not outputs[id(operation)]:
                raise ValueError(
                    f"Layer '{operation.name}' was not called while feature maps were recorded: "
                    "the forward pass, model(x, training=True), belongs inside the context of "
                    "record_feature_maps (of a Scorer: record)."
                )
        if self._inputs:
            maps.reader_input_means = self._inputs.means(outputs)
        for number, filter_layer in enumerate(self._filter_layers):
            # A shared layer's contributions add up, its activations are averaged.
            shares = (
                1 if self.criterion.needs is Needs.CONTRIBUTION else len(filter_layer.activations)
            )
            for own, read in uses_of(filter_layer, self.criterion):
                maps.layers.append(number)
                maps.tensors.append(outputs[id(read.operation)][read.occurrence])
                own_output = outputs[id(own.operation)][own.occurrence]
                maps.positions.append(shares * positions_of(own_output, filter_layer.channel_axis))
        maps.complete = True

    def gradients(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        weights: Sequence[Any],
        maps: FeatureMaps,
        *,
        batch_size: int | tf.Tensor,
        loss_to_example_scale: float | tf.Tensor | None = None,
        skip_if_not_finite: bool = False,
    ) -> list[tf.Tensor | None]:
        """Differentiates the loss by `weights` and, in the same pass, scores the batch.

        Args:
            tape: The tape that watched the forward pass.
            loss: L, the scalar to differentiate.
            weights: Variables; may be empty.
            maps: What `record` yielded around that forward pass.
            batch_size: Number of examples.
            loss_to_example_scale: What turns dL/dz into dC/dz, C being the cost of one example: the batch
                size where L is a mean over the batch (the default), divided by the loss scale where
                one is used.
            skip_if_not_finite: Whether a batch with a score that is infinite or not a number is
                left out whole, as a loss-scaling optimizer leaves out its step. Otherwise such
                scores stay, and show that training has failed.

        Returns:
            The gradients by `weights`, as `tape.gradient` gives them.

        Raises:
            ValueError: The recording context has not ended yet.
        """
        maps.check_complete()
        weights = list(weights)
        by_map = self.criterion.needs_maps and self.criterion.needs_gradient
        known = {id(weight) for weight in weights}
        others = [w for of_site in self._weights for w in of_site if id(w) not in known]
        sources = (weights, maps.tensors if by_map else [], others)
        gradients, map_gradients, other_gradients = tape.gradient(loss, sources)
        if not self.needs_step:
            return gradients
        factor = tf.cast(
            batch_size if loss_to_example_scale is None else loss_to_example_scale, tf.float32
        )
        if not self.criterion.needs_step:
            sums = tf.zeros(self._filters)
        elif by_map:
            sums = sums_of_maps(self.criterion, self._filter_layers, maps, map_gradients) * factor
        elif self.criterion.needs_maps:
            sums = sums_of_maps(self.criterion, self._filter_layers, maps)
        else:
            found = zip([*weights, *others], [*gradients, *other_gradients], strict=True)
            by_weight = {id(weight): gradient for weight, gradient in found}
            examples = tf.cast(batch_size, tf.float32)
            # The gradient of the mean cost first: the criterion is not linear in it.
            of_mean = tf.math.divide_no_nan(factor, examples)  # a replica's part may be empty
            sums = examples * saliencies_of_weights(
                self.criterion, self._filter_layers, self._weights, by_weight, of_mean
            )
        self._add(sums, maps, batch_size, skip_if_not_finite)
        return gradients

    def add(self, maps: FeatureMaps, *, batch_size: int | tf.Tensor) -> None:
        """Scores a batch by its forward pass alone, where the criterion needs no gradient.

        Args:
            maps: What `record` yielded around the forward pass.
            batch_size: Number of examples.

        Raises:
            ValueError: The criterion needs a gradient, or the recording context has not ended yet.
        """
        if self.criterion.needs_gradient:
            raise ValueError(
                f"Criterion '{self.criterion.name}' needs a backward pass: call gradients instead "
                "of add."
            )
        maps.check_complete()
        if self.criterion.needs_step:
            sums = sums_of_maps(self.criterion, self._filter_layers, maps)
            self._add(sums, maps, batch_size, False)

    def _add(
        self,
        sums: tf.Tensor,
        maps: FeatureMaps,
        batch_size: int | tf.Tensor,
        skip_if_not_finite: bool,
    ) -> None:
        seen = scored = tf.cast(batch_size, tf.float32)
        if maps.reader_input_means is not None:
            sums = tf.concat([sums, seen * maps.reader_input_means], axis=0)
        if skip_if_not_finite:
            finite = tf.reduce_all(tf.math.is_finite(sums))
            sums, scored = tf.where(finite, sums, 0.0), tf.where(finite, scored, 0.0)
        self._sums.assign_add(sums)
        self._examples.assign_add(tf.stack([seen, scored]))

    @property
    def seen(self) -> int:
        """Number of examples that came since the last reset."""
        return int(self._examples.read_value()[0])

    @property
    def examples(self) -> int:
        """Number of examples scored since the last reset: without batches that overflowed."""
        return int(self._examples.read_value()[1])

    @property
    def needs_step(self) -> bool:
        """Whether anything is taken from the batches; else `result` can be had at any moment."""
        return self.criterion.needs_step or self._inputs is not None

    @property
    def ready(self) -> bool:
        """Whether `result` tells anything: examples were scored, or none are needed."""
        return not self.needs_step or self.examples > 0

    def reader_input_means(self) -> dict[str, np.ndarray]:
        """Means of what the readers of filters got, where `with_reader_input_means` asked for them.

        Returns:
            As `kerasrestart.reader_input_means`, over the examples scored since the last reset; empty
            where the means were not asked for.
        """
        if self._inputs is None:
            return {}
        sums = self._sums.read_value().numpy()[self._filters :]
        return self._inputs.by_layer(sums / max(self.examples, 1))

    def result(self, draw: int = 0) -> dict[str, np.ndarray]:
        """Returns the scores.

        Args:
            draw: Which draw of the seed, for a criterion that draws its scores: such as the number
                of restarts made so far. Defaults to 0.

        Returns:
            By layer name, float32 `[filters]`; zeros before the first batch, where batches are
            needed.
        """
        return {
            name: self.criterion.finish(np.asarray(saliencies, np.float32))
            for name, saliencies in zip(self.layers, self._means(draw), strict=True)
        }

    def _means(self, draw: int) -> list[np.ndarray]:
        """Mean saliencies, layer by layer."""
        if self.criterion.needs_step:
            sums = self._sums.read_value().numpy()[: self._filters]
            means = sums / np.float32(max(self.examples, 1))
            return np.split(
                means,
                np.cumsum([filter_layer.filters for filter_layer in self._filter_layers])[:-1],
            )
        saliencies = []
        for number, filter_layer in enumerate(self._filter_layers):
            if self.criterion.needs is Needs.WEIGHTS:
                kernel = filter_columns(
                    kernels.incoming_kernel(filter_layer.layer).value, filter_layer
                )
                saliency = self.criterion.saliency(tf.cast(kernel, tf.float32).numpy())
            else:
                generator = np.random.default_rng([self.seed, draw, number])
                saliency = self.criterion.saliency(generator, filter_layer.filters)
            self.criterion.check(np.shape(saliency), filter_layer.name, filter_layer.filters)
            saliencies.append(saliency)
        return saliencies

    def reset(self) -> None:
        """Forgets all examples seen."""
        self._sums.assign(tf.zeros(self._sums.shape))
        self._examples.assign(tf.zeros(2))
