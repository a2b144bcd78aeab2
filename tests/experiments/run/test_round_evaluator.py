"""What is read of the test set, and when."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrestart.experiments.run.round_evaluator import RoundEvaluator
from kerasrestart.restart.records import Round


class Counted(keras.Sequential):
    """A model that always says its bias, and counts how often it is evaluated."""

    evaluated = 0

    def evaluate(self, *args, **kwargs):
        self.evaluated += 1
        return super().evaluate(*args, **kwargs)


@pytest.fixture
def model():
    model = Counted([keras.Input((1,)), keras.layers.Dense(2, kernel_initializer="zeros")])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    return model


def says(model, answer):
    model.set_weights([np.zeros((1, 2)), np.eye(2)[answer]])


def rounds_of(model, evaluator, accuracies):
    """An epoch for each accuracy; in epoch n the model gives the answer n."""
    of_round = Round(round=0, first_epoch=0)
    restart = types.SimpleNamespace(
        model=model, rounds=[of_round], monitor="accuracy", higher_is_better=True
    )
    for epoch, accuracy in enumerate(accuracies):
        says(model, epoch)
        of_round.add(epoch, {"accuracy": accuracy}, "accuracy", True)
        evaluator.on_epoch_end(epoch, restart)
    evaluator.on_round_end(of_round, restart)
    return evaluator.evaluations[0]


def test_best_and_last_epoch_are_tested_and_the_last_weights_stay(model):
    labels = np.array([0, 0, 0, 1])
    evaluator = RoundEvaluator(_batches(labels))
    assert rounds_of(model, evaluator, [0.9, 0.1]) == {"best": 0.75, "last": 0.25}
    assert model.evaluated == 2
    np.testing.assert_array_equal(model.get_weights()[1], [0, 1])
    np.testing.assert_array_equal(evaluator.best_weights[1], [1, 0])


def test_a_last_epoch_that_is_the_best_is_tested_once(model):
    evaluator = RoundEvaluator(_batches(np.array([0, 0, 0, 1])))
    assert rounds_of(model, evaluator, [0.1, 0.9]) == {"best": 0.25, "last": 0.25}
    assert model.evaluated == 1


def test_without_a_test_set_weights_are_kept_and_nothing_is_tested(model):
    evaluator = RoundEvaluator(None)
    assert rounds_of(model, evaluator, [0.9, 0.1]) == {"best": None, "last": None}
    assert model.evaluated == 0
    np.testing.assert_array_equal(evaluator.best_weights[1], [1, 0])


def _batches(labels):
    return tf.data.Dataset.from_tensors((np.zeros((len(labels), 1), "float32"), labels))
