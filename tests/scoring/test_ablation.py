"""The purpose of scores: they predict the change of the loss when a filter is removed."""

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr

import kerasrestart as kr


def stripes(examples, rng):
    """Easy images: noise with a wave, whose direction and colour make the class."""
    y = rng.integers(0, 6, examples)
    across, along = np.meshgrid(np.arange(16), np.arange(16))
    angle, phase = np.pi * (y % 3) / 3, rng.uniform(0, 2 * np.pi, examples)
    way = np.cos(angle)[:, None, None] * across + np.sin(angle)[:, None, None] * along
    wave = np.sin(way + phase[:, None, None])
    colours = np.where((y < 3)[:, None], (1.0, 0.8, 0.0), (1.0, 0.0, 0.8))
    x = rng.normal(scale=0.7, size=(examples, 16, 16, 3))
    return (x + wave[..., None] * colours[:, None, None]).astype("float32"), y


def test_scores_rank_filters_as_taking_them_out_does():
    x, y = stripes(768, np.random.default_rng(0))
    model = kr.models.mininet(input_shape=(16, 16, 3), classes=6)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss=loss)
    history = model.fit(x[:512], y[:512], batch_size=64, epochs=5, verbose=0)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
    x, y = x[512:], y[512:]
    scores = kr.score_filters(model, x, y)

    loss_now = tf.function(lambda: loss(y, model(x, training=False)))
    whole = float(loss_now())
    correlations = {}
    for name, of_layer in scores.items():
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        changes = []
        for k in range(layer.filters):
            others = np.arange(layer.filters) != k
            # Its feature map is ReLU(0) = 0 everywhere.
            layer.set_weights([kernel * others, bias * others])
            changes.append(abs(float(loss_now()) - whole))
        layer.set_weights([kernel, bias])
        correlations[name] = spearmanr(of_layer, changes).statistic
    assert len(correlations) == 3
    assert min(correlations.values()) > 0.5, correlations
