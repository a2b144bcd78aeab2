"""The channels of norms that restarted filters pass get the values of a new norm."""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr


def with_norm(norm):
    model = keras.Sequential(
        [
            *(keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="it"), norm, layers.ReLU()),
            *(layers.Flatten(), layers.Dense(2)),
        ]
    )
    for variable in norm.weights:
        variable.assign([2.0, 3.0, 4.0, 5.0])
    return model


def test_every_variable_of_a_renormalizing_batch_norm_is_reset():
    norm, new = (layers.BatchNormalization(renorm=True) for _ in range(2))
    new.build((None, 4, 4, 4))
    kr.restart_filters(with_norm(norm), {"it": [1, 3]})
    assert len(norm.weights) == 7
    for variable, fresh in zip(norm.weights, new.weights, strict=True):
        expected = np.where([False, True, False, True], fresh.numpy(), [2, 3, 4, 5])
        np.testing.assert_array_equal(variable.numpy(), expected, err_msg=variable.path)


def test_a_norms_own_initializers_count():
    norm = layers.BatchNormalization(
        gamma_initializer="zeros",
        beta_initializer=keras.initializers.Constant(0.5),
        moving_mean_initializer=keras.initializers.Constant(0.25),
        moving_variance_initializer=keras.initializers.Constant(4),
        renorm=True,
    )
    kr.restart_filters(with_norm(norm), {"it": [2]})
    values = {variable.name: variable.numpy()[2] for variable in norm.weights}
    assert values == {
        **{"gamma": 0, "beta": 0.5, "moving_mean": 0.25, "moving_variance": 4},
        **{"moving_stddev": 2, "renorm_mean": 0.25, "renorm_stddev": 2},
    }


def test_an_initializer_of_a_norm_that_draws_is_seeded_by_the_restart():
    def gamma(seed):
        norm = layers.GroupNormalization(2, gamma_initializer=keras.initializers.RandomNormal(1, 1))
        kr.restart_filters(with_norm(norm), {"it": [0, 1]}, seed=seed)
        return norm.gamma.numpy()

    np.testing.assert_array_equal(gamma(1), gamma(1))
    assert (gamma(1) != gamma(2)).tolist() == [True, True, False, False]


def test_a_frozen_gamma_is_never_written():
    norm = layers.BatchNormalization()
    model = with_norm(norm)
    norm.gamma.trainable = False
    kr.restart_filters(model, {"it": [1]})
    np.testing.assert_array_equal(norm.gamma.numpy(), [2, 3, 4, 5])
    np.testing.assert_array_equal(norm.beta.numpy(), [2, 0, 4, 5])
    np.testing.assert_array_equal(norm.moving_mean.numpy(), [2, 0, 4, 5])


class GainedNorm(layers.BatchNormalization):
    def build(self, shape):
        super().build(shape)
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")


def test_an_unknown_variable_per_channel_of_a_norm_is_reported():
    model = with_norm(GainedNorm(name="norm"))
    with pytest.warns(UserWarning, match=r"does not reset these variables .*/norm/gain"):
        kr.restart_filters(model, {"it": [1]})
