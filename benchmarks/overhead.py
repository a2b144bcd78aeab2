"""What scores and restarts cost beside plain `model.fit`.

    python -m benchmarks.overhead [--models=mininet,resnet20] [--pairs=7] [--steps=8]

For each network three `fit`s take turns in one process, an epoch each: plain, with PartialRestart,
and with Scoring(every=8). The table has medians of the ratios of neighbouring epochs, with ranges.
Peak memory and time to the first step are those of processes of their own, which take turns too.
About ten minutes on two idle cores; on busy ones look at CPU time alone.
"""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import tensorflow as tf
from absl import app, flags

import kerasrestart
from benchmarks.networks import NETWORKS, Network
from benchmarks.timing import Cost, Row, ratios, report
from benchmarks.turns import Turns

EVERY = 8


def define_flags():
    flags.DEFINE_list("models", list(NETWORKS), "Networks to measure.")
    flags.DEFINE_integer("pairs", 7, "Epochs of each kind, warm-up apart.", lower_bound=1)
    flags.DEFINE_integer(
        "steps",
        None,
        f"Steps of an epoch, best a multiple of {EVERY}. Default: by the network.",
        lower_bound=EVERY,
    )
    flags.DEFINE_integer(
        "processes", 3, "Processes of each kind, for memory and the first step.", lower_bound=0
    )
    flags.DEFINE_string("output", "tf_logs/overhead.md", "Where the table is written.")


def main(argv):
    if argv[1:]:
        raise app.UsageError(f"The command line must have flags only. Received: {argv[1:]}")
    values = flags.FLAGS
    if unknown := [name for name in values.models if name not in NETWORKS]:
        raise app.UsageError(f"--models must be some of {list(NETWORKS)}. Received: {unknown}")
    rows, notes = [], [f"TensorFlow {tf.__version__}, Keras {keras.__version__}, float32."]
    for name in values.models:
        network = NETWORKS[name]
        steps = values.steps or network.steps
        print(f"{name}: epochs of {steps} steps of {network.batch} images", flush=True)
        label = f"{name}, {network.side} px, {network.batch}"
        rows += epoch_rows(network, label, steps, values.pairs)
        rows += restart_rows(network, label)
        if values.processes:
            rows += process_rows(name, label, values.processes)
    report("python -m benchmarks.overhead", rows, notes, values.output)


def epoch_rows(network: Network, label: str, steps: int, pairs: int) -> list[Row]:
    """Epochs with scores over plain ones."""
    plain, scored, sampled = epoch_costs(network, steps, pairs)
    step = [1000 * cost.cpu / steps for cost in plain]
    rows = [Row("plain training step, CPU time", label, step, "ms")]
    for what, costs, most in (
        ("epoch with exact scores on every batch / plain epoch", scored, network.most),
        (f"epoch with every={EVERY} / plain epoch", sampled, 1.01),
    ):
        target = f"{most:.2f} or less"
        rows.append(Row(f"{what}, CPU time", label, ratios(costs, plain), target=target))
        rows.append(Row(f"{what}, wall time", label, ratios(costs, plain, "wall")))
    return rows


def epoch_costs(network: Network, steps: int, pairs: int, warm_up: int = 1) -> list[list[Cost]]:
    """Costs of epochs: plain, scored, and scored with `Scoring(every=)`, which took turns."""
    never = {"patience": pairs + warm_up + 1, "monitor": "loss"}
    kinds = [
        [],
        [kerasrestart.PartialRestart(**never)],
        [kerasrestart.PartialRestart(criterion=kerasrestart.Scoring(every=EVERY), **never)],
    ]
    turns = Turns(len(kinds))
    models = [network.build() for _ in kinds]
    fits = [
        lambda number=number, model=model, own=own: model.fit(
            network.batches(steps),
            epochs=pairs + warm_up,
            shuffle=False,
            verbose=0,
            callbacks=turns.around(number, own),
        )
        for number, (model, own) in enumerate(zip(models, kinds, strict=True))
    ]
    return [costs[warm_up:] for costs in turns.run(fits)]


def restart_rows(network: Network, label: str) -> list[Row]:
    """One restart in training steps, and how often a step is traced after it."""
    events, step, traces = restart_costs(network)
    return [
        Row(
            "one restart with selection and records, CPU time in training steps",
            label,
            [event.cpu / step.cpu for event in events],
            target="5.00 or less",
        ),
        Row("steps traced after the first epoch", label, [traces], target="0"),
    ]


def restart_costs(
    network: Network, steps: int = 4, restarts: int = 3
) -> tuple[list[Cost], Cost, int]:
    """Costs of restarts, that of a training step, and how many traces came after the first epoch.

    Args:
        network: The network.
        steps: Steps of an epoch; each but the last ends with a restart. Defaults to 4.
        restarts: How many restarts. Defaults to 3.
    """
    model = network.build()
    loss, traced = model.loss, []

    def counting_loss(y, y_pred):
        traced.append(y)
        return loss(y, y_pred)

    model.compile(model.optimizer, counting_loss)
    restart = kerasrestart.PartialRestart(
        fraction=0.1,
        when=kerasrestart.EveryEpochs(1, monitor="loss", recovery_epochs=0),
        max_restarts=restarts,
        stop_on_repeat=False,
    )
    starts, events, epochs, traces = [], [], [], []
    # Filters are chosen when an epoch has ended, and restarted when the next begins.
    chosen, restarted = [], []
    before = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: starts.append(Cost.now()),
        on_epoch_end=lambda epoch, logs: (
            epochs.append(Cost.now() - restarted[-1]) or starts.append(Cost.now())
        ),
    )
    after = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (
            restarted.append(Cost.now()) or events.append(restarted[-1] - starts[-1])
        ),
        on_epoch_end=lambda epoch, logs: (
            chosen.append(Cost.now() - starts[-1]) or traces.append(len(traced))
        ),
    )
    model.fit(
        network.batches(steps),
        epochs=restarts + 1,
        shuffle=False,
        verbose=0,
        callbacks=[before, restart, after],
    )
    if len(restart.events) != restarts:
        raise RuntimeError(f"{restarts} restarts were to come, {len(restart.events)} came")
    last = epochs[-1]
    whole = [one + other for one, other in zip(chosen[:restarts], events[1:], strict=True)]
    return whole, Cost(last.cpu / steps, last.wall / steps), traces[-1] - traces[0]


def process_rows(name: str, label: str, pairs: int) -> list[Row]:
    """Peak memory and time to the first step, with PartialRestart over without."""
    plain, scored = [], []
    for _ in range(pairs):
        plain.append(first_step(name, "plain"))
        scored.append(first_step(name, "scored"))

    def over(key):
        return [a[key] / b[key] for a, b in zip(scored, plain, strict=True)]

    own = [one["imports"]["kerasrestart"] / one["imports"]["keras"] for one in scored]
    return [
        Row("peak memory with / without", label, over("peak_mib"), target="1.05 or less"),
        Row("time to first step, CPU, with / without", label, over("cpu"), target="1.15 or less"),
        Row("time to first step, wall, with / without", label, over("wall")),
        Row("import of kerasrestart after keras / of keras, CPU", label, own),
    ]


def first_step(name: str, kind: str) -> dict:
    """What `benchmarks.first_step` says of a network, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.first_step", name, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    define_flags()
    app.run(main)
