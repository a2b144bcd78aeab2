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
from kerasrestart.network.text import listed_reasons
from kerasrestart.scoring import criteria
from kerasrestart.scoring.affine_weights import filter_columns
from kerasrestart.scoring.criteria import Needs
from kerasrestart.scoring.normalization import batch_sums
from kerasrestart.scoring.outgoing_weights import OutgoingWeights
from kerasrestart.scoring.plan import ReadingPlan
from kerasrestart.scoring.reader_inputs import ReaderInputs
from kerasrestart.scoring.replicas import sum_variable
from kerasrestart.scoring.step_record import StepRecord

NO_GRADIENT = "no gradient of the loss reaches it"
NOT_CALLED = "it was not called where its feature map could be read"


class Scorer:
    """Mean saliency of each filter over the examples seen since the last `reset`.

    In a custom training step:

    ```python
    scorer = kerasrestart.Scorer(model)
    with tf.GradientTape() as tape, scorer.record() as record:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = scorer.gradients(
        tape, loss, model.trainable_weights, record, batch_size=tf.shape(x)[0]
    )
    ```

    With the Taylor criterion, for filter k of layer l with feature map z of M positions, M that of
    the convolution's own output, and cost C of one example,

        score(l, k) = mean over examples of |1/M * sum over positions of dC/dz * z|

    The scores of a layer that is called several times are summed over its calls. The criteria that
    are read directly after the activation are means over examples, positions and calls. Those of
    weights and their gradients are means over batches (over replicas' parts of them under a
    strategy), each weighted by its number of examples.

    The state is two variables, whatever the number of layers: the sums of all filters of all
    layers end to end, and how many examples were seen and how many of them scored. A criterion that
    needs nothing of the batches leaves the training step as it is, and `result` is available at any
    time.

    For a model that was built in the scope of a `tf.distribute.Strategy`, batches are added in the
    replicas' steps, and `result`, `seen`, `examples` are over all replicas.

    Args:
        model: A built model.
        criterion: See `kerasrestart.scoring.criteria.get`. Defaults to `"taylor"`.
        seed: Seed of a random criterion. Defaults to 0.
        layers: Which layers are scored, see `find_filter_layers`. Defaults to None: all
            convolutions.
        with_reader_input_means: Whether to also take the means of what the readers of filters get.
            Defaults to False.
        found: The filter layers of the model, where these are known. Defaults to None: they are
            looked for, and `layers` says which.

    Attributes:
        criterion: The `Criterion`.
        filter_layers: The `FilterLayers` of the model.
        layers: The scored layers, by name, in execution order.

    Raises:
        TypeError, ValueError: As `find_filter_layers` and `criteria.get` do, or the criterion needs
            the scale of a batch norm that has none.
    """

    def __init__(
        self,
        model: keras.Model,
        criterion: str | criteria.Criterion | criteria.Saliency = "taylor",
        *,
        seed: int = 0,
        layers: str | Sequence[str] | None = None,
        with_reader_input_means: bool = False,
        found: FilterLayers | None = None,
    ):
        self.criterion = criteria.get(criterion)
        self.seed = seed
        self.filter_layers = (
            find_filter_layers(model, layers, in_loop=True) if found is None else found
        )
        self.layers: dict[str, FilterLayer] = self.filter_layers.layers
        self._layers = list(self.layers.values())
        self._plan = ReadingPlan(self.filter_layers.graph, self._layers, self.criterion)
        self._inputs = ReaderInputs(self.filter_layers) if with_reader_input_means else None
        self._model = model
        self._filters = sum(layer.filters for layer in self._layers)
        uses_outgoing = self.criterion.times_outgoing
        self._outgoing = OutgoingWeights(self.filter_layers) if uses_outgoing else None
        # Set while a step is traced: which layers were reached, and which can never be.
        self._traced = False
        self._reached: set[int] = set()
        self._out_of_reach = dict(self._outgoing.out_of_reach) if self._outgoing else {}
        # The scores of all filters, and behind them the mean inputs of their readers.
        size = self._filters + (self._inputs.size if self._inputs else 0)
        with model.distribute_strategy.scope():
            self._sums = sum_variable(tf.zeros(size), "score_sums")
            self._examples = sum_variable(tf.zeros(2), "seen_and_scored_examples")

    def new_record(self) -> StepRecord:
        """Makes the record of one training step; call it where the step is traced."""
        return StepRecord(self._plan, self.criterion, self._inputs)

    @contextlib.contextmanager
    def record(self) -> Iterator[StepRecord]:
        """Records the forward passes that are made inside the context.

        Raises:
            ValueError: At the end of the context: no layer that is read was called in it.
        """
        record = self.new_record()
        with record.listening():
            yield record
        operations = self._plan.operations.values()
        # Some are called in one mode only, such as an auxiliary head in training.
        if operations and not any(map(record.called, operations)):
            record.complete = False
            raise ValueError(
                "No layer was called while feature maps were recorded: the forward pass, "
                "model(x, training=True), belongs inside the context of Scorer.record."
            )

    def gradients(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        weights: Sequence[Any],
        record: StepRecord,
        *,
        batch_size: int | tf.Tensor,
        loss_to_example_scale: float | tf.Tensor | None = None,
        skip_if_not_finite: bool = False,
    ) -> list[tf.Tensor | None]:
        """Differentiates the loss by `weights` and, in the same pass, scores the batch.

        Passes that were made while `record` was open are added to this one. Each further call for
        the same record counts as a batch of its own.

        Args:
            tape: The tape that watched the forward pass.
            loss: L, the scalar to differentiate.
            weights: Variables; may be empty.
            record: What `record` yielded around that forward pass.
            batch_size: Number of examples.
            loss_to_example_scale: What turns dL/dz into dC/dz, C being the cost of one example: the
                batch size where L is a mean over the batch (the default), divided by the loss scale
                where one is used.
            skip_if_not_finite: Whether a batch with a score that is infinite or not a number is
                left out whole, as a loss-scaling optimizer leaves out its step. Otherwise such
                scores stay, and show that training has failed. Defaults to False.

        Returns:
            The gradients by `weights`, as `tape.gradient` gives them.

        Raises:
            ValueError: The recording context has not ended yet.
        """
        record.check_complete()
        weights = list(weights)
        known = {id(weight) for weight in weights}
        others = [w for of_layer in self._plan.weights for w in of_layer if id(w) not in known]
        # The maps are sources of their own for those who differentiate by some weights only.
        kernels_again = [
            kernels.incoming_kernel(self._layers[number].layer) for number in record.called_again
        ]
        sources = (weights, others, [*record.maps, *kernels_again])
        with record.backward_pass():
            gradients, other_gradients, _ = tape.gradient(loss, sources)
        scored = {id(weight) for of_layer in self._plan.weights for weight in of_layer}
        found = zip([*weights, *others], [*gradients, *other_gradients], strict=True)
        for weight, gradient in found:
            if id(weight) in scored:
                record.add_gradient(id(weight), tf.convert_to_tensor(weight), gradient)
        self.add_record(
            record,
            batch_size=batch_size,
            loss_to_example_scale=loss_to_example_scale,
            skip_if_not_finite=skip_if_not_finite,
        )
        return gradients

    def add(self, record: StepRecord, *, batch_size: int | tf.Tensor) -> None:
        """Scores a batch by its forward pass alone, where the criterion needs no gradient.

        Args:
            record: What `record` yielded around the forward pass.
            batch_size: Number of examples.

        Raises:
            ValueError: The criterion needs a gradient, or the recording context has not ended yet.
        """
        if self.criterion.needs_gradient:
            raise ValueError(
                f"Criterion '{self.criterion.name}' needs a backward pass: call gradients instead "
                "of add."
            )
        record.check_complete()
        self.add_record(record, batch_size=batch_size)

    def add_record(
        self,
        record: StepRecord,
        *,
        batch_size: int | tf.Tensor,
        loss_to_example_scale: float | tf.Tensor | None = None,
        skip_if_not_finite: bool = False,
    ) -> None:
        """Adds what a step has left; the arguments are those of `gradients`."""
        if not self.needs_step:
            return
        record.join_passes()
        self._note_reach(record)
        seen = scored = tf.cast(batch_size, tf.float32)
        factor = seen if loss_to_example_scale is None else loss_to_example_scale
        parts = [tf.zeros(self._filters)]
        if self.criterion.needs_step:
            weights, factor = self._plan.weights, tf.cast(factor, tf.float32)
            sums = batch_sums(self.criterion, self._layers, weights, record, seen, factor)
            # After the step, so that the weights are the new ones.
            parts = [sums if self._outgoing is None else sums * self._outgoing.norms()]
        if self._inputs is not None:
            # The means of a replica's part without an example are not numbers, and count for none.
            parts.append(tf.math.multiply_no_nan(self._inputs.means(record.inputs), seen))
        sums = tf.concat(parts, axis=0)
        if skip_if_not_finite:
            finite = tf.reduce_all(tf.math.is_finite(sums))
            sums, scored = tf.where(finite, sums, 0.0), tf.where(finite, scored, 0.0)
        self._accumulate(sums, seen, scored)
        record.clear()

    def _accumulate(self, sums: tf.Tensor, seen: tf.Tensor, scored: tf.Tensor) -> None:
        """Adds the sums of a batch of which `scored` of `seen` examples were scored."""
        self._sums.assign_add(sums)
        self._examples.assign_add(tf.stack([seen, scored]))

    def _note_reach(self, record: StepRecord) -> None:
        self._traced = True
        self._out_of_reach |= record.out_of_reach
        for number, weights in enumerate(self._plan.weights):
            if any(record.gradients.get(id(weight)) for weight in weights):
                self._reached.add(number)
        self._reached |= record.saliencies.keys()

    @property
    def left_out(self) -> dict[str, str]:
        """Layers that have no score: by name, why. Known once a batch was scored."""
        if not (self._traced and self.criterion.needs_step):
            return {}
        otherwise = NO_GRADIENT if self.criterion.needs_gradient else NOT_CALLED
        return {
            name: self._out_of_reach.get(number, otherwise)
            for number, name in enumerate(self.layers)
            if number in self._out_of_reach or number not in self._reached
        }

    @property
    def was_traced(self) -> bool:
        """Whether a step that scores was run, or traced."""
        return self._traced

    @property
    def seen(self) -> int:
        """Number of examples seen since the last reset."""
        return int(self._examples.read_value()[0])

    @property
    def examples(self) -> int:
        """Number of examples scored since the last reset: without batches that overflowed."""
        return int(self._examples.read_value()[1])

    @property
    def needs_step(self) -> bool:
        """Whether anything is taken from the batches; else `result` is available at any time."""
        return bool(self.layers) and (self.criterion.needs_step or self._inputs is not None)

    @property
    def ready(self) -> bool:
        """Whether `result` means anything: examples were scored, or none are needed."""
        return not self.needs_step or self.examples > 0

    @property
    def is_finite(self) -> bool:
        """Whether all scores since the last reset are finite."""
        return bool(np.isfinite(self._sums.read_value()).all())

    def reader_input_means(self) -> dict[str, np.ndarray]:
        """Means of what the readers of filters got, where `with_reader_input_means` asked for them.

        Returns:
            As `kerasrestart.reader_input_means`, over the examples scored since the last reset;
            empty where the means were not asked for.
        """
        if self._inputs is None:
            return {}
        return self._inputs.by_layer(self._mean_values()[self._filters :])

    def result(self, draw: int = 0) -> dict[str, np.ndarray]:
        """Returns the scores.

        Args:
            draw: Which draw of the seed, for a random criterion: such as the number of restarts
                made so far. Defaults to 0.

        Returns:
            By layer name, float32 `[filters]`, without the layers that are `left_out`; zeros
            before the first batch, where batches are needed.

        Raises:
            ValueError: All layers are left out.
        """
        left_out = self.left_out
        if left_out and len(left_out) == len(self.layers):
            raise ValueError(f"No layer can be scored: {listed_reasons(left_out)}.")
        return {
            name: self.criterion.finish(np.asarray(saliencies, np.float32))
            for name, saliencies in zip(self.layers, self._means(draw), strict=True)
            if name not in left_out
        }

    def _mean_values(self) -> np.ndarray:
        """Means over the examples: the saliencies of all filters, and the readers' mean inputs."""
        return self._sums.read_value().numpy() / np.float32(max(self.examples, 1))

    def _means(self, draw: int) -> list[np.ndarray]:
        """Mean saliencies, layer by layer."""
        if self.criterion.needs_step:
            means = self._mean_values()[: self._filters]
            return np.split(means, np.cumsum([layer.filters for layer in self._layers]))[:-1]
        saliencies = []
        for number, layer in enumerate(self._layers):
            if self.criterion.needs is Needs.WEIGHTS:
                kernel = filter_columns(kernels.incoming_kernel(layer.layer).value, layer)
                saliency = self.criterion.call(tf.cast(kernel, tf.float32).numpy())
            else:
                generator = np.random.default_rng([self.seed, draw, number])
                saliency = self.criterion.call(generator, layer.filters)
            self.criterion.check(np.shape(saliency), layer.name, layer.filters)
            saliencies.append(saliency)
        return saliencies

    def reset(self) -> None:
        """Forgets all examples seen."""
        self._sums.assign(tf.zeros(self._sums.shape))
        self._examples.assign(tf.zeros(2))
