"""The parts of `PartialRestart`, each in a real, small fit of two restarts.

The expected selection is computed again from the scores in the records.
"""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart as kr
from kerasrestart.restart.summary import summary_table
from kerasrestart.scoring.criteria import Criterion, Needs

WIDTH = {"first": 8, "second": 8, "hidden": 6}
COUNTED = []


class OwnStep(keras.Model):
    """Trains with its own step, and counts its traces."""

    def train_step(self, data):
        COUNTED.append("traced")
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


def net(optimizer=None, kind=keras.Model):
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 2, activation="relu", name="second")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(6, activation="relu", name="hidden")(x)
    model = kind(image, layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.SGD(0.01), loss=loss)
    return model


def residual(last_is_private=True):
    image = keras.Input((8, 8, 2))
    stem = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(image)
    x = stem
    if last_is_private:
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add()([stem, layers.Conv2D(6, 3, padding="same", name="last")(x)])
    model = keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalMaxPooling2D()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    return model


class Watch(kr.RestartObserver):
    """Keeps all scores, weights and optimizer variables from right before and after a restart."""

    def __init__(self):
        self.scores, self.before, self.after, self.slots = [], [], [], []

    def on_restart_begin(self, event, restart):
        self.scores.append({name: of.copy() for name, of in restart.scores.items()})
        self.before.append(self._weights(restart))
        self.slots.append([self._moments(restart)])

    def on_restart_end(self, event, restart):
        self.after.append(self._weights(restart))
        self.slots[-1].append(self._moments(restart))

    def _weights(self, restart):
        return {weight.path: weight.numpy() for weight in restart.model.weights}

    def _moments(self, restart):
        optimizer, weights = restart.model.optimizer, restart.model.trainable_weights
        if not isinstance(optimizer, keras.optimizers.Adam):
            return {}
        # Adam makes its slots in the order of the trainable weights, m and v by turns, behind the
        # step counter and the learning rate.
        slots = [slot.numpy() for slot in optimizer.variables[2:]]
        assert len(slots) == 2 * len(weights)
        return {w.path: tuple(slots[2 * i : 2 * i + 2]) for i, w in enumerate(weights)}


def train(images, model=None, restarts=2, **options):
    """Trains for one epoch more than restarts; checks what all restarts have in common."""
    watch, model, verbose = Watch(), model or net(), options.pop("verbose", 0)
    restart = kr.PartialRestart(
        when=kr.EveryEpochs(1, monitor="loss"),
        max_restarts=restarts,
        stop_on_repeat=False,
        observers=[watch],
        **options,
    )
    history = model.fit(
        *images, batch_size=10, epochs=restarts + 1, verbose=verbose, callbacks=[restart]
    )
    assert np.isfinite(history.history["loss"]).all()
    assert [event.epoch for event in restart.events] == list(range(restarts))
    assert "train_step" not in vars(model)
    for event, scores in zip(restart.events, watch.scores, strict=True):
        for name, of in event.layers.items():
            assert of.scores == scores[name].tolist()
    return restart, watch


def chosen_of(event):
    return {name: of.filters for name, of in event.layers.items()}


def lowest(scores, k):
    return sorted(sorted(range(len(scores)), key=lambda i: (scores[i], i))[:k])


def quarter(*names):
    """A quarter of some layers: 2 of 8, and 2 of 6, 1.5 being rounded up."""
    return lambda scores: {name: lowest(scores[name], 2) for name in names}


def half_of_all(scores):
    """8 of the 16 filters of both layers together, and at most 4 of one."""
    ranked = sorted(
        (value, number, k, name)
        for number, (name, of) in enumerate(scores.items())
        for k, value in enumerate(of)
    )
    chosen = collections.defaultdict(list)
    for _, _, k, name in ranked:
        if sum(map(len, chosen.values())) < 8 and len(chosen[name]) < 4:
            chosen[name].append(k)
    return {name: sorted(chosen[name]) for name in scores if chosen[name]}


def up_to_mean(scores):
    """At most 2 of a layer that score up to its mean."""
    low = {
        name: [k for k in range(len(of)) if of[k] <= of.astype("float64").mean()]
        for name, of in scores.items()
    }
    return {name: lowest(scores[name], min(len(of), 2)) for name, of in low.items()}


def every_third(scores):
    return {name: list(range(0, len(of), 3)) for name, of in scores.items()}


SELECTIONS = {
    "a list of layers": ({"layers": ["second"], "fraction": 0.25}, quarter("second")),
    "a dense layer by name": ({"layers": ["hidden"], "fraction": 0.25}, quarter("hidden")),
    "a regular expression": ({"layers": "f.*t", "fraction": 0.25}, quarter("first")),
    "all with units": ({"layers": ".*", "fraction": 0.25}, quarter("first", "second", "hidden")),
    "below the mean": ({"select": kr.BelowMean(1.0, cap=0.25)}, up_to_mean),
    "of all layers": ({"select": kr.GlobalFraction(0.5)}, half_of_all),
    "an own function": ({"select": every_third}, every_third),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection_is_what_the_scores_say(name, images):
    options, expected = SELECTIONS[name]
    restart, watch = train(images, **options)
    for event, scores, before, after in zip(
        restart.events, watch.scores, watch.before, watch.after, strict=True
    ):
        chosen = chosen_of(event)
        assert chosen == expected(scores)
        assert sum(map(len, chosen.values())) >= 2
        for layer in WIDTH:
            changed = (before[f"{layer}/kernel"] != after[f"{layer}/kernel"]).reshape(
                -1, WIDTH[layer]
            )
            assert np.flatnonzero(changed.any(axis=0)).tolist() == chosen.get(layer, [])
            assert changed[:, chosen.get(layer, [])].all()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"third": [0]}, r"of \['first', 'second'\]. Received: 'third'"),
        ({"first": [0, 8]}, "indices from 0 to 7 for layer 'first'"),
        ({"first": [0, 0]}, "each filter of layer 'first' once"),
    ],
)
def test_an_own_function_that_selects_what_is_not_there_ends_training_in_one_line(
    result, message, images
):
    model = net()
    with pytest.raises(ValueError, match=message) as error:
        train(images, model, select=lambda scores: result)
    assert "\n" not in str(error.value)
    assert model.train_function is None  # it has its own step again


def scripted(*draws):
    """A criterion that gives written scores, epoch by epoch and layer by layer."""
    left = [np.array(scores, float) for epoch in draws for scores in epoch]
    return Criterion("scripted", Needs.NOTHING, lambda generator, filters: left.pop(0))


LOW_FIRST, LOW_SECOND, EQUAL = [0.0, 0.0] + [1.0] * 6, [1.0] * 6 + [0.0, 0.0], [1.0] * 8


@pytest.mark.parametrize("select", [kr.BelowMean(0.5), kr.GlobalFraction(0.12)], ids=str)
def test_a_layer_may_be_selected_that_the_last_restart_left_alone(select, images):
    draws = (LOW_FIRST, EQUAL), (EQUAL, LOW_SECOND), (EQUAL, EQUAL)
    restart, _ = train(images, criterion=scripted(*draws), select=select)
    assert [chosen_of(event) for event in restart.events] == [{"first": [0, 1]}, {"second": [6, 7]}]
    assert restart.events[1].layers["second"].reselected == 0


CRITERIA = ["taylor", "taylor_weight", "magnitude", "magnitude_l2"]
CRITERIA += ["activation", "apoz", "gradient", "random"]
CRITERIA += ["reversed_taylor_weight", "reversed_magnitude"]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_lowest_by_each_criterion_are_restarted(criterion, images):
    restart, watch = train(images, criterion=criterion, fraction=0.25)
    for event, scores in zip(restart.events, watch.scores, strict=True):
        assert chosen_of(event) == quarter("first", "second")(scores)
        for of in scores.values():
            assert len(set(of.tolist())) > 4
            assert (of <= 0).all() if criterion.startswith("reversed") else (of >= 0).all()
    assert watch.scores[0]["first"].tolist() != watch.scores[1]["first"].tolist()


@pytest.mark.parametrize(
    ("criterion", "measure"),
    [
        ("magnitude", lambda kernel: np.abs(kernel).sum(axis=(0, 1, 2))),
        ("reversed_magnitude", lambda kernel: -np.abs(kernel).sum(axis=(0, 1, 2))),
        ("magnitude_l2", lambda kernel: np.sqrt((kernel**2).sum(axis=(0, 1, 2)))),
    ],
)
def test_magnitudes_are_those_of_the_weights_at_the_restart(criterion, measure, images):
    _, watch = train(images, criterion=criterion, fraction=0.25)
    for scores, before in zip(watch.scores, watch.before, strict=True):
        for name in ("first", "second"):
            expected = measure(before[f"{name}/kernel"].astype("float64"))
            np.testing.assert_allclose(scores[name], expected, rtol=1e-5)


def test_reversed_criterion_restarts_the_most_useful_filters(images):
    def first_restart(criterion):
        keras.utils.set_random_seed(4)
        model = net(keras.optimizers.SGD(0.0))
        restart, watch = train(images, model, 1, criterion=criterion, fraction=0.25)
        return chosen_of(restart.events[0]), watch.scores[0]

    useless, scores = first_restart("taylor")
    useful, reversed_scores = first_restart("reversed_taylor")
    for name in ("first", "second"):
        np.testing.assert_allclose(reversed_scores[name], -scores[name], rtol=1e-5)
        assert useful[name] == lowest(-scores[name], 2)
        assert not set(useful[name]) & set(useless[name])


def test_random_draws_other_scores_at_each_restart_by_the_seed_alone(images):
    def draws(seed, x):
        restart, watch = train((x, images[1]), criterion="random", fraction=0.25, seed=seed)
        return [chosen_of(event) for event in restart.events], watch.scores

    x = images[0]
    chosen, (first, second) = draws(1, x)
    assert chosen[0] != chosen[1]
    assert not np.isin(first["first"], second["first"]).any()
    assert not np.isin(first["first"], first["second"]).any()
    assert draws(1, x[:, ::-1])[0] == chosen
    assert draws(2, x)[0] != chosen


@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
def test_an_own_training_step_trains_and_its_filters_are_restarted(criterion, images):
    COUNTED.clear()
    restart, watch = train(images, net(kind=OwnStep), criterion=criterion, fraction=0.25)
    assert COUNTED
    assert chosen_of(restart.events[0]) == quarter("first", "second")(watch.scores[0])


class AutoEncoder(keras.Model):
    """Has its own step and no `call`: only a batch shows what it computes."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(8, 3, activation="relu", name="first"),
                layers.Flatten(),
                layers.Dense(4, name="code"),
            ]
        )
        self.decoder = keras.Sequential([keras.Input((4,)), layers.Dense(128, name="image")])

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            image = tf.reshape(self.decoder(self.encoder(x)), tf.shape(x))
            loss = tf.reduce_mean((image - x) ** 2)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


def test_a_model_without_a_call_is_restarted_from_what_its_step_computes(images, tmp_path):
    model = AutoEncoder()
    model.compile(keras.optimizers.Adam(0.01))
    watch, board = Watch(), kr.RestartTensorBoard(tmp_path)
    restart = kr.PartialRestart(
        fraction=0.25,
        when=kr.EveryEpochs(1, monitor="loss"),
        max_restarts=1,
        observers=[watch, board],
    )
    model.fit(*images, batch_size=10, epochs=2, verbose=0, callbacks=[restart])
    (event,) = restart.events
    assert chosen_of(event) == quarter("first")(watch.scores[0])
    assert min(event.layers["first"].scores) > 0
    (path,) = [path for path in watch.before[0] if path.endswith("first/kernel")]
    changed = (watch.before[0][path] != watch.after[0][path]).any(axis=(0, 1, 2))
    assert np.flatnonzero(changed).tolist() == event.layers["first"].filters
    assert list(tmp_path.iterdir())


def test_outgoing_weights_are_zero_right_after_a_restart(images):
    restart, watch = train(images, reset=kr.Reset(outgoing="zero"), layers=".*", fraction=0.25)
    for event, before, after in zip(restart.events, watch.before, watch.after, strict=True):
        chosen = chosen_of(event)
        assert {name: len(of) for name, of in chosen.items()} == dict.fromkeys(WIDTH, 2)
        # Where a new filter reads a new filter the weights are drawn; what reads that one is zero.
        first, second, hidden = chosen["first"], chosen["second"], chosen["hidden"]
        kernel = after["second/kernel"]
        assert not np.delete(kernel, second, axis=3)[:, :, first].any()
        assert kernel[..., second].all()
        was = np.delete(before["second/kernel"], first, axis=2)
        np.testing.assert_array_equal(
            np.delete(np.delete(kernel, first, axis=2), second, axis=3),
            np.delete(was, second, axis=3),
        )
        # Flatten puts channel c of each position at 8 * position + c.
        kernel = after["hidden/kernel"].reshape(-1, 8, 6)
        assert not np.delete(kernel, hidden, axis=2)[:, second].any()
        assert kernel[..., hidden].all()
        assert not after["logits/kernel"][hidden].any()
        logits = np.delete(after["logits/kernel"], chosen["hidden"], axis=0)
        was = np.delete(before["logits/kernel"], chosen["hidden"], axis=0)
        np.testing.assert_array_equal(logits, was)
        assert after["first/kernel"][..., chosen["first"]].all()


def test_outgoing_weights_stay_by_default(images):
    restart, watch = train(images, layers=["first"], fraction=0.25)
    assert chosen_of(restart.events[0]).keys() == {"first"}
    np.testing.assert_array_equal(watch.before[0]["second/kernel"], watch.after[0]["second/kernel"])


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        (kr.Reset(outgoing="zero"), [[0, 1], [2, 3], [0, 1]]),
        (kr.Reset(outgoing="zero", grace_restarts=0), [[0, 1], [0, 1], [0, 1]]),
        (kr.Reset(outgoing="zero", grace_restarts=2), [[0, 1], [2, 3], [4, 5]]),
        (kr.Reset(outgoing="keep"), [[0, 1], [0, 1], [0, 1]]),
    ],
    ids=str,
)
def test_grace_spares_filters_without_outgoing_weights(reset, expected, images):
    by_index = Criterion("by_index", Needs.NOTHING, lambda generator, filters: np.arange(filters))
    restart, _ = train(images, restarts=3, criterion=by_index, fraction=0.25, reset=reset)
    assert [chosen_of(event) for event in restart.events] == [
        {"first": filters, "second": filters} for filters in expected
    ]


def test_layers_of_shared_channels_are_left_out_where_outgoing_weights_go(images, capsys):
    model = residual()
    restart, watch = train(images, model, reset=kr.Reset(outgoing="zero"), fraction=0.25, verbose=2)
    assert [list(event.layers) for event in restart.events] == [["inner"], ["inner"]]
    inner = restart.events[0].layers["inner"]
    assert inner.filters == lowest(inner.scores, 2)
    assert not watch.after[0]["last/kernel"][:, :, inner.filters].any()
    (message,) = [line for line in capsys.readouterr().out.splitlines() if "Left out" in line]
    assert "outgoing='zero'" in message
    assert "stem" in message
    assert "last" in message
    assert "inner" not in message
    restart, _ = train(images, model, fraction=0.25, verbose=2)
    assert [list(event.layers) for event in restart.events] == [["stem", "inner", "last"]] * 2
    assert "Left out" not in capsys.readouterr().out


def test_network_of_shared_channels_alone_is_refused_in_one_line(images):
    with pytest.raises(ValueError, match="No layer can be restarted with outgoing='zero'") as error:
        train(
            images,
            residual(last_is_private=False),
            reset=kr.Reset(outgoing="zero"),
            fraction=0.25,
        )
    assert "stem (its channels are shared with last)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("second_moment", ["survivors", "zero"])
def test_second_moments_of_new_weights_are(second_moment, images):
    model = net(keras.optimizers.Adam(0.001))
    restart, watch = train(
        images, model, reset=kr.Reset(second_moment=second_moment), fraction=0.25
    )
    for event, (before, after) in zip(restart.events, watch.slots, strict=True):
        for name, of in event.layers.items():
            for path in (f"{name}/kernel", f"{name}/bias"):
                (m_before, v_before), (m, v) = before[path], after[path]
                assert m_before[..., of.filters].any()
                assert not m[..., of.filters].any()
                survivors = np.delete(v_before, of.filters, axis=-1)
                assert survivors.mean() > 0
                mean = survivors.mean(axis=-1, keepdims=True, dtype="float64")
                expected = mean if second_moment == "survivors" else 0 * mean
                new = v[..., of.filters]
                np.testing.assert_allclose(new, np.broadcast_to(expected, new.shape), rtol=1e-5)
                for old, now in ((m_before, m), (v_before, v)):
                    np.testing.assert_array_equal(
                        np.delete(old, of.filters, axis=-1), np.delete(now, of.filters, axis=-1)
                    )
        for path in ("hidden/kernel", "logits/kernel", "logits/bias"):
            np.testing.assert_array_equal(before[path], after[path])


def matrices(weights, name, filters):
    """New filters and survivors, float64, a column for each."""
    kernel = weights[f"{name}/kernel"].astype("float64")
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return kernel[:, filters], np.delete(kernel, filters, axis=1)


def restarted(images, initializer):
    """Yields, for each restart and layer, the new filters and the survivors."""
    restart, watch = train(images, initializer=initializer, fraction=0.25)
    for event, before, after in zip(restart.events, watch.before, watch.after, strict=True):
        assert list(event.layers) == ["first", "second"]
        for name, of in event.layers.items():
            new, survivors = matrices(after, name, of.filters)
            old, same = matrices(before, name, of.filters)
            assert (new != old).all()
            np.testing.assert_array_equal(survivors, same)
            yield name, of.filters, new, survivors


def test_orthogonal_to_survivors_has_their_norm_and_none_of_their_directions(images):
    for _, _, new, survivors in restarted(images, "orthogonal_to_survivors"):
        norms = np.linalg.norm(survivors, axis=0)
        np.testing.assert_allclose(np.linalg.norm(new, axis=0), norms.mean(), rtol=1e-5)
        cosines = new.T @ survivors / norms / norms.mean()
        np.testing.assert_allclose(cosines, 0, atol=1e-5)
        assert abs(new[:, 0] @ new[:, 1]) < 1e-5 * norms.mean() ** 2


def test_norm_matched_has_the_mean_norm_of_the_survivors(images):
    for _, _, new, survivors in restarted(images, "norm_matched"):
        norm = np.linalg.norm(survivors, axis=0).mean()
        np.testing.assert_allclose(np.linalg.norm(new, axis=0), norm, rtol=1e-5)
        assert abs(new[:, 0] @ new[:, 1]) < 0.9 * norm**2


def test_clone_is_near_one_survivor_and_no_copy(images):
    for _, _, new, survivors in restarted(images, "clone"):
        differences = new[:, :, None] - survivors[:, None, :]
        share = np.sqrt((differences**2).mean(axis=0)) / survivors.std(axis=0)
        # A tenth of the parent's spread, as far as 18 to 32 numbers tell it.
        assert ((share.min(axis=1) > 0.05) & (share.min(axis=1) < 0.2)).all()
        assert share.argmin(axis=1)[0] != share.argmin(axis=1)[1]


def test_instance_of_a_keras_initializer_draws_other_weights_at_each_restart(images):
    instance = keras.initializers.RandomUniform(0.5, 0.6, seed=3)
    drawn = collections.defaultdict(list)
    for name, _, new, _ in restarted(images, instance):
        assert ((new >= 0.5) & (new <= 0.6)).all()
        drawn[name].append(new)
    for first, second in drawn.values():
        assert not np.isin(first, second).any()


def test_own_function_gets_the_whole_kernel_and_gives_the_new_weights(images):
    calls = []

    def by_seed(kernel, axis, seed, chosen):
        calls.append((tuple(kernel.shape), axis, seed, np.flatnonzero(chosen).tolist()))
        values = 1 + np.arange(np.prod(kernel.shape)).reshape(kernel.shape)
        return values * (1e-4 + seed * 1e-13)

    seen = list(restarted(images, by_seed))
    trials, calls = calls[:2], calls[2:]  # before training, so that what fails does so there
    assert [(shape, given) for shape, _, _, given in trials] == [
        *(((3, 3, 2, 8), [0, 1, 2, 3]), ((2, 2, 8, 8), [0, 1, 2, 3])),
    ]
    assert len(seen) == len(calls) == 4
    assert len({seed for _, _, seed, _ in calls}) == 4
    for (name, filters, new, _), (shape, axis, seed, given) in zip(seen, calls, strict=True):
        assert (axis, given) == (-1, filters)
        assert shape == {"first": (3, 3, 2, 8), "second": (2, 2, 8, 8)}[name]
        values = (1 + np.arange(np.prod(shape)).reshape(-1, 8))[:, filters]
        np.testing.assert_allclose(new, values * (1e-4 + seed * 1e-13), rtol=1e-6)


def for_maps_only(kernel, axis, seed, chosen):
    height, width, _, _ = kernel.shape  # a dense kernel has two axes
    return keras.random.normal(kernel.shape, stddev=1 / (height * width), seed=seed)


def test_an_initializer_that_fails_on_a_later_layer_does_so_before_training(images):
    model = net()
    before = model.get_weights()
    with pytest.raises(ValueError, match="not enough values to unpack") as error:
        train(images, model, initializer=for_maps_only, layers=".*")
    assert "Received: for_maps_only for layer 'hidden', which raised" in str(error.value)
    assert model.optimizer.iterations == 0
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    train(images, model, initializer=for_maps_only, fraction=0.25)  # the convolutions alone


@pytest.mark.parametrize("initializer", ["clone", "norm_matched", "orthogonal_to_survivors"])
@pytest.mark.parametrize(
    ("begins", "outgoing"), [("single", "keep"), ("single", "zero"), ("zero", "keep")]
)
def test_a_layer_that_could_not_be_drawn_for_yet_does_not_end_training(
    initializer, begins, outgoing, images
):
    """One filter, of which none is ever taken; or weights of zero, which training changes."""
    image = keras.Input((8, 8, 2))
    first = (
        layers.Conv2D(1, 3, name="a")
        if begins == "single"
        else layers.Conv2D(8, 3, kernel_initializer="zeros", name="a")
    )
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="ones", name="b")(first(image))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    restart, _ = train(images, model, reset=kr.Reset(initializer, outgoing), fraction=0.25)
    taken = {name for event in restart.events for name in event.layers}
    assert taken == ({"b"} if begins == "single" else {"a", "b"})


def test_adafactor_is_refused_before_training_where_its_step_would_be_not_a_number(images):
    model = net(keras.optimizers.Adafactor(0.01))
    with pytest.raises(ValueError, match="Adafactor divides zero by zero"):
        train(images, model, reset=kr.Reset(outgoing="zero"))
    assert model.optimizer.iterations == 0


def test_summary_is_the_table_of_the_events(images):
    restart, _ = train(images, fraction=0.25)
    assert restart.summary() == summary_table(restart.events)
    assert len(restart.summary().splitlines()) == 3 + 2 * 2
