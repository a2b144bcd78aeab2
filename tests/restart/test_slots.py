"""The optimizer state of restarted filters, found here by the names of its variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

import kerasrestart as kr
from kerasrestart.restart import slots

OPTIMIZERS = {
    "sgd": (lambda: optimizers.SGD(0.01), 0),
    "momentum": (lambda: optimizers.SGD(0.01, momentum=0.9), 1),
    "nesterov": (lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True), 1),
    "adam": (lambda: optimizers.Adam(0.01), 2),
    "amsgrad": (lambda: optimizers.Adam(0.01, amsgrad=True), 3),
    "adamw": (lambda: optimizers.AdamW(0.01), 2),
    "rmsprop": (lambda: optimizers.RMSprop(0.01), 1),
    "rmsprop momentum": (lambda: optimizers.RMSprop(0.01, momentum=0.9), 2),
    "rmsprop centered": (lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True), 3),
    "average": (lambda: optimizers.SGD(0.01, use_ema=True), 1),
    "adam average": (lambda: optimizers.Adam(0.01, use_ema=True), 3),
    "accumulation": (lambda: optimizers.SGD(0.01, gradient_accumulation_steps=2), 1),
    "all": (
        lambda: optimizers.Adam(
            0.01, amsgrad=True, use_ema=True, gradient_accumulation_steps=3, clipnorm=1.0
        ),
        5,
    ),
    "loss scale": (lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)), 2),
}
CHOSEN = {"conv": [1, 3], "up": [0]}


@pytest.fixture
def net(randomized):
    def build(optimizer, fill=True):
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.ReLU(),
                # As many filters as inputs: the shape does not tell the axis.
                layers.Conv2DTranspose(4, 2, activation="relu", name="up"),
                layers.Flatten(),
                layers.Dense(3, name="logits"),
            ],
            name="net",
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        randomized(model).compile(optimizer, loss=loss)
        optimizer.build(model.trainable_variables)
        rng = np.random.default_rng(1)
        for slot in optimizer.variables:
            if fill and len(slot.shape):
                slot.assign(np.abs(rng.normal(size=slot.shape)) + 0.1)
        return model

    return build


def mask_of(weight, name):
    mask = np.zeros(weight.shape, bool)
    if name.startswith(("conv", "norm")):
        mask[..., CHOSEN["conv"]] = True
    elif name == "up_kernel":
        mask[:, :, CHOSEN["up"]] = True
    elif name == "up_bias":
        mask[CHOSEN["up"]] = True
    return mask


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_slots_of_restarted_filters_are_those_of_new_weights(case, net):
    make, slots_a_weight = OPTIMIZERS[case]
    optimizer = make()
    model = net(optimizer)
    before = [slot.numpy() for slot in optimizer.variables]
    kr.restart_filters(model, CHOSEN)
    weights = {w.path.replace("/", "_"): w for w in model.trainable_variables}
    seen = 0
    for old, slot in zip(before, optimizer.variables, strict=True):
        new = slot.numpy()
        if not new.shape:  # the step, the learning rate, the loss scale
            np.testing.assert_array_equal(new, old)
            continue
        name = next(n for n in weights if f"/{n}_" in slot.path)
        mask = mask_of(new, name.removeprefix("net_"))
        fresh = weights[name].numpy() if slot.path.endswith("_average") else np.zeros(new.shape)
        np.testing.assert_array_equal(new[mask], fresh[mask], err_msg=slot.path)
        np.testing.assert_array_equal(new[~mask], old[~mask], err_msg=slot.path)
        seen += bool(mask.any())
    assert seen == 6 * slots_a_weight  # kernel and bias of two layers, gamma and beta


# All optimizers train on in `test_slots_all_optimizers`, there without `compile`.
@pytest.mark.parametrize("case", ["average", "rmsprop centered", "all", "loss scale"])
def test_training_goes_on_with_a_finite_loss(case, net):
    model = net(OPTIMIZERS[case][0](), fill=False)
    model.run_eagerly = True
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 8)
    for _ in range(2):
        model.train_on_batch(x, y)
    kr.restart_filters(model, CHOSEN)
    kernel = model.get_layer("conv").kernel.numpy()
    assert all(np.isfinite(model.train_on_batch(x, y)) for _ in range(3))
    change = model.get_layer("conv").kernel.numpy() - kernel
    assert np.isfinite(change).all()
    assert (np.abs(change).max(axis=(0, 1, 2)) > 0).all()


class OwnSlots(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self.memories = self.add_optimizer_variables(variables, "memory")


class NoKin(optimizers.Optimizer):
    """Has slots by a name that Keras knows, of which nothing says that they mean the same."""

    def build(self, variables):
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")


class OtherShape(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self.momentums = [self.add_variable((*v.shape, 2), name="pair") for v in variables]


@pytest.mark.parametrize("make", [OwnSlots, NoKin, OtherShape])
@pytest.mark.parametrize("wrap", [lambda o: o, optimizers.LossScaleOptimizer])
def test_unknown_slots_are_an_error_before_anything_is_changed(wrap, make, net):
    optimizer = wrap(make(learning_rate=0.01))
    model = net(optimizer)
    before = [v.numpy() for v in [*model.weights, *optimizer.variables]]
    with pytest.raises(ValueError, match=f"The slots of {make.__name__} are not known") as error:
        kr.restart_filters(model, CHOSEN)
    message = str(error.value)
    assert "\n" not in message
    assert {OwnSlots: "memory", NoKin: "momentum", OtherShape: "(3, 3, 2, 4)"}[make] in message
    assert " must " in message
    after = [v.numpy() for v in [*model.weights, *optimizer.variables]]
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_unknown_slots_stop_a_fit_before_its_first_step(net, images):
    model = net(OwnSlots())
    before = model.get_weights()
    with pytest.raises(ValueError, match="The slots of OwnSlots are not known"):
        model.fit(
            np.zeros((4, 6, 6, 2)),
            np.zeros(4),
            verbose=0,
            callbacks=[kr.PartialRestart(fraction=0.25, monitor="loss")],
        )
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    assert "train_step" not in vars(model)


def test_unknown_slots_of_an_optimizer_that_is_not_built_stop_a_fit_too():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(OwnSlots(), "mse")
    assert not model.optimizer.built
    with pytest.raises(ValueError, match="The slots of OwnSlots are not known"):
        kr.PartialRestart(fraction=0.25, monitor="loss").check(model)


def test_slots_are_found_by_identity_where_the_optimizer_has_another_order(net):
    optimizer = optimizers.SGD(0.01, momentum=0.9)
    model = net(optimizers.SGD(0.01))
    model.optimizer = optimizer
    variables = model.trainable_variables
    optimizer.build(variables[::-1])
    for slot in optimizer.momentums:
        slot.assign(np.ones(slot.shape))
    kr.restart_filters(model, {"conv": [2]})
    by_path = {slot.path: slot.numpy() for slot in optimizer.momentums}
    (kernel,) = [value for path, value in by_path.items() if "conv_kernel" in path]
    assert kernel.sum(axis=(0, 1, 2)).tolist() == [18, 18, 0, 18]
    assert all(v.all() for path, v in by_path.items() if "logits" in path or "up" in path)


@pytest.mark.parametrize("inner", [False, True])
def test_the_optimizer_of_a_model_that_is_not_built_waits_for_its_variables(inner):
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(1)])
    if inner:  # one part of the model has its variables already
        model = keras.Sequential([model, layers.Dense(1)])
        model.layers[1].build((None, 1))
    model.compile("adam", "mse")
    slots.build_optimizer(model)
    assert not model.optimizer.built
    model.build((None, 6, 6, 2))
    slots.build_optimizer(model)
    assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_variables)


class FixedHead(keras.Model):
    """Trains all weights but those of its last layer, which are trainable too."""

    def train_step(self, data):
        x, y = data
        weights = self.trainable_weights[:-2]
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def test_an_optimizer_has_slots_of_what_its_step_trains_alone(images):
    runs = []
    for callbacks in [], [kr.PartialRestart(fraction=0.25, monitor="loss", control="none")]:
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 2))
        flat = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(image))
        model = FixedHead(image, layers.Dense(1)(flat))
        # It overwrites weights by their averages, which round: also those that no step trains.
        adam = optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2)
        model.compile(adam, "mse", jit_compile=False)
        model.fit(*images, epochs=2, batch_size=10, verbose=0, callbacks=callbacks)
        runs.append([v.numpy() for v in (*model.weights, *adam.variables)])
    for with_restarts, plain in zip(*runs, strict=True):
        np.testing.assert_array_equal(with_restarts, plain)


@pytest.mark.parametrize(
    ("second_moment", "lowest", "highest"), [("zero", 4.0, 25.0), ("survivors", 0.3, 1.2)]
)
def test_first_ten_steps_of_adam_are_like_the_survivors_only_with_their_moments(
    second_moment, lowest, highest
):
    rng = np.random.default_rng(0)
    kernel = keras.Variable(np.zeros((400, 10)), name="kernel")
    adam = keras.optimizers.Adam(0.01)
    adam.build([kernel])
    # After a long training with gradients of deviation 0.2.
    adam.iterations.assign(5000)
    adam._velocities[0].assign(np.full((400, 10), 0.04))
    adam._momentums[0].assign(rng.normal(0, 0.2 * np.sqrt(0.1 / 1.9), (400, 10)))
    new = np.arange(10) == 3
    slots.reset_slots(adam, kernel, new, second_moment)
    ratios, first = [], None
    for _ in range(10):
        before = np.asarray(kernel)
        adam.apply([keras.ops.convert_to_tensor(rng.normal(0, 0.2, (400, 10)), "float32")])
        moved = np.abs(np.asarray(kernel) - before)
        first = moved[:, new] if first is None else first
        ratios.append(moved[:, new].mean() / moved[:, ~new].mean())
    assert lowest < min(ratios)
    assert max(ratios) < highest
    if second_moment == "zero":
        np.testing.assert_allclose(first, 0.01 * 0.1 / np.sqrt(0.001), rtol=0.01)
