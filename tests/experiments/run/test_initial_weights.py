"""Regularisation to the initial weights, against NumPy."""

import keras
import numpy as np

from kerasrestart.experiments.run.initial_weights import regularize_to_initial_weights


def test_the_loss_grows_with_the_squared_distance_and_its_gradient_points_back():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    start = model.get_weights()
    regularize_to_initial_weights(model, 0.25)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.zeros((4, 3), "float32")  # with targets as below the data give no gradient
    rng = np.random.default_rng(0)
    moved = [w + rng.normal(size=w.shape).astype("float32") for w in start]
    model.set_weights(moved)
    y = model(x).numpy()
    distance = sum(
        ((m - s).astype("float64") ** 2).sum() for m, s in zip(moved, start, strict=True)
    )
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), 0.25 * distance, rtol=1e-5)
    model.train_on_batch(x, y)
    for was, now, initial in zip(moved, model.get_weights(), start, strict=True):
        np.testing.assert_allclose(now, was - 0.1 * 2 * 0.25 * (was - initial), atol=1e-6)


def test_the_saved_model_is_plain(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    regularize_to_initial_weights(model, 1.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.set_weights([w + 1 for w in loaded.get_weights()])
    assert not loaded.losses
