"""Scores of newer blocks against a brute force: one example at a time, products in float64.

The feature map of each convolution is named by hand. A layer's `call` is watched as it runs; a ReLU
behind the named layer may be left out, since it leaves sum(z * dC/dz) as it is.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrestart as kr
from kerasrestart.network.filter_layers import find_filter_layers
from tests.zoo import modern
from tests.zoo.kinds import KINDS

EXAMPLES = 3


def inside(model, kind):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def of_the_only_norm(model):
    """The only norm, and the convolution that it reads."""
    (norm,) = inside(model, keras.layers.BatchNormalization)
    (layer,) = [c for c in inside(model, keras.layers.Conv2D) if c.output is norm.input]
    return {layer: norm}


def of_ghosts(model):
    ghosts = inside(model, modern.Ghost)
    pairs = [((g.primary, g.primary_norm), (g.cheap, g.cheap_norm)) for g in ghosts]
    return dict(pair for both in pairs for pair in both)


def of_shuffles(model):
    units = inside(model, modern.ShuffleUnit)
    return {
        layer: norm
        for u in units
        for layer, norm in zip((u.reduce, u.depthwise, u.expand), u.norms, strict=True)
    }


def of_convnext(model):
    (block,) = inside(model, modern.ConvNeXtBlock)
    stem, norm = model.layers[1:3]
    return {stem: norm, block.depthwise: block.norm}


def cross_entropy(y, logits):
    return tf.reduce_logsumexp(logits) - logits[0, int(y[0])]


def squared_error(y, out):
    return tf.reduce_mean((out - y) ** 2)


def two_tasks(y, out):
    return cross_entropy(y[0], out[0]) + cross_entropy(y[1], out[1])


NORMS = {
    "ConvNeXt block with layer scale": of_convnext,
    "Ghost module": of_ghosts,
    "ShuffleNet unit (split and shuffle)": of_shuffles,
    "Feature-wise modulation (FiLM)": of_the_only_norm,
    "Stochastic depth": of_the_only_norm,
}
COSTS = {"UNet++, subclassed": squared_error, "Second task behind stop_gradient": two_tasks}
NAMES = [
    *("Inception block as a Layer", "Gathered positions (deformable)", "Maxout"),
    *("Siamese network of two input sizes", *COSTS, *NORMS),
]


@contextlib.contextmanager
def watched(layers):
    """The outputs of layers, for each call of them."""
    outputs = {id(layer): [] for layer in layers}

    def watching(layer, own):
        def call(*args, **kwargs):
            output = own(*args, **kwargs)
            outputs[id(layer)].append(output)
            return output

        return call

    for layer in layers:
        object.__setattr__(layer, "call", watching(layer, layer.call))
    try:
        yield outputs
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def brute_force(model, x, y, cost, convolutions, places):
    sums = dict.fromkeys(convolutions, 0)
    for example in range(EXAMPLES):
        one_x, one_y = keras.tree.map_structure(lambda a, i=example: a[i : i + 1], (x, y))
        with (
            watched({*convolutions.values(), *places.values()}) as outputs,
            tf.GradientTape() as tape,
        ):
            value = cost(one_y, model(one_x, training=False))
        for key, gradients in tape.gradient(
            value, {key: outputs[id(place)] for key, place in places.items()}
        ).items():
            own = outputs[id(convolutions[key])]
            for z, gradient, made in zip(outputs[id(places[key])], gradients, own, strict=True):
                product = z.numpy().astype("float64") * gradient.numpy().astype("float64")
                positions = np.prod(made.shape[1:-1])
                sums[key] += abs(product.sum(axis=(0, 1, 2))) / positions / EXAMPLES
    return sums


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_what_runs_equal_the_brute_force(name, randomized):
    example = KINDS[name]()
    model = example.model
    x, y = keras.tree.map_structure(lambda a: a[:EXAMPLES], (example.x, example.y))
    model(keras.tree.map_structure(lambda a: a[:1], x))  # builds a subclass
    randomized(model)
    scores = kr.score_filters(model, x, y, batch_size=2)
    found = find_filter_layers(model)
    convolutions = {key: layer.layer for key, layer in found.layers.items()}
    norms = NORMS.get(name, lambda model: {})(model)
    assert set(map(id, norms)) <= set(map(id, convolutions.values()))
    places = {key: norms.get(layer, layer) for key, layer in convolutions.items()}
    cost = COSTS.get(name, cross_entropy)
    expected = brute_force(model, x, y, cost, convolutions, places)
    assert list(scores) == list(expected)
    alive = [values.max() > 0 for values in expected.values()]
    assert sum(alive) > len(alive) / 2, "a reference of nothing proves nothing"
    for key, values in expected.items():
        atol = 1e-4 * values.max()
        np.testing.assert_allclose(scores[key], values, rtol=0, atol=atol, err_msg=key)
