"""The benchmarks measure what they say; their results are not tested."""

import keras
import numpy as np
import pytest

import kerasrestart as kr
from benchmarks import between_batches, deep, overhead, peers
from benchmarks.networks import NETWORKS, Network
from benchmarks.new_weights import CountingAdam
from benchmarks.timing import Cost, Row, ratios, table
from benchmarks.turns import Turns

TINY = Network("kerasrestart.models", "mininet", side=8, batch=4, steps=8, most=1.02)


def test_epochs_of_all_kinds_are_timed_without_the_warm_up():
    costs = overhead.epoch_costs(TINY, steps=8, pairs=2)
    assert [len(of_kind) for of_kind in costs] == [2, 2, 2]
    assert all(0 < cost.wall < 60 and cost.cpu > 0 for of_kind in costs for cost in of_kind)


def test_restarts_are_counted_and_nothing_is_traced_after_the_first_epoch():
    events, step, traces = overhead.restart_costs(TINY, steps=2, restarts=2)
    assert len(events) == 2
    assert step.wall > 0
    assert traces == 0


def test_restarts_between_batches_are_made_in_every_kind():
    costs, restarts = between_batches.epoch_costs(TINY, steps=15, pairs=1, every=4)
    assert [len(of_kind) for of_kind in costs.values()] == [1] * 5
    assert len(restarts) == 4
    first, *_, last = restarts.values()
    assert first == last == 7
    assert all(restarts.values())


def test_adam_with_a_count_for_each_weight_begins_again_where_the_count_does():
    rng = np.random.default_rng(0)
    old, new, whole = (keras.Variable(np.zeros(4), name=name) for name in ("old", "new", "whole"))
    adams = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1), CountingAdam(0.1)
    for adam, variable in zip(adams, (old, new, whole), strict=True):
        adam.build([variable])

    def step(chosen):
        gradient = keras.ops.convert_to_tensor(rng.normal(size=4), "float32")
        for adam in chosen:
            adam.apply([gradient])

    for _ in range(3):
        step((adams[0], adams[2]))
    is_new = np.arange(4) == 1
    counting = adams[2]
    for slot in (counting._momentums[0], counting._velocities[0], counting.counts[0], whole):
        slot.assign(np.where(is_new, 0, np.asarray(slot)))
    for _ in range(3):
        step(adams)
    expected = np.where(is_new, np.asarray(new), np.asarray(old))
    np.testing.assert_allclose(np.asarray(whole), expected, rtol=1e-4)


class Heard(keras.callbacks.Callback):
    def __init__(self, name, heard):
        super().__init__()
        self.name, self.heard = name, heard

    def on_epoch_begin(self, epoch, logs=None):
        self.heard.append((epoch, self.name, "begins"))

    def on_epoch_end(self, epoch, logs=None):
        self.heard.append((epoch, self.name, "ends"))


def linear():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def fits(turns, names, heard, epochs):
    models = [linear() for _ in names]
    return [
        lambda n=n: models[n].fit(
            np.ones((2, 2)),
            np.ones((2, 1)),
            epochs=epochs[n],
            verbose=0,
            callbacks=turns.around(n, [Heard(names[n], heard)]),
        )
        for n in range(len(names))
    ]


def test_turns_go_round_by_epochs():
    turns, heard = Turns(2), []
    costs = turns.run(fits(turns, "AB", heard, [3, 3]))
    order = [(epoch, name) for epoch, name, _ in heard[::2]]
    assert order == [(epoch, name) for epoch in range(3) for name in "AB"]
    assert [step for *_, step in heard] == ["begins", "ends"] * 6
    assert [len(of_fit) for of_fit in costs] == [3, 3]


def test_an_error_in_one_fit_ends_them_all():
    def broken():
        raise OSError("no such data")

    turns = Turns(2)
    with pytest.raises(OSError, match="no such data"):
        turns.run([broken, *fits(turns, "AB", [], [2, 2])[1:]])


def test_table_tells_median_range_and_number():
    of = [Cost(1.0, 2.0), Cost(3.0, 4.0), Cost(2.0, 9.0)]
    to = [Cost(1.0, 1.0), Cost(2.0, 2.0), Cost(1.0, 3.0)]
    assert ratios(of, to) == [1.0, 1.5, 2.0]
    assert ratios(of, to, "wall") == [2.0, 2.0, 3.0]
    row = Row("epoch", "net", ratios(of, to), target="1.02 or less")
    assert table([row]).splitlines()[-1] == (
        "| epoch | net | 1.500 | 1.000 to 2.000 | 3 | 1.02 or less |"
    )


def test_measured_steps_are_scored_in_their_share():
    assert all(network.steps % overhead.EVERY == 0 for network in NETWORKS.values())


def test_pytorch_with_hooks_computes_the_same_scores():
    torch = pytest.importorskip("torch")
    images, labels = NETWORKS["mininet"].arrays()
    images, labels = images[:8], labels[:8]
    ours = NETWORKS["mininet"].build()
    theirs = peers.torch_mininet()
    peers.load_weights(theirs, peers.weights_of(ours))
    scores = peers.HookedScores(theirs)
    outputs = theirs(torch.tensor(images.transpose(0, 3, 1, 2).copy()))
    torch.nn.functional.cross_entropy(outputs, torch.tensor(labels.astype("int64"))).backward()
    expected = kr.score_filters(ours, images, labels)
    found = scores.result()
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("build", deep.NETWORKS.values(), ids=deep.NETWORKS)
def test_deep_networks_have_as_many_convolutions_as_asked_for(build):
    for convolutions in (3, 6):
        model = build(convolutions)
        assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == convolutions
    costs = deep.deep_costs(build(3))
    assert costs.keys() == deep.TARGETS.keys()
    assert all(cost.cpu > 0 for cost in costs.values())
