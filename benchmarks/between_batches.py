"""What restarts between batches cost beside plain `model.fit`.

    python -m benchmarks.between_batches [--pairs=5] [--steps=100] [--model=mininet]

Five `fit`s take turns in one process, an epoch each: plain; with `EverySteps(100)`; with the
presets for continual backpropagation, with a restart about every 100 batches, and ReDo; and the
first once more with `Scoring(window=10)`. The table has medians of the ratios of neighbouring
epochs, with ranges. Four minutes on two idle cores.
"""

from __future__ import annotations

import keras
import tensorflow as tf
from absl import app, flags

import kerasrestart
from benchmarks.networks import NETWORKS, Network
from benchmarks.timing import Cost, Row, ratios, report
from benchmarks.turns import Turns

EVERY = 100


def kinds(every: int = EVERY) -> dict[str, kerasrestart.PartialRestart | None]:
    """The callbacks, by what the table says."""
    rate = 1 / (every * 32)  # one filter of a layer of 32 in that number of batches
    steps = kerasrestart.EverySteps
    window = kerasrestart.Scoring(window=10)
    restart, preset = kerasrestart.PartialRestart, kerasrestart.PartialRestart.preset
    return {
        "plain": None,
        f"EverySteps({every})": restart(when=steps(every, maturity=0)),
        "continual backpropagation": preset(
            "continual_backprop", when=steps(1, replacement_rate=rate, maturity=10)
        ),
        "ReDo": preset("redo", when=steps(every, maturity=0, decay=0.9)),
        f"EverySteps({every}), window=10": restart(when=steps(every, maturity=0), criterion=window),
    }


def epoch_costs(
    network: Network, steps: int, pairs: int, every: int = EVERY, warm_up: int = 1
) -> tuple[dict[str, list[Cost]], dict[str, int]]:
    """Costs of the epochs of each kind, which took turns, and how many restarts each made."""
    callbacks = kinds(every)
    turns = Turns(len(callbacks))
    models = [network.build() for _ in callbacks]
    fits = [
        lambda number=number, model=model, own=own: model.fit(
            network.batches(steps),
            epochs=pairs + warm_up,
            shuffle=False,
            verbose=0,
            callbacks=turns.around(number, [] if own is None else [own]),
        )
        for number, (model, own) in enumerate(zip(models, callbacks.values(), strict=True))
    ]
    costs = dict(zip(callbacks, (of[warm_up:] for of in turns.run(fits)), strict=True))
    return costs, {name: len(own.events) for name, own in callbacks.items() if own is not None}


def main(argv):
    if argv[1:]:
        raise app.UsageError(f"The command line must have flags only. Received: {argv[1:]}")
    values = flags.FLAGS
    network = NETWORKS[values.model]
    label = f"{values.model}, {network.side} px, {network.batch}"
    costs, restarts = epoch_costs(network, values.steps, values.pairs)
    step = [1000 * cost.cpu / values.steps for cost in costs["plain"]]
    rows = [Row("plain training step, CPU time", label, step, "ms")]
    for name, count in restarts.items():
        what = f"{name}, {count} restarts / plain"
        target = "1.03 or less"
        rows.append(
            Row(f"{what}, CPU time", label, ratios(costs[name], costs["plain"]), target=target)
        )
    notes = [
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, float32.",
        f"Epochs of {values.steps} batches.",
    ]
    report("python -m benchmarks.between_batches", rows, notes, values.output)


if __name__ == "__main__":
    flags.DEFINE_enum("model", "mininet", list(NETWORKS), "The network.")
    flags.DEFINE_integer("pairs", 5, "Epochs of each kind, warm-up apart.", lower_bound=1)
    flags.DEFINE_integer("steps", 100, "Batches of an epoch.", lower_bound=1)
    flags.DEFINE_string("output", "tf_logs/between_batches.md", "Where the table is written.")
    app.run(main)
