"""One pass over the data that measures all layers; it can be repeated without tracing again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasrestart.diagnosis.diagnosis import Diagnosis
from kerasrestart.diagnosis.layer_diagnosis import LayerDiagnosis
from kerasrestart.diagnosis.statistics import (
    FeatureRecord,
    FeatureSums,
    duplicates,
    effective_rank,
)
from kerasrestart.network import kernels
from kerasrestart.network.arguments import check_whole
from kerasrestart.network.filter_layers import FilterLayer, find_filter_layers
from kerasrestart.network.own_training import has_own_loss
from kerasrestart.scoring import criteria
from kerasrestart.scoring.affine_weights import filter_columns
from kerasrestart.scoring.batches import (
    as_batches,
    batch_runner,
    call_in_inference,
    has_targets,
    metrics_kept,
)
from kerasrestart.scoring.loss_scale import LossScale
from kerasrestart.scoring.over_mean import lowest_over_mean
from kerasrestart.scoring.plan import ReadingPlan
from kerasrestart.scoring.reduction import check_reductions
from kerasrestart.scoring.replicas import sum_variable
from kerasrestart.scoring.scorer import Scorer
from kerasrestart.scoring.train_step import batch_size_of

DORMANT, USELESS, DUPLICATE = 0.025, 0.1, 0.99


class DiagnosisPass:
    """Measures a model over the same data, as often as `run` is called.

    The arguments are those of `kerasrestart.diagnose`.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        *,
        layers: str | Sequence[str] | None = ".*",
        batch_size: int = 128,
        max_width: int = 1024,
        seed: int = 0,
    ):
        check_whole("max_width", max_width, 1)
        check_whole("seed", seed, 0)
        batches = as_batches(x, y, size=batch_size)
        self._model = model
        found = find_filter_layers(model, layers, data=batches.element_spec, training=False)
        self._layers: dict[str, FilterLayer] = found.layers
        self._names = list(found.layers)
        may_score = bool(model.compiled and model.optimizer is not None)
        if model.loss is not None and not has_targets(batches):
            may_score = False
        self._notes = [f"{name} is left out: {why}." for name, why in found.unreached.items()]
        if may_score:
            try:
                check_reductions(model)
            except ValueError as error:
                may_score = False
                self._notes.append(f"No scores, so that useless filters are not known: {error}")
        self._loss_scale = LossScale(model) if may_score else None
        self._scored = False  # until a loss is seen
        self._out_of_reach: dict[int, str] = {}
        self._scorer = Scorer(model, "taylor", found=found)
        self._criterion = criteria.get("activation")
        self._plan = ReadingPlan(found.graph, list(found.layers.values()), self._criterion)
        of_layers = list(found.layers.values())
        self._kernels = [kernels.incoming_kernel(layer.layer) for layer in of_layers]
        strategy = model.distribute_strategy
        with strategy.scope():
            self._sums = [FeatureSums(layer, max_width, seed) for layer in of_layers]
            self._gradients = [sum_variable(tf.zeros(k.shape), "gradient") for k in self._kernels]
            self._examples = sum_variable(tf.zeros(()), "examples")
        self._run = batch_runner(model, self._measure, batches)

    def _measure(self, x: Any, y: Any, sample_weight: Any) -> None:
        model, size = self._model, batch_size_of(x)
        features = FeatureRecord(self._plan, self._criterion)
        self._examples.assign_add(tf.cast(size, tf.float32))
        if self._loss_scale is not None:
            with (
                tf.GradientTape() as tape,
                self._scorer.record() as record,
                features.listening(),
            ):
                y_pred = call_in_inference(model, x)
                has_loss = model.loss is not None or model.losses or has_own_loss(model)
                self._scored = bool(has_loss)
                if self._scored:
                    loss = self._loss_scale.scaled_loss(x, y, y_pred, sample_weight)
            if self._scored:
                factor = self._loss_scale.to_example_scale(size, sample_weight)
                gradients = self._scorer.gradients(
                    tape, loss, self._kernels, record, batch_size=size, loss_to_example_scale=factor
                )
                for variable, gradient in zip(self._gradients, gradients, strict=True):
                    if gradient is not None:
                        variable.assign_add(tf.cast(gradient, tf.float32) * factor)
        else:
            with features.listening():
                call_in_inference(model, x)
        self._out_of_reach |= features.out_of_reach
        for number, feature_map, axis in features.features:
            self._sums[number].add(feature_map, axis)

    def run(self) -> Diagnosis:
        """Measures the model as it is now.

        Raises:
            ValueError: There is no example.
        """
        with metrics_kept(self._model):
            if self._loss_scale is None:
                self._all_examples()
            else:
                self._loss_scale.run(self._all_examples)
        examples = int(self._examples.read_value())
        if not examples:
            raise ValueError("There is no example to diagnose the model by: x is empty.")
        scored = self._scored and len(self._scorer.left_out) < len(self._scorer.layers)
        scores = self._scorer.result() if scored else {}
        layers, notes = {}, list(self._notes)
        if scored:
            notes += [f"{name} has no score: {why}." for name, why in self._scorer.left_out.items()]
        for number, name in enumerate(self._names):
            if number in self._out_of_reach:
                notes.append(f"{name} is left out: {self._out_of_reach[number]}.")
                continue
            layers[name] = self._layer(number, scores.get(name), examples)
            if layers[name].width < layers[name].filters:
                notes.append(
                    f"{name}: rank and duplicates are of a random sample of "
                    f"{layers[name].width} of {layers[name].filters} filters."
                )
        return Diagnosis(layers, examples, tuple(notes))

    def _all_examples(self) -> bool:
        """Measures from the beginning; returns whether all gradients are finite."""
        for sums in self._sums:
            sums.reset()
        for variable in (*self._gradients, self._examples):
            variable.assign(tf.zeros(variable.shape))
        self._scorer.reset()
        self._run()
        gradients = [gradient.read_value() for gradient in self._gradients]
        return self._scorer.is_finite and all(np.isfinite(one).all() for one in gradients)

    def _layer(self, number: int, scores: np.ndarray | None, examples: int) -> LayerDiagnosis:
        layer = self._layers[self._names[number]]
        features = self._sums[number].result()
        mean = features.magnitude.mean()
        lowest = useless = gradient_norm = None
        if scores is not None:
            useless = _indices(scores <= USELESS * scores.mean(dtype=np.float64))
            lowest = lowest_over_mean(scores)
            gradient = self._gradients[number].read_value() / examples
            gradient_norm = _mean_norm(gradient, layer)
        return LayerDiagnosis(
            filters=layer.filters,
            dead=_indices(features.nonzero == 0),
            dormant=_indices(features.magnitude <= DORMANT * mean),
            useless=useless,
            duplicate=tuple(duplicates(features, DUPLICATE).tolist()),
            effective_rank=effective_rank(features.gram),
            width=len(features.sampled),
            weight_norm=_mean_norm(self._kernels[number].value, layer),
            gradient_norm=gradient_norm,
            lowest_score=lowest,
        )


def _indices(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def _mean_norm(kernel: tf.Tensor, layer: FilterLayer) -> float:
    columns = np.asarray(filter_columns(tf.cast(kernel, tf.float64), layer))
    return float(np.linalg.norm(columns, axis=0).mean())
