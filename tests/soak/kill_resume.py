"""Kills runs and starts them again, and compares what they end with to an undisturbed run.

    python -m tests.soak.kill_resume --trials=50

Each trial is one small run that gets SIGKILL several times: at a random moment, or inside the write
of a state, between its renames, inside a restart, a batch, the saving of the model or the writing
of the record. It is started again by the same call until it ends. Then its state, history, record
and saved weights are to be those of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile

from kerasrestart.experiments import data
from kerasrestart.experiments.settings import parse_settings

ARGUMENTS = (
    *("--dataset=shapes", "--train_examples=200", "--batch_size=50", "--augment"),
    *("--trigger=epochs", "--round_epochs=2", "--learning_rate_drops=1", "--max_restarts=2"),
    *("--nostop_on_repeat", "--optimizer=adam", "--learning_rate=0.003", "--outgoing=zero"),
)
# Where a run is killed, and how often it comes there: the place is drawn among these.
POINTS = {"write": 7, "rename": 13, "restart": 15, "batch": 24, "model": 1, "record": 5, "flags": 1}


def main() -> int:
    """Makes the trials; the status is 1 if any ended with other numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--points", help=f"One trial for each of these and no others, such as {','.join(POINTS)}."
    )
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    if chosen.points:
        trials = [[(point, rng.randint(1, POINTS[point]))] for point in chosen.points.split(",")]
    else:
        trials = [_plan(rng) for _ in range(chosen.trials)]
    # Imported but not used here: a child that is forked from this process saves the import.
    import kerasrestart.experiments.run.train  # noqa: F401

    images = data.load("shapes", train_examples=200, shapes_examples=1000)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        logdir = pathlib.Path(folder)
        since = time.monotonic()
        assert _child(images, logdir, "undisturbed") == 0, "the undisturbed run failed"
        length = time.monotonic() - since
        for number, kills in enumerate(trials, 1):
            name = f"trial{number}"
            seen = [_killed(images, logdir, name, *kill, length, rng) for kill in kills]
            assert _child(images, logdir, name) == 0, f"{name} could not go on"
            differences = compare(logdir / "undisturbed", logdir / name)
            wrong += bool(differences)
            verdict = "; ".join(differences) or "identical"
            print(f"[{number}/{len(trials)}] killed {', '.join(seen)}: {verdict}", flush=True)
            shutil.rmtree(logdir / name)
    print(f"{len(trials) - wrong} of {len(trials)} trials ended bit-identical")
    return int(wrong > 0)


def _plan(rng: random.Random) -> list[tuple[str, int]]:
    points = [rng.choice([*POINTS, "time", "time", "time"]) for _ in range(rng.randint(1, 3))]
    return [(point, rng.randint(1, POINTS.get(point, 1))) for point in points]


def _killed(images, logdir, name, point, count, length, rng) -> str:
    """Starts a run that is killed; says where."""
    if point == "time":
        delay = rng.uniform(0, 1.1 * length)
        status = _child(images, logdir, name, kill_after=delay)
        where = f"after {delay:.1f} s"
    else:
        status = _child(images, logdir, name, point=point, count=count)
        where = f"in {point} {count}"
    return where if status == -signal.SIGKILL else f"not ({where} never came)"


def _child(images, logdir, name, *, point=None, count=0, kill_after=None) -> int:
    """Makes a run in a process of its own; returns its status, negative where it was killed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            with (logdir / f"{name}.log").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if point:
                _arm(point, count)
            from kerasrestart.experiments.run.train import run

            run(parse_settings(ARGUMENTS), images, logdir=logdir, run_name=name)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + (kill_after or 1e9)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = 1e9 + time.monotonic()
        time.sleep(0.01)


def _arm(point: str, count: int) -> None:
    """Makes this process kill itself the `count`-th time it comes to a point."""
    import keras
    import numpy as np

    from kerasrestart.experiments.records import run_folder
    from kerasrestart.experiments.run import run_checkpoint
    from kerasrestart.restart import slots

    left = [count]

    def die_in_time(before_death=lambda: None) -> None:
        left[0] -= 1
        if not left[0]:
            before_death()
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(function, half=None):
        def call(*args, **kwargs):
            die_in_time(lambda: half and half(*args, **kwargs))
            return function(*args, **kwargs)

        return call

    def half_a_state(file, **members):
        whole = io.BytesIO()
        savez(whole, **members)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()

    def half_a_model(model, path):
        pathlib.Path(path).write_bytes(b"PK half a model")

    savez = np.savez
    if point == "write":
        np.savez = dying(np.savez, half_a_state)
    elif point == "rename":
        replace = pathlib.Path.replace

        def replacing(self, target):
            replaced = replace(self, target)
            if pathlib.Path(target).suffix == ".npz":
                die_in_time()
            return replaced

        pathlib.Path.replace = replacing
    elif point == "restart":
        slots.reset_slots = dying(slots.reset_slots)
    elif point == "batch":
        run_checkpoint.RunCheckpoint.on_train_batch_end = dying(lambda *args, **kwargs: None)
    elif point == "model":
        keras.Model.save = dying(keras.Model.save, half_a_model)
    elif point in ("record", "flags"):
        method = "write_record" if point == "record" else "write_flags"
        setattr(run_folder.RunFolder, method, dying(getattr(run_folder.RunFolder, method)))
    else:
        raise ValueError(f"no such point: {point}")


def compare(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """In what two runs differ that are to be the same."""
    from kerasrestart.experiments.run.state_file import read_state

    (arrays, content), (others, of_other) = (
        read_state(folder / "state.npz") for folder in (one, other)
    )
    found = [f"array {name}" for name in arrays.keys() ^ others.keys()]
    found += [
        f"array {name}"
        for name in arrays.keys() & others.keys()
        if arrays[name].tobytes() != others[name].tobytes()
    ]
    found += [k for k in content if k != "seconds" and content[k] != of_other[k]]
    records = [json.loads((folder / "run.json").read_text()) for folder in (one, other)]
    found += [key for key in records[0] if key != "timing" and records[0][key] != records[1][key]]
    for name in ("history.csv", "scores.jsonl"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    if _saved_weights(one) != _saved_weights(other):
        found.append("model.keras")
    return found


def _saved_weights(folder: pathlib.Path) -> bytes:
    with zipfile.ZipFile(folder / "model.keras") as archive:
        return archive.read("model.weights.h5")


if __name__ == "__main__":
    sys.exit(main())
