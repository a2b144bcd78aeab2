"""Each preset against its paper's rule, computed independently in NumPy and float64.

What is compared: which filters, the new weights, all other numbers, and the optimizer state. The
random numbers themselves come from the network; their distribution is checked.
"""

import keras
import numpy as np
import pytest
from keras import layers

import kerasrestart as kr
from kerasrestart.restart.initializers import NormMatched
from kerasrestart.restart.presets import PRESETS


def compiled(model, optimizer):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def perceptron(optimizer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu", name="first"),
            layers.Dense(5, activation="relu", name="second"),
            layers.Dense(3, name="logits"),
        ]
    )
    for layer in model.layers:
        layer.bias.assign(keras.random.normal(layer.bias.shape, stddev=0.3))
    return compiled(model, optimizer)


@pytest.fixture
def examples():
    rng = np.random.default_rng(5)
    return rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)


class Snapshots(keras.callbacks.Callback):
    """All numbers of the model and its optimizer at the beginning of each batch or epoch."""

    def __init__(self, batches=True):
        super().__init__()
        self.batches, self.taken = batches, []

    def take(self):
        variables = [*self.model.weights, *self.model.optimizer.variables]
        own = f"{self.model.name}/"
        self.taken.append({v.path.removeprefix(own): np.array(v) for v in variables})

    def on_train_batch_begin(self, batch, logs=None):
        if self.batches:
            self.take()

    def on_epoch_begin(self, epoch, logs=None):
        if not self.batches:
            self.take()


def snapshots(model, restart, data, *, batches=True, **options):
    """Trains; returns what was there before and after the callback, at each beginning."""
    before, after = Snapshots(batches), Snapshots(batches)
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    model.fit(*data, callbacks=[before, restart, after], **options)
    return before.taken, after.taken


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def chosen(event):
    return {name: layer.filters for name, layer in event.layers.items()}


class ContinualBackprop:
    """SGD with momentum, and after each step the paper's algorithm 1, for two hidden layers."""

    def __init__(self, weights, *, rate, maturity, decay, rate_of_learning, momentum):
        self.w = [np.array(v, "float64") for v in weights]  # W1 b1 W2 b2 W3 b3
        self.v = [np.zeros_like(v) for v in self.w]
        self.rate, self.maturity, self.decay = rate, maturity, decay
        self.learning, self.momentum = rate_of_learning, momentum
        sizes = [6, 5]
        self.utility, self.mean, self.age = ([np.zeros(n) for n in sizes] for _ in range(3))
        self.due = [0.0, 0.0]

    def step(self, x, y):
        w1, b1, w2, b2, w3, b3 = self.w
        h1 = np.maximum(x @ w1 + b1, 0)
        h2 = np.maximum(h1 @ w2 + b2, 0)
        d3 = (softmax(h2 @ w3 + b3) - np.eye(3)[y]) / len(x)
        d2 = (d3 @ w3.T) * (h2 > 0)
        d1 = (d2 @ w2.T) * (h1 > 0)
        gradients = [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d3, d3.sum(0)]
        for w, v, g in zip(self.w, self.v, gradients, strict=True):
            v[:] = self.momentum * v - self.learning * g
            w += v
        return self.test([h1, h2])

    def test(self, features):
        replaced = {}
        for layer, h in enumerate(features):
            outgoing = np.abs(self.w[2 * layer + 2]).sum(axis=1)
            keep = self.decay
            self.age[layer] += 1
            self.utility[layer] = keep * self.utility[layer] + (1 - keep) * outgoing * np.abs(
                h
            ).mean(0)
            self.mean[layer] = keep * self.mean[layer] + (1 - keep) * h.mean(0)
            corrected = self.utility[layer] / (1 - keep ** self.age[layer])
            eligible = np.flatnonzero(self.age[layer] > self.maturity)
            self.due[layer] += self.rate * len(eligible)
            count = int(self.due[layer])
            if count:
                self.due[layer] -= count
                lowest = eligible[np.argsort(corrected[eligible])[:count]]
                replaced[layer] = np.sort(lowest)
        return replaced

    def replace(self, replaced, drawn):
        for layer, units in replaced.items():
            w, b, out, next_bias = self.w[2 * layer : 2 * layer + 4]
            w[:, units], b[units] = drawn[layer][:, units], 0
            corrected = self.mean[layer] / (1 - self.decay ** self.age[layer])
            next_bias += corrected[units] @ out[units]
            out[units] = 0
            self.v[2 * layer][:, units] = 0
            self.v[2 * layer + 1][units] = 0
            self.v[2 * layer + 2][units] = 0
            self.age[layer][units] = self.utility[layer][units] = self.mean[layer][units] = 0


def test_continual_backprop_is_the_algorithm_of_the_paper(examples):
    settings = {"maturity": 3, "decay": 0.9}
    model = perceptron(keras.optimizers.SGD(0.1, momentum=0.8))
    reference = ContinualBackprop(
        model.get_weights(), rate=0.05, rate_of_learning=0.1, momentum=0.8, **settings
    )
    when = kr.EverySteps(1, replacement_rate=0.05, **settings)
    restart = kr.PartialRestart.preset("continual_backprop", when=when)
    _, after = snapshots(model, restart, examples, epochs=3)
    events = {event.step: chosen(event) for event in restart.events}
    paths = [v.path.partition("/")[2] for v in model.trainable_variables]
    seen = set()
    for step in range(1, len(after)):
        batch = np.arange(8) + 8 * ((step - 1) % 8)
        replaced = reference.step(examples[0][batch].astype("float64"), examples[1][batch])
        names = {("first", "second")[layer]: units.tolist() for layer, units in replaced.items()}
        assert names == events.get(step, {})
        drawn = [after[step][paths[0]], after[step][paths[2]]]
        for layer, units in replaced.items():
            bound = np.sqrt(6 / (4, 6)[layer])  # Kaiming's, for ReLU
            new = drawn[layer][:, units]
            assert (np.abs(new) <= bound).all()
            assert np.abs(new).max() > bound / 10
        reference.replace(replaced, drawn)
        for path, expected in zip(paths, reference.w, strict=True):
            np.testing.assert_allclose(after[step][path], expected, rtol=1e-3, atol=2e-5)
        for velocity, expected in zip(velocities(after[step]), reference.v, strict=True):
            np.testing.assert_allclose(velocity, expected, rtol=1e-3, atol=2e-5)
        seen |= {(len(replaced), layer) for layer in replaced}
    assert {layer for _, layer in seen} == {0, 1}
    assert max(count for count, _ in seen) == 2  # also both layers after the same batch


def velocities(snapshot):
    return [value for path, value in snapshot.items() if "momentum" in path]


def test_redo_recycles_dormant_units_every_so_many_batches(examples):
    model = perceptron(keras.optimizers.Adam(1e-3))
    for name, unit in (("first", 2), ("first", 4), ("second", 1)):
        model.get_layer(name).bias.assign(
            np.where(
                np.arange(model.get_layer(name).units) == unit, -50, model.get_layer(name).bias
            )
        )
    preset = PRESETS["redo"]()
    assert (preset["when"].steps, preset["select"].fraction) == (1000, 0.025)
    # Not two layers at once: the paper's code sets the weights between to zero.
    restart = kr.PartialRestart.preset(
        "redo", when=kr.EverySteps(4, maturity=0, decay=0.9), layers="first"
    )
    before, after = snapshots(model, restart, examples, epochs=1)

    running, share = 0.0, 0.0
    for step in range(4):
        w, b = (before[step][f"first/{name}"].astype("float64") for name in ("kernel", "bias"))
        h = np.maximum(examples[0][8 * step :][:8].astype("float64") @ w + b, 0)
        running = 0.9 * running + 0.1 * np.abs(h).mean(0)
        share = 0.9 * share + 0.1
    score = running / share
    dormant = np.flatnonzero(score / score.mean() <= 0.025)
    assert {2, 4} <= set(dormant)
    assert restart.events[0].step == 4
    assert chosen(restart.events[0]) == {"first": dormant.tolist()}

    old, new = before[4], after[4]
    bound = np.sqrt(6 / (4 + 6))  # Glorot's, the layer's own
    kernel = new["first/kernel"][:, dormant]
    assert (np.abs(kernel) <= bound).all()
    assert np.abs(kernel).max() > bound / 5
    assert not np.isclose(kernel, old["first/kernel"][:, dormant]).any()
    np.testing.assert_array_equal(new["first/bias"][dormant], 0)
    np.testing.assert_array_equal(new["second/kernel"][dormant], 0)
    unchanged = {
        "first/kernel": np.s_[:, np.setdiff1d(np.arange(6), dormant)],
        "first/bias": np.setdiff1d(np.arange(6), dormant),
        "second/kernel": np.setdiff1d(np.arange(6), dormant),
    }
    for path, value in new.items():
        name = next((n for n in unchanged if n.replace("/", "_") in path or n == path), None)
        if name is None:
            np.testing.assert_array_equal(value, old[path])
            continue
        rest = unchanged[name]
        np.testing.assert_array_equal(value[rest], old[path][rest])
        if path != name:  # Adam's moments
            mask = np.ones(value.shape, bool)
            mask[rest] = False
            np.testing.assert_array_equal(value[mask], 0)
    assert sum(path.endswith(("momentum", "velocity")) for path in new) == 12


def test_han_zhang_is_algorithm_1(images):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(10, 1, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="logits"),
        ]
    )
    compiled(model, keras.optimizers.SGD(0.0, momentum=0.9))
    preset = PRESETS["han_zhang"]()
    assert preset["when"].learning_rate_drops == 1
    # A rate of 0: the loss has stopped falling, and the scores are those of these weights.
    restart = kr.PartialRestart.preset(
        "han_zhang", when=kr.OnPlateau("val_loss", patience=1, learning_rate_drops=1)
    )
    w, b, v, c = (value.astype("float64") for value in model.get_weights())
    before, after = snapshots(
        model, restart, images, batches=False, validation_data=images, epochs=6
    )

    x, y = images[0].astype("float64"), images[1]
    z = np.maximum(x @ w[0, 0] + b, 0)
    of_mean = (softmax(z.mean(axis=(1, 2)) @ v + c) - np.eye(3)[y]) @ v.T
    gradient = np.broadcast_to(of_mean[:, None, None] / 64, z.shape)
    score = np.abs((z * gradient).sum(axis=(1, 2)) / 64).mean(axis=0)
    event = restart.events[0]
    np.testing.assert_allclose(event.layers["conv"].scores, score, rtol=1e-4)
    lowest = int(np.argmin(score))
    assert chosen(event) == {"conv": [lowest]}  # a tenth of ten

    changed = event.epoch + 1
    kernel = after[changed]["conv/kernel"]
    assert (np.abs(kernel[..., lowest]) <= 0.05).all()
    others = np.arange(10) != lowest
    np.testing.assert_array_equal(kernel[..., others], before[changed]["conv/kernel"][..., others])
    np.testing.assert_array_equal(after[changed]["logits/kernel"], before[changed]["logits/kernel"])


def correlated(optimizer):
    """Two convolutions, some of whose filters overlap."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(5, 3, activation="sigmoid", name="first"),
            layers.Conv2D(5, 2, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ]
    )
    kernel = np.array(model.get_layer("second").kernel)
    kernel[..., 3] = 0.5 * kernel[..., 0] + 0.1 * kernel[..., 1]
    model.get_layer("second").kernel.assign(kernel)
    return compiled(model, optimizer)


def overlap(kernel):
    """Equation 2 of the paper, one pair of filters at a time."""
    rows = np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1).astype("float64")
    unit = [row / np.sqrt((row**2).sum()) for row in rows]
    return [
        sum(abs((a * b).sum()) for j, b in enumerate(unit) if j != i) / len(unit)
        for i, a in enumerate(unit)
    ]


def repr_preset(**options):
    reset = kr.Reset("orthogonal_to_survivors", outgoing="zero", grace_restarts=0, drop_epochs=2)
    when = kr.EveryEpochs(1, monitor="loss")
    return kr.PartialRestart.preset("repr", reset=reset, when=when, **options)


def test_repr_drops_the_filters_that_overlap_most_and_brings_them_back_orthogonal(images):
    preset = PRESETS["repr"]()
    assert (preset["when"].epochs, preset["reset"].drop_epochs) == (20, 10)
    model = correlated(keras.optimizers.Adam(0.01))
    restart = repr_preset(max_restarts=1)
    before, after = snapshots(model, restart, images, batches=False, epochs=4)

    at_drop = before[1]
    scores = [
        (value, name, k)
        for name in ("first", "second")
        for k, value in enumerate(overlap(at_drop[f"{name}/kernel"]))
    ]
    most = sorted(scores, reverse=True)[:3]  # 30 % of all 10
    dropped = {}
    for _, name, k in most:
        dropped.setdefault(name, []).append(k)
    event = restart.events[0]
    assert event.epoch == 0
    assert chosen(event) == {name: sorted(filters) for name, filters in sorted(dropped.items())}
    assert "second" in dropped

    readers = {"first": "second/kernel", "second": "logits/kernel"}
    for name, filters in chosen(event).items():
        # Dropped: in all epochs between, no step gives them an outgoing weight back.
        for epoch in (after[1], before[2], after[2], before[3]):
            of_filter = outgoing(epoch[readers[name]], name, filters)
            np.testing.assert_array_equal(of_filter, 0)
        assert outgoing(after[0][readers[name]], name, filters).all()
        # And without them they learn nothing: so the new weights are orthogonal to the old.
        incoming = f"{name}/kernel"
        old = at_drop[incoming][..., filters]
        if name == "second":  # what is dropped before it is read by zeros
            old[:, :, chosen(event).get("first", [])] = 0
        np.testing.assert_array_equal(before[3][incoming][..., filters], old)
        new = after[3][incoming]
        others = np.delete(new, filters, axis=-1)
        np.testing.assert_array_equal(others, np.delete(before[3][incoming], filters, axis=-1))
        flat = new[..., filters].reshape(-1, len(filters)).astype("float64")
        avoided = np.concatenate([others.reshape(len(flat), -1), old.reshape(len(flat), -1)], 1)
        assert np.abs(flat.T @ avoided).max() < 1e-5 * np.abs(avoided).max()
        norms = np.linalg.norm(others.reshape(len(flat), -1), axis=0)
        np.testing.assert_allclose(np.linalg.norm(flat, axis=0), norms.mean(), rtol=1e-5)
        for path in after[3]:
            if f"{name}_kernel" in path:
                np.testing.assert_array_equal(after[3][path][..., filters], 0)
    assert model.get_layer("second").kernel.constraint is None


def outgoing(kernel, name, filters):
    """The weights that read some filters: of the second convolution, after a flattening."""
    if name == "first":
        return kernel[:, :, filters, :]
    return np.concatenate([kernel[k::5] for k in filters])


def test_network_without_the_dropped_filters_is_the_smaller_network(images):
    model = correlated(keras.optimizers.SGD(0.1, momentum=0.9))
    restart, dropped = repr_preset(max_restarts=1), {}

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                dropped.update(chosen(restart.state.pending.event))
                self.model.stop_training = True

    model.fit(*images, epochs=9, verbose=0, callbacks=[restart, Stop()])
    assert sum(map(len, dropped.values())) == 3
    first, second, logits = (
        model.get_layer(n).get_weights() for n in ("first", "second", "logits")
    )
    kept = {name: np.setdiff1d(np.arange(5), dropped.get(name, [])) for name in ("first", "second")}
    small = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(len(kept["first"]), 3, activation="sigmoid"),
            layers.Conv2D(len(kept["second"]), 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    read = logits[0].reshape(25, 5, 3)[:, kept["second"]].reshape(-1, 3)
    small.set_weights(
        [
            first[0][..., kept["first"]],
            first[1][kept["first"]],
            second[0][:, :, kept["first"]][..., kept["second"]],
            second[1][kept["second"]],
            read,
            logits[1],
        ]
    )
    np.testing.assert_allclose(
        model.predict(images[0], verbose=0), small.predict(images[0], verbose=0), atol=1e-5
    )


def test_unknown_preset_and_wrong_override_are_refused():
    with pytest.raises(ValueError, match=r"name must be one of .*'redo'.* Received: 'rede'"):
        kr.PartialRestart.preset("rede")
    with pytest.raises(ValueError, match="'redo' sets the whole part select"):
        kr.PartialRestart.preset("redo", fraction=0.1)
    assert kr.PartialRestart.preset("redo", seed=3).plan.seed == 3


def test_own_draws_by_the_initializer_of_each_layer():
    ranges = {"low": (3, 4), "high": (5, 6)}
    model = keras.Sequential(
        [
            keras.Input((6,)),
            *(
                layers.Dense(6, kernel_initializer=keras.initializers.RandomUniform(*of), name=name)
                for name, of in ranges.items()
            ),
            layers.Dense(2),
        ]
    )
    for layer in model.layers:
        layer.kernel.assign(layer.kernel * 0)
    kr.restart_filters(model, {name: [1, 4] for name in ranges}, initializer="own", seed=0)
    for name, (low, high) in ranges.items():
        kernel = np.asarray(model.get_layer(name).kernel)[:, [1, 4]]
        assert ((kernel >= low) & (kernel <= high)).all()
    with pytest.raises(ValueError, match="another in each layer"):
        NormMatched("own")
