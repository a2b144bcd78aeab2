"""Kills runs, resumes them, and compares their results with those of an undisturbed run.

    python -m tests.soak.kill_resume --trials=100

Each trial is one small run that gets SIGKILL up to three times: at a random moment, or at a point
of `POINTS`, several of them in the middle of a write. The same call then resumes it until it ends.
Its state, history, scores, record, saved weights and TensorBoard curves must be those of the
undisturbed run, bit for bit. Every fourth trial trains on two logical devices with
`--strategy=mirrored`.
"""

from __future__ import annotations

import argparse
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
from tests.typed_settings import parse_settings

ARGUMENTS = (
    *("--dataset=shapes", "--train_examples=200", "--batch_size=50", "--augment"),
    *("--trigger=epochs", "--round_epochs=2", "--learning_rate_drops=1", "--max_restarts=2"),
    *("--nostop_on_repeat", "--optimizer=adam", "--learning_rate=0.003", "--outgoing=zero"),
)
CONFIGURATIONS = {"one": (), "mirrored": ("--strategy=mirrored",)}
POINTS = {
    "flags": "inside the write of flags.txt",
    "record": "inside the write of run.json",
    "history": "inside a line of history.csv",
    "scores": "inside a line of scores.jsonl",
    "rounds": "inside a line of rounds.jsonl",
    "cut": "inside the write of a file that a resumed run cuts to its state",
    "report": "inside the write of report.html",
    "model": "inside the write of model.keras",
    "state": "inside the write of a state",
    "baseline": "inside the copy of the baseline",
    "events": "inside a record of TensorBoard",
    "fsync": "before a file is flushed to disk",
    "rename": "after a file or folder was renamed",
    "remove": "inside the removal of a folder",
    "restart": "inside a restart",
    "batch": "after a batch",
}


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
    plans = [[point] for point in chosen.points.split(",")] if chosen.points else None
    if plans is None:
        # Each point comes once before any comes again.
        deck = [*POINTS, *["time"] * 4]
        order = [p for _ in range(chosen.trials) for p in rng.sample(deck, len(deck))]
        plans = [[order.pop(0) for _ in range(rng.randint(1, 3))] for _ in range(chosen.trials)]
    # Only a run that was killed behind its last state has a file to cut.
    plans = [[p for point in plan for p in _with_cause(point)] for plan in plans]
    # Imported but not used here: a child that is forked from this process saves the import.
    import kerasrestart.experiments.run.train  # noqa: F401

    images = data.load("shapes", train_examples=200, shapes_examples=1000)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        visits: dict[str, dict[str, int]] = {}
        lengths: dict[str, float] = {}
        for number, points in enumerate(plans, 1):
            configuration = "mirrored" if number % 4 == 0 else "one"
            logdir = pathlib.Path(folder, configuration)
            logdir.mkdir(exist_ok=True)
            if configuration not in visits:
                since = time.monotonic()
                status = _child(images, logdir, "undisturbed", counts=logdir / "counts.json")
                assert status == 0, (logdir / "undisturbed.log").read_text()
                lengths[configuration] = time.monotonic() - since
                visits[configuration] = json.loads((logdir / "counts.json").read_text())
            name = f"trial{number}"
            seen = [
                _killed(images, logdir, name, p, visits[configuration], lengths[configuration], rng)
                for p in points
            ]
            status = _child(images, logdir, name)
            differences = ["could not be resumed"]
            if status == 0:
                differences = compare(logdir / "undisturbed", logdir / name)
            else:
                print((logdir / f"{name}.log").read_text()[-2000:])
            wrong += bool(differences)
            verdict = "; ".join(differences) or "identical"
            print(
                f"[{number}/{len(plans)}] {configuration}, killed {', '.join(seen)}: {verdict}",
                flush=True,
            )
            shutil.rmtree(logdir / name, ignore_errors=True)
    print(f"{len(plans) - wrong} of {len(plans)} trials ended bit-identical")
    return int(wrong > 0)


def _with_cause(point: str) -> tuple[str, ...]:
    return ("history", "cut") if point == "cut" else (point,)


def _killed(images, logdir, name, point, visits, length, rng) -> str:
    """Starts a run that is killed; says where."""
    if point == "time":
        delay = rng.uniform(0, 1.1 * length)
        status = _child(images, logdir, name, kill_after=delay)
        where = f"after {delay:.1f} s"
    else:
        visits = {**visits, "cut": 1}  # the undisturbed run cuts no file
        count = rng.randint(1, visits[point])
        status = _child(images, logdir, name, point=point, count=count)
        where = f"in {point} {count} of {visits[point]}"
    return where if status == -signal.SIGKILL else f"not ({where} never came)"


def _child(images, logdir, name, *, point=None, count=0, kill_after=None, counts=None) -> int:
    """Makes a run in a process of its own; returns its status, negative where it was killed."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            with (logdir / f"{name}.log").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if logdir.name == "mirrored":
                _split_cpu()
            visits = _arm(point, count) if point or counts else {}
            from kerasrestart.experiments.run.train import run

            arguments = [*ARGUMENTS, *CONFIGURATIONS[logdir.name]]
            run(parse_settings(arguments), images, logdir=logdir, run_name=name)
            if counts:
                counts.write_text(json.dumps(visits))
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
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


def _split_cpu() -> None:
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def _arm(point: str | None, count: int) -> dict[str, int]:
    """Makes this process kill itself at the `count`-th visit of a point; counts all visits."""
    import keras
    import tensorflow as tf

    from kerasrestart.experiments.records.growing_files import GROWING
    from kerasrestart.experiments.run import run_checkpoint
    from kerasrestart.restart import slots
    from kerasrestart.restart.tensorboard import RestartTensorBoard

    visits = dict.fromkeys(POINTS, 0)

    def visit(name: str, before_death=lambda: None) -> None:
        visits[name] += 1
        if name == point and visits[name] == count:
            before_death()
            os.kill(os.getpid(), signal.SIGKILL)

    def patched(owner, name, dying):
        original = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: dying(original, *args, **kwargs))

    files = {
        **{"flags.txt": "flags", "run.json": "record", "report.html": "report"},
        **{"scores.jsonl": "scores", "rounds.jsonl": "rounds"},
        **{f".{name}.tmp": "cut" for name in GROWING},
    }

    def opened(original, path, mode="r", *args, **kwargs):
        file = original(path, mode, *args, **kwargs)
        name = files.get(path.name, files.get(path.name.removeprefix(".").removesuffix(".tmp")))
        return _Dying(file, lambda half: visit(name, half)) if name and mode != "rb" else file

    def state(write, checkpoint, path):
        def half():
            write(checkpoint, path)
            for file in pathlib.Path(path).parent.iterdir():
                os.truncate(file, file.stat().st_size // 2)

        visit("state", half)
        return write(checkpoint, path)

    def copied(copytree, source, target, **kwargs):
        def half():
            copytree(source, target, **kwargs)
            next(pathlib.Path(target).iterdir()).unlink()

        if "baseline" in str(target):
            visit("baseline", half)
        return copytree(source, target, **kwargs)

    def recorded(folder_of):
        def dying(on_epoch_end, observer, *args, **kwargs):
            def half():
                files = pathlib.Path(folder_of(observer)).glob("events.out.*")
                last = max(files, key=lambda file: file.stat().st_mtime_ns)
                os.truncate(last, last.stat().st_size - 9)

            result = on_epoch_end(observer, *args, **kwargs)
            visit("events", half)
            return result

        return dying

    def line(write, logger, epoch, logs=None):
        def half():
            logger.csv_file.write(f"{epoch},0.")
            logger.csv_file.flush()

        visit("history", half)
        return write(logger, epoch, logs)

    def model(save, model, path):
        visit("model", lambda: pathlib.Path(path).write_bytes(b"PK half a model"))
        return save(model, path)

    def replaced(replace, path, target):
        result = replace(path, target)
        visit("rename")
        return result

    def removed(rmtree, path, *args, **kwargs):
        path = pathlib.Path(path)
        if path.exists():
            visit("remove", lambda: [f.unlink() for f in list(path.iterdir())[:1] if f.is_file()])
        return rmtree(path, *args, **kwargs)

    def first(name):
        def dying(original, *args, **kwargs):
            visit(name)
            return original(*args, **kwargs)

        return dying

    patched(pathlib.Path, "open", opened)
    patched(pathlib.Path, "replace", replaced)
    patched(os, "fsync", first("fsync"))
    patched(shutil, "rmtree", removed)
    patched(shutil, "copytree", copied)
    patched(keras.callbacks.TensorBoard, "on_epoch_end", recorded(lambda board: board._train_dir))
    patched(RestartTensorBoard, "on_epoch_end", recorded(lambda board: board.log_dir))
    patched(tf.train.Checkpoint, "write", state)
    patched(keras.callbacks.CSVLogger, "on_epoch_end", line)
    patched(keras.Model, "save", model)
    patched(slots, "reset_slots", first("restart"))
    run_checkpoint.RunCheckpoint.on_train_batch_end = lambda *_, **__: visit("batch")
    return visits


class _Dying:
    """A file that may kill the process in the middle of a write."""

    def __init__(self, file, visit):
        self._file, self._visit = file, visit

    def write(self, content):
        def half():
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._visit(half)
        return self._file.write(content)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._file, name)


def compare(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """In what two runs differ that must be equal."""
    from kerasrestart.experiments.run.state_folder import StateFolder

    first, second = (StateFolder(folder / "state").read_last_good()[0] for folder in (one, other))
    found = []
    for name in ("variables", "run_best", "round_best"):
        arrays, others = getattr(first, name), getattr(second, name)
        if len(arrays) != len(others) or any(
            a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes()
            for a, b in zip(arrays, others, strict=True)
        ):
            found.append(name)
    found += [k for k in first.content if k != "seconds" and first.content[k] != second.content[k]]
    records = [json.loads((folder / "run.json").read_text()) for folder in (one, other)]
    found += [key for key in records[0] if key != "timing" and records[0][key] != records[1][key]]
    for name in ("history.csv", "scores.jsonl", "rounds.jsonl", "flags.txt"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    if _saved_weights(one) != _saved_weights(other):
        found.append("model.keras")
    found += [
        f"TensorBoard's {name}"
        for name in ("train", "validation", "restart")
        if _summaries(one / name) != _summaries(other / name)
    ]
    return found


def _summaries(folder: pathlib.Path) -> dict[tuple[str, int], bytes]:
    """The last value of each TensorBoard tag at each step, as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return {
        (value.tag, event.step): value.tensor.SerializeToString()
        for path in sorted(folder.iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }


def _saved_weights(folder: pathlib.Path) -> bytes:
    with zipfile.ZipFile(folder / "model.keras") as archive:
        return archive.read("model.weights.h5")


if __name__ == "__main__":
    sys.exit(main())
