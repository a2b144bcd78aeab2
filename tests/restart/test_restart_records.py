"""Records of restarts, by hand."""

import json

import numpy as np

from kerasrestart.restart.records import (
    LayerRestart,
    PendingRestart,
    RestartEvent,
    RestartState,
    Round,
)
from kerasrestart.restart.summary import summary_table
from kerasrestart.restart.when import RoundProgress

NAN = float("nan")


def event(**options):
    defaults = {
        "restart": 1,
        "epoch": 4,
        "reason": "loss has not improved for 2 epochs",
        "initializer": "uniform",
        "learning_rate": 0.1,
        "layers": {"conv": LayerRestart([1, 2], [0.5, 0.1, 0.2]), "up": LayerRestart([0], [1.0])},
        "metrics_before": {"loss": 2.0},
    }
    return RestartEvent(**(defaults | options))


def test_event_is_followed_to_its_drop_and_recovery():
    followed = event()
    for epoch, loss in ((5, 3.0), (6, 2.5), (7, 1.9), (8, 1.5)):
        followed.follow(epoch, {"loss": loss}, "loss", higher=False)
    assert followed.metrics_after == {"loss": 3.0}
    assert followed.metric_drop == 1.0
    assert followed.epochs_to_recover == 3


def test_event_of_a_metric_of_which_higher_is_better():
    followed = event(metrics_before={"accuracy": 0.75})
    for epoch, accuracy in ((5, 0.5), (6, 0.75)):
        followed.follow(epoch, {"accuracy": accuracy}, "accuracy", higher=True)
    assert (followed.metric_drop, followed.epochs_to_recover) == (0.25, 2)


def test_summary_is_one_sentence():
    assert event().summary() == (
        "loss has not improved for 2 epochs. Restarted 3 of 4 filters (conv 2/3, up 1/1) "
        "with uniform; learning rate reset to 0.1"
    )
    control = event(initializer="none", learning_rate=None).summary()
    assert control.endswith("Left 3 of 4 filters (conv 2/3, up 1/1) as they are")
    slots = event(initializer="slots").summary()
    assert "Reset the optimizer state of 3 of 4 filters (conv 2/3, up 1/1);" in slots


def test_summary_of_many_layers_counts_them():
    layers = {f"conv{n}": LayerRestart([0], [0.5] * 10) for n in range(19)}
    assert "Restarted 19 of 190 filters in 19 layers with uniform" in event(layers=layers).summary()


def test_a_table_of_nineteen_layers_fits_80_columns():
    layers = {f"stage3_block{n}_conv1": LayerRestart([0], [0.123456, 0.5]) for n in range(19)}
    table = summary_table([event(layers=layers, metric_drop=-0.01234, epochs_to_recover=12)])
    assert max(map(len, table.splitlines())) <= 80
    assert len(table.splitlines()) == 3 + 19


def test_round_keeps_its_best_and_its_last_epoch():
    of = Round(0, first_epoch=3)
    for epoch, loss in ((3, 2.0), (4, 1.0), (5, 1.0), (6, 1.5)):
        of.add(epoch, {"loss": loss}, "loss", higher=False)
    assert (of.epochs, of.best_epoch) == (4, 4)
    assert of.best_metrics == {"loss": 1.0}
    assert of.last_metrics == {"loss": 1.5}


def test_best_epoch_of_a_round_is_not_one_whose_metric_is_not_a_number():
    of = Round(0, first_epoch=0)
    for epoch, loss in enumerate((NAN, 2.0, NAN, 3.0)):
        of.add(epoch, {"loss": loss}, "loss", higher=False)
    assert of.best_epoch == 1


def test_state_is_restored_from_json():
    pending = PendingRestart(event(restart=2), {"conv": np.array([0.5, 0.25], "float32")})
    state = RestartState(
        progress=RoundProgress(3, 0.5, 1),
        events=[event()],
        rounds=[Round(0, 0)],
        learning_rate=0.1,
        scored_epoch=2,
        pending=pending,
    )
    restored = RestartState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert restored.to_dict() == state.to_dict()
    assert restored.events == state.events
    assert restored.progress == state.progress
    assert restored.pending.reader_input_means["conv"].dtype == np.float32


def test_a_table_of_restarts():
    first = event(metric_drop=1.25, epochs_to_recover=3)
    second = event(restart=2, epoch=9)
    second.layers = {"up": LayerRestart([0, 1], [0.0, 0.0], reselected=1)}
    empty = event(restart=3, epoch=12, layers={})
    assert summary_table([first, second, empty]) == (
        "                                                          epochs\n"
        "                                lowest/  chosen  metric       to\n"
        "restart  epoch  layer  filters     mean   again    drop  recover\n"
        "      1      5  conv       2/3    0.375       -    1.25        3\n"
        "                up         1/1        1       -\n"
        "      2     10  up         2/2        -       1       -        -\n"
        "      3     13  none         0        -       -       -        -"
    )
    assert summary_table([]) == "No restarts."
