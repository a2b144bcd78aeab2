"""Results of studies made from given numbers, without running anything."""

import numpy as np

from kerasrestart.experiments.study.results import Cell, CellResult
from tests.experiments.records.sample_record import sample_record

SETTINGS = {
    "model": "mininet",
    "tasks": "none",
    "monitor": "val_accuracy",
    "init": "none",
    "criterion": "taylor",
    "fraction": 0.1,
    "seed": 0,
    "baseline": None,
    "data_dir": None,
}
DATA = {
    "name": "shapes",
    "note": "",
    "examples": {"train": 200, "validation": 2000, "test": 2000},
    "sha256": "b182ae9bdf6507de",
}
VERSIONS = {"kerasrestart": "0.1.0", "python": "3.11.7"}


def result(arm, seed, test, validation=None, *, model="mininet", variation="", epochs=2, **more):
    """A result with these accuracies per round; `more` has settings, `last` and `train`."""
    validation = test if validation is None else validation
    last, train = more.pop("last", test), more.pop("train", test)
    data = {**DATA, **more.pop("data", {})}
    settings = {
        **SETTINGS,
        "round_epochs": epochs,
        "model": model,
        "init": arm,
        "seed": seed,
        **more,
    }
    monitor = settings["monitor"]
    key = "val_loss" if monitor == "val_loss" else monitor
    rounds = [
        {"round": n, "first_epoch": n * epochs, "epochs": epochs, "best_metrics": {key: value}}
        for n, value in enumerate(validation)
    ]
    table = [
        {
            "round": f"restart {n}" if n else "baseline",
            "data": data["name"],
            "epochs": epochs,
            "best_epoch": n * epochs,
            "restarted": {},
            "validation_accuracy": validation[n],
            "test_accuracy": test[n],
            "test_accuracy_last": last[n],
            "train_accuracy_last": train[n],
        }
        for n in range(len(test))
    ]
    curve = [v - 0.01 * (epochs - 1 - e) for v in validation for e in range(epochs)]
    history = {
        "epoch": tuple(map(float, range(len(curve)))),
        "accuracy": tuple(curve),
        "val_accuracy": tuple(curve),
    }
    record = sample_record(
        settings=settings, versions=VERSIONS, data=data, rounds=rounds, table=table
    )
    return CellResult(Cell(model, arm, seed, variation), record, history)


def realistic(models, arms, seeds, *, epochs=15, rounds=4, variations=("",), seed=0):
    """Plausible curves: a shared baseline, a rise, and a drop at each restart."""
    rng = np.random.default_rng(seed)
    results = []
    for m, model in enumerate(models):
        for variation in variations:
            for s in seeds:
                start = 0.72 + 0.05 * m + rng.normal(0, 0.006)
                time = np.arange(epochs)
                baseline = start - 0.45 * np.exp(-time / 3) + rng.normal(0, 0.004, epochs)
                for a, arm in enumerate(arms):
                    gain = 0.006 * ((a * 5) % 7 - 2)
                    curve = list(baseline)
                    for n in range(1, rounds):
                        top = start + gain * n / 2 + 0.004 * n
                        drop = 0.03 + 0.04 * (a % 3)
                        noise = rng.normal(0, 0.004, epochs)
                        curve += list(top - drop * np.exp(-time / 2) + noise)
                    best = [max(curve[n * epochs : (n + 1) * epochs]) for n in range(rounds)]
                    noise = [0, *rng.normal(0, 0.003, rounds - 1)]  # the baseline is shared
                    test = [b - 0.004 + e for b, e in zip(best, noise, strict=True)]
                    one = result(
                        arm, s, test, best, model=model, variation=variation, epochs=epochs
                    )
                    history = {
                        "epoch": tuple(map(float, range(len(curve)))),
                        "val_accuracy": tuple(map(float, curve)),
                    }
                    results.append(CellResult(one.cell, one.record, history))
    return results
