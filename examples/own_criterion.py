"""Your own criteria and initializer, compared by the filters that they select.

python examples/own_criterion.py
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
import tensorflow as tf

import kerasrestart
from kerasrestart.experiments import data
from kerasrestart.scoring.criteria import Criterion, Needs


def signed_taylor(feature_map, gradient, channel_axis):
    """How much the cost would rise without the filter; below zero, the filter is harmful.

    The same as "taylor" without the absolute value: contributions of examples cancel out.
    """
    product = tf.cast(feature_map, tf.float32) * tf.cast(gradient, tf.float32)
    channel_axis %= product.shape.rank
    positions = [axis for axis in range(1, product.shape.rank) if axis != channel_axis]
    return -tf.reduce_sum(product, axis=positions)


def distance_to_nearest(kernel):
    """One minus the largest cosine to another filter of the layer: equal filters score zero."""
    unit = kernel / np.maximum(np.linalg.norm(kernel, axis=0), 1e-12)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, -1)
    return 1 - cosine.max(axis=0)


TWINS = Criterion("twins", Needs.WEIGHTS, distance_to_nearest)


def opposite_of_a_survivor(kernel, axis, seed, chosen):
    """An initializer: each new filter is the negative of a surviving one, chosen at random."""
    filters_first = np.moveaxis(kernel.numpy(), axis, 0).copy()
    parents = np.random.default_rng(seed).choice(np.flatnonzero(~chosen), np.sum(chosen))
    filters_first[chosen] = -filters_first[parents]
    return np.moveaxis(filters_first, 0, axis)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Trains, and selects filters by each criterion; returns them by criterion and layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=4000, help="images to draw")
    parser.add_argument("--epochs", type=int, default=6, help="epochs; a round has two")
    chosen = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    images = data.load("shapes", shapes_examples=chosen.examples)
    x, y = images.train.images.astype("float32") / 255, images.train.labels
    model = kerasrestart.models.mininet()
    model.compile(
        keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    restart = kerasrestart.PartialRestart(
        opposite_of_a_survivor,
        criterion=signed_taylor,
        when=kerasrestart.EveryEpochs(2, monitor="loss"),
        max_restarts=2,
    )
    model.fit(x, y, batch_size=64, epochs=chosen.epochs, verbose=2, callbacks=[restart])

    choices = {}
    for criterion in ("taylor", signed_taylor, TWINS, TWINS.reverse()):
        name = getattr(criterion, "name", None) or getattr(criterion, "__name__", criterion)
        scores = kerasrestart.score_filters(model, x, y, criterion=criterion)
        choices[name] = kerasrestart.select_filters(scores, fraction=0.1)
        print(name, {layer: filters.tolist() for layer, filters in choices[name].items()})
    return choices


if __name__ == "__main__":
    main()
