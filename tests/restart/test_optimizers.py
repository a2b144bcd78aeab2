"""The optimizers that train a model are found wherever it keeps them."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import kerasrestart as kr
from kerasrestart.restart.optimizers import check_optimizers, optimizers_of


def convolutional(name, channels=2):
    return keras.Sequential(
        [
            keras.Input((6, 6, channels)),
            layers.Conv2D(4, 3, name=f"{name}_conv"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(2, name=f"{name}_out"),
        ],
        name=name,
    )


class Pair(keras.Model):
    """Two networks with an optimizer each, as a GAN has."""

    def __init__(self):
        image = keras.Input((6, 6, 2))
        one, other = convolutional("one"), convolutional("other")
        super().__init__(image, layers.Add()([one(image), other(image)]))
        self.one, self.other = one, other


def filled(optimizer, variables):
    optimizer.build(variables)
    for slot in optimizer.variables:
        if len(slot.shape):
            slot.assign(np.ones(slot.shape))
    return optimizer


def reset_filters(slots):
    """The filters for which every slot of a convolution's kernel is zero."""
    (kernel,) = [slot.numpy() for slot in slots if len(slot.shape) == 4]
    assert set(np.unique(kernel)) <= {0, 1}
    return np.flatnonzero(~kernel.any(axis=(0, 1, 2))).tolist()


def keep_in_attributes(model, one, other):
    model.one_optimizer, model.other_optimizer = one, other


def keep_in_a_dict(model, one, other):
    model.optimizers = {"one": one, "rest": [other]}


def keep_in_nested_models(model, one, other):
    model.one.compile(one, "mse")
    model.other.compile(other, "mse")


@pytest.mark.parametrize("keep", [keep_in_attributes, keep_in_a_dict, keep_in_nested_models])
def test_slots_are_reset_in_the_optimizer_that_owns_each_weight(keep):
    model = Pair()
    one = filled(optimizers.SGD(0.1, momentum=0.9), model.one.trainable_variables)
    other = filled(optimizers.SGD(0.1, momentum=0.9), model.other.trainable_variables)
    keep(model, one, other)
    kr.restart_filters(model, {"one_conv": [1], "other_conv": [0, 3]})
    assert reset_filters(one.momentums) == [1]
    assert reset_filters(other.momentums) == [0, 3]


@pytest.mark.parametrize("several", [False, True])
def test_a_given_optimizer_is_used_instead_of_the_models(several):
    model = convolutional("one")
    model.compile(optimizers.SGD(0.1, momentum=0.9), "mse")
    filled(model.optimizer, model.trainable_variables)
    own = filled(optimizers.SGD(0.1, momentum=0.9), model.trainable_variables)
    given = [own, optimizers.Adam()] if several else own
    kr.restart_filters(model, {"one_conv": [2]}, optimizer=given)
    assert reset_filters(own.momentums) == [2]
    assert reset_filters(model.optimizer.momentums) == []


@pytest.mark.parametrize("given", ["adam", [], [optimizers.Adam(), 3], optimizers.Adam])
def test_what_is_no_optimizer_is_refused(given):
    model = convolutional("one")
    before = model.get_weights()
    with pytest.raises(TypeError, match="optimizer must be a Keras optimizer or a list"):
        kr.restart_filters(model, {"one_conv": [2]}, optimizer=given)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_wrappers_are_found_once():
    model = convolutional("one")
    inner = optimizers.Adam()
    model.compile(optimizers.LossScaleOptimizer(inner), "mse")
    model.inner = inner
    model.again = [model.optimizer, {"x": model.optimizer}]
    assert optimizers_of(model) == [model.optimizer]


def test_a_weight_that_no_optimizer_trains_is_reported():
    model = Pair()
    model.one_optimizer = filled(optimizers.Adam(), model.one.trainable_variables)
    with pytest.warns(UserWarning, match=r"No optimizer .* [^ ]*/other_conv/kernel'.*optimizer=\)"):
        kr.restart_filters(model, {"one_conv": [1], "other_conv": [0]})


class OwnSlots(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self.memories = self.add_optimizer_variables(variables, "memory")


@pytest.mark.parametrize("built", [True, False])
def test_unknown_slots_in_an_attribute_are_an_error(built):
    model = convolutional("one")
    model.own_optimizer = OwnSlots(0.1)
    if built:
        model.own_optimizer.build(model.trainable_variables)
        before = model.get_weights()
        with pytest.raises(ValueError, match="The slots of OwnSlots are not known"):
            kr.restart_filters(model, {"one_conv": [1]})
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    with pytest.raises(ValueError, match="The slots of OwnSlots are not known"):
        check_optimizers(model)


def test_a_check_leaves_an_optimizer_that_is_not_built_as_it_is():
    model = convolutional("one")
    model.parts = [optimizers.Adam(), optimizers.Muon() if hasattr(optimizers, "Muon") else None]
    check_optimizers(model)
    assert not model.parts[0].built
    assert not model.parts[0].variables[2:]
