"""Damages the files that runs and studies read, and checks what the commands then say.

    python -m tests.soak.fuzz_files --trials=2000

Each trial changes one file or two: bits, bytes, lines, numbers, parts of their JSON, their names,
or what they are (a folder, a broken link). The reader must then end with one line that names the
file, or give the same answer as without the change. A traceback and another answer are faults. Of a
file that cannot show that it was changed, such as a flagfile or the record of an older version,
another answer is right too; a traceback is not.

All is done in one process, with the functions that the command lines call.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import dataclasses
import io
import json
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from kerasrestart.experiments.interruption import RunStoppedError

NASTY_BYTES = (
    *(b"", b"\x00", b"\xff", b"\xc3", b"\n", b"\r\n", b",", b'"', b"[", b"{", b"]", b"-", b"null"),
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b"\xe2\x80\xa8", b"~", b"=", b"--"),
    *(b"--flagfile=.", b"../..", b"<img src=http://a/b>", b"\x1b[31m", b"\xef\xbb\xbf", b"%s"),
)
NASTY_CONTENTS = (
    *(b"", b"\n", b"null", b"[]", b"{}", b"0", b'""', b"[" * 100_000, b'{"a":' * 5000, b"9" * 9000),
    *(b"\xff\xfe\x00", b"\x00" * 5000, b"a" * 200_000 + b"\n", b"epoch\n" + b"9" * 200_000 + b"\n"),
)
NASTY_VALUES = (
    *(None, [], {}, "", "x", "../..", True, -1, 0, 7, 10**20, 10**400, 0.5, -0.5, 1e308),
    *(float("nan"), float("inf"), [[]], [None], {"": None}, {"a": {"b": 1}}, "a\nb", "\ud800", "é"),
    *(["x"] * 3, "9" * 500),
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of file, and what reads it.

    Attributes:
        files: The files that are changed, as patterns below the place.
        answer: Reads them at a place, and returns what they say. Fails by an error, or ends the
            process as a command line does.
        is_checked: Whether a change that was not refused must leave the answer as it was.
        json: Whether parts of their JSON are changed too.
        needs: Folders at the place that are copied for a trial. Defaults to (): all.
        is_slow: Whether it takes seconds, and has a quarter of the trials of another.
    """

    files: tuple[str, ...]
    answer: Callable[[pathlib.Path], Any]
    is_checked: bool = True
    json: bool = True
    needs: tuple[str, ...] = ()
    is_slow: bool = False


class FaultError(AssertionError):
    """A reader that ended with a traceback, an unclear error or another answer."""


def main() -> int:
    """Makes the trials; the status is 1 if any found a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="These and no others, separated by commas.")
    chosen = parser.parse_args()
    faults = 0
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_kinds(pathlib.Path(folder, "whole"))
        names = chosen.kinds.split(",") if chosen.kinds else list(kinds)
        names = [name for name in names for _ in range(1 if kinds[name].is_slow else 4)]
        for number in range(chosen.trials):
            name = names[number % len(names)]
            rng = random.Random(f"{chosen.seed}-{number}")
            try:
                counts[name][trial(kinds[name], pathlib.Path(folder), rng)] += 1
            except FaultError as fault:
                faults += 1
                counts[name]["fault"] += 1
                print(f"[{number}] {name}: {fault}", flush=True)
    for name, count in counts.items():
        print(f"{name}: {', '.join(f'{n} {outcome}' for outcome, n in sorted(count.items()))}")
    seconds = time.monotonic() - since
    print(f"{chosen.trials - faults} of {chosen.trials} trials without a fault in {seconds:.0f} s")
    return int(faults > 0)


def trial(kind: Kind, folder: pathlib.Path, rng: random.Random) -> str:
    """Changes a file or two in a copy of `folder/whole`, and reads them.

    Returns:
        "refused", "same" or "other".

    Raises:
        FaultError: The reader did not do what is right.
    """
    whole, place = folder / "whole", folder / "changed"
    expected = _expected(kind, folder)
    _copy(whole, place, kind.needs)
    paths = sorted({path for pattern in kind.files for path in place.glob(pattern)})
    changed = rng.sample(paths, min(len(paths), rng.choice([1, 1, 1, 2])))
    changes = [f"{path.relative_to(place)}: {damage(path, rng, kind.json)}" for path in changed]
    where = "; ".join(changes)
    outcome, said = _outcome(kind, place)
    if outcome == "traceback":
        raise FaultError(f"{where}: {said}")
    if outcome == "refused":
        # A folder of runs is named where none of its runs has a record.
        parents = {path.parent.parent for path in changed if len(changed) > 1}
        named = [str(name) for path in changed for name in (path, path.parent, *parents)]
        if len(said.splitlines()) != 1 or not any(name in said for name in named):
            raise FaultError(f"{where}: not one line that names the file: {said!r}")
        if len(said) > 1500:
            raise FaultError(f"{where}: a line of {len(said)} characters: {said[:200]!r}...")
        return "refused"
    if said == expected:
        return "same"
    if kind.is_checked:
        raise FaultError(f"{where}: silently another answer: {_difference(expected, said)}")
    return "other"


_ANSWERS: dict[tuple[int, str], Any] = {}


def _expected(kind: Kind, folder: pathlib.Path) -> Any:
    """The answer without a change, read once at the place where changed files are read."""
    key = (id(kind), str(folder))
    if key not in _ANSWERS:
        _copy(folder / "whole", folder / "changed", kind.needs)
        outcome, said = _outcome(kind, folder / "changed")
        assert outcome == "answer", said
        _ANSWERS[key] = said
    return _ANSWERS[key]


def _copy(source: pathlib.Path, target: pathlib.Path, needs: tuple[str, ...]) -> None:
    if target.exists():
        shutil.rmtree(target)
    target.mkdir()
    for entry in source.iterdir():
        if needs and entry.name not in needs:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, symlinks=True)
        else:
            shutil.copy(entry, target / entry.name, follow_symlinks=False)


def _outcome(kind: Kind, place: pathlib.Path) -> tuple[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                return "answer", kind.answer(place)
            except SystemExit as ended:
                if not ended.code:
                    raise RuntimeError("the answer ended the process") from ended
                lines = err.getvalue().splitlines()
                said = "\n".join(line for line in lines if line.startswith("error: "))
                return ("traceback" if "Traceback" in err.getvalue() else "refused"), said
            except (
                ValueError,
                OSError,
                RunStoppedError,
            ) as error:  # which the command lines print in one line
                return "refused", " ".join(str(error).split())
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "traceback", "".join(traceback.format_exception(error)[-6:])


def _difference(one: Any, other: Any) -> str:
    for a, b in zip(repr(one).split("\\n"), repr(other).split("\\n"), strict=False):
        if a != b:
            return f"{a[:300]!r} is now {b[:300]!r}"
    return f"{len(repr(one))} and {len(repr(other))} characters"


# ---- Changes


def damage(path: pathlib.Path, rng: random.Random, as_json: bool) -> str:
    """Changes a file; returns in words how."""
    if rng.random() < 0.06:
        return _change_what_it_is(path, rng)
    content = path.read_bytes()
    if rng.random() < 0.08:
        path.write_bytes(rng.choice(NASTY_CONTENTS))
        return f"its content is {path.read_bytes()[:20]!r}..."
    if as_json and rng.random() < 0.5:
        changed = _change_json(content, rng)
        if changed is not None:
            path.write_bytes(changed[0])
            return changed[1]
    changed_bytes, how = _change_bytes(content, rng)
    path.write_bytes(changed_bytes)
    return how


def _change_what_it_is(path: pathlib.Path, rng: random.Random) -> str:
    path.unlink()
    change = rng.choice(["missing", "a folder", "a broken link", "a link to itself", "renamed"])
    if change == "a folder":
        path.mkdir()
    elif change == "a broken link":
        path.symlink_to("nowhere")
    elif change == "a link to itself":
        path.symlink_to(path.name)
    elif change == "renamed":
        path.with_name(f"{path.name}.bak").write_bytes(b"")
    return f"it is {change}"


def _change_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    change = rng.choice(["flip", "cut", "drop", "twice", "insert", "number", "swap", "tail"])
    at = rng.randrange(len(content) + 1)
    length = rng.choice([1, 2, 10, 100, 1000])
    if change == "flip" and content:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed), "flipped bits"
    if change == "cut":
        return content[:at], f"cut after {at} bytes"
    if change == "drop":
        return content[:at] + content[at + length :], f"{length} bytes dropped at {at}"
    if change == "twice":
        part = content[at : at + length]
        return content[:at] + part + content[at:], f"{length} bytes twice at {at}"
    if change == "number":
        numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", content))
        if numbers:
            number = rng.choice(numbers)
            new = rng.choice([b"-1", b"0", b"1", b"5", b"1e999", b"NaN", b"", b"9" * 5000, b"0.1"])
            start, end = number.span()
            return content[:start] + new + content[end:], f"{number[0]!r} is {new[:9]!r}"
    if change == "swap":
        lines = content.split(b"\n")
        one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]
        return b"\n".join(lines), f"lines {one} and {other} swapped"
    if change == "tail":
        return content + rng.choice(NASTY_BYTES), "bytes at its end"
    new = rng.choice(NASTY_BYTES)
    return content[:at] + new + content[at:], f"{new[:9]!r} at {at}"


def _change_json(content: bytes, rng: random.Random) -> tuple[bytes, str] | None:
    """Changes a part of a JSON file, or of one line of a file of such lines."""
    try:
        value = json.loads(content)
        changed, how = change_value(value, rng)
        return json.dumps(changed, indent=1).encode(), how
    except ValueError:
        lines = content.split(b"\n")
        number = rng.randrange(len(lines))
        try:
            changed, how = change_value(json.loads(lines[number]), rng)
        except ValueError:
            return None
        lines[number] = json.dumps(changed).encode()
        return b"\n".join(lines), how


def change_value(value: Any, rng: random.Random) -> tuple[Any, str]:
    """Changes a random part of plain data; returns the new data, and in words how."""
    value = copy.deepcopy(value)
    if not isinstance(value, dict | list) or not value:
        return rng.choice(NASTY_VALUES), "all of it"
    parent, keys = value, []
    while True:
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
        keys.append(key)
        child = parent[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.3:
            break
        parent = child
    change = rng.choice(["replace", "replace", "delete", "extra", "rename"])
    if change == "delete":
        del parent[key]
    elif change == "rename" and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif change == "extra" and isinstance(parent, list):
        parent.append(copy.deepcopy(rng.choice([*parent, *NASTY_VALUES])))
    elif change == "extra":
        parent[rng.choice(["x", "", "é", "__class__"])] = rng.choice(NASTY_VALUES)
    else:
        change, parent[key] = "replace", rng.choice(NASTY_VALUES)
        if rng.random() < 0.1:
            for _ in range(900):
                parent[key] = [parent[key]]
    return value, f"{change} {'.'.join(map(str, keys))}"


# ---- What is read


def make_kinds(whole: pathlib.Path) -> dict[str, Kind]:
    """Makes a run, a study and other files in a new folder, and lists what reads them."""
    whole.mkdir()
    images, settings, identity, model = _make_run(whole / "logs")
    jobs = _make_study(whole)
    _make_weights(whole)
    _make_data(whole)
    _make_plain(whole)
    run_files = ("logs/run/run.json", "logs/run/history.csv", "logs/run/scores.jsonl")
    state_files = (
        *("logs/run/state/*/*", "logs/run/baseline/*"),
        *("logs/run/history.csv", "logs/run/scores.jsonl", "logs/run/rounds.jsonl"),
    )

    def state(place: pathlib.Path) -> Any:
        return _state(place / "logs/run", settings, identity, model, None)

    def baseline(place: pathlib.Path) -> Any:
        after = dataclasses.replace(settings, baseline=str(place / "logs/run"), init="none")
        return _state(place / "other", after, {**identity, "settings": {}}, model, after.baseline)

    logs = ("logs",)
    return {
        "run": Kind(run_files, lambda place: _report(place / "logs/run"), needs=logs),
        "foreign_run": Kind(
            ("foreign/run/*",), lambda place: _report(place / "foreign/run"), is_checked=False
        ),
        "runs": Kind(("runs/*/run.json",), lambda place: _report(place / "runs"), needs=("runs",)),
        "foreign_runs": Kind(
            ("foreign/*/run.json",), lambda place: _report(place / "foreign"), is_checked=False
        ),
        "study": Kind(
            ("study/*/run.json", "study/*/history.csv"),
            lambda place: _study(place / "study", jobs),
            needs=("study",),
        ),
        "foreign_study": Kind(
            ("foreign_study/*/run.json", "foreign_study/*/history.csv"),
            lambda place: _study(place / "foreign_study", jobs),
            is_checked=False,
            needs=("foreign_study",),
        ),
        "state": Kind(state_files, state, json=False, needs=logs),
        "state_content": Kind(
            ("content.json",),
            lambda place: _state_content(place, settings, identity, model),
            is_checked=False,
        ),
        "resumed_content": Kind(
            ("content.json",),
            lambda place: _resumed_content(place, settings, images),
            is_checked=False,
            is_slow=True,
        ),
        "drawn_run": Kind(
            ("foreign/run/*",),
            lambda place: _report(place / "foreign/run", draws=True),
            is_checked=False,
            is_slow=True,
        ),
        "drawn_study": Kind(
            ("foreign_study/*/run.json", "foreign_study/*/history.csv"),
            lambda place: _study(place / "foreign_study", jobs, draws=True),
            is_checked=False,
            needs=("foreign_study",),
            is_slow=True,
        ),
        "baseline": Kind(state_files[1:], baseline, json=False, needs=logs),
        "flags": Kind(
            ("logs/run/flags.txt",),
            lambda place: _flags(place / "logs/run/flags.txt"),
            is_checked=False,
            json=False,
        ),
        "study_flags": Kind(
            ("study.flags",),
            lambda place: _study_flags(place / "study.flags"),
            is_checked=False,
            json=False,
        ),
        "weights": Kind(
            ("w.safetensors", "w.pth"), _weights, is_checked=False, json=False, needs=_WEIGHTS
        ),
        "data_folder": Kind(("tfds/*/*/*",), _data_folder, is_checked=False, needs=("tfds",)),
        "arrays": Kind(("birds.npz",), _arrays, is_checked=False, json=False, needs=("birds.npz",)),
        "decoded": Kind(("cache/*/*",), _decoded, json=False, needs=("tfds", "cache")),
        "tf_config": Kind(("tf_config.json",), _tf_config, needs=("tf_config.json",)),
        "log": Kind(("run.log",), _log, is_checked=False, json=False, needs=("run.log",)),
    }


RUN = (
    *("--dataset=shapes", "--train_examples=40", "--batch_size=20", "--trigger=epochs"),
    *("--round_epochs=2", "--max_restarts=1", "--nostop_on_repeat"),
)
_WEIGHTS = ("w.safetensors", "w.pth")


def _make_run(logdir: pathlib.Path) -> tuple[Any, Any, dict[str, Any], Any]:
    """A real run; returns its data, settings and identity, and a model as it was built."""
    from kerasrestart.experiments import data
    from kerasrestart.experiments.run import train
    from kerasrestart.experiments.run.build import build_model
    from kerasrestart.experiments.run.environment import describe_environment, run_environment
    from kerasrestart.experiments.run.starting_point import identity_of
    from tests.typed_settings import parse_settings

    images = data.load("shapes", train_examples=40, shapes_examples=200)
    settings = parse_settings(RUN)
    with contextlib.redirect_stdout(io.StringIO()):
        train.run(settings, images, logdir=str(logdir), run_name="run")
    for name in ("model.keras", "report.html", ".lock"):
        (logdir / "run" / name).unlink()
    for entry in (logdir / "run").iterdir():
        if entry.is_dir() and entry.name not in ("state", "baseline"):
            shutil.rmtree(entry)  # of TensorBoard, which nothing here reads
    with run_environment("float32"):
        model, _ = build_model(settings, images)
        identity = identity_of(settings, images, describe_environment())
    return images, settings, identity, model


def _make_study(whole: pathlib.Path) -> list[Any]:
    """Runs of a study made of the real one; the same without hashes, as of an older version."""
    from kerasrestart.experiments.records.run_record import write_record
    from kerasrestart.experiments.run.state_folder import read_state
    from kerasrestart.experiments.study.plan import make_plan

    flags = {
        "dataset": "shapes", "train_examples": 40, "batch_size": 20, "trigger": "epochs",
        "round_epochs": 2, "max_restarts": 1,
    }  # fmt: skip
    jobs = make_plan(
        flags, networks=["mininet"], arms=["uniform"], seeds=[0, 1], logdir=str(whole / "study")
    )
    run = whole / "logs/run"
    record = json.loads((run / "run.json").read_text())
    for job in jobs:
        for study in ("study", "foreign_study"):
            folder = whole / study / job.name
            folder.mkdir(parents=True)
            shutil.copy(run / "history.csv", folder)
            mine = {**copy.deepcopy(record), "settings": job.settings.to_dict()}
            mine["table"][1]["test_accuracy"] = 0.1 * (1 + len(job.name) % 7)
            write_record(folder, mine)
            if study == "foreign_study":
                _without_hashes(folder)
    for name in ("run", "other"):
        for logs in ("runs", "foreign"):
            others = shutil.ignore_patterns("state", "baseline", "rounds.jsonl")
            shutil.copytree(run, whole / logs / name, ignore=others)
            if logs == "foreign":
                _without_hashes(whole / logs / name)
    state = read_state(min((run / "state").iterdir()))  # its last epoch is not trained yet
    (whole / "content.json").write_text(json.dumps(state.content))
    return jobs


def _without_hashes(folder: pathlib.Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    del record["timing"]["sha256"], record["files"]
    (folder / "run.json").write_text(json.dumps(record, indent=1))


def _make_weights(whole: pathlib.Path) -> None:
    import safetensors.numpy
    import torch

    rng = np.random.default_rng(0)
    tensors = {
        f"features.{n}.{part}": rng.normal(size=shape).astype("float32")
        for n in (0, 3)
        for part, shape in (("weight", (3, 2, 2, 2)), ("bias", (3,)))
    }
    safetensors.numpy.save_file(tensors, whole / "w.safetensors")
    torch.save({name: torch.from_numpy(t) for name, t in tensors.items()}, whole / "w.pth")


def _make_data(whole: pathlib.Path) -> None:
    from kerasrestart.experiments.data import cifar10

    splits = [
        {"name": name, "shardLengths": [str(count)]} for name, count in cifar10.COUNTS.items()
    ]
    for version in ("3.0.2", "3.0.1"):
        folder = whole / "tfds/cifar10" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))
        for name in cifar10.COUNTS:
            (folder / f"cifar10-{name}.tfrecord-00000-of-00001").write_bytes(b"images")
    _decoded(whole)


def _make_plain(whole: pathlib.Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)
    np.savez(whole / "birds.npz", x=images, y=np.arange(40) % 4)
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    (whole / "tf_config.json").write_text(json.dumps(config))
    (whole / "run.log").write_text("Epoch 1\nwarning: x\nerror: out of memory\n")
    lines = [*RUN, "--study_name=s", "--arms=none,uniform", "--seeds=0-1"]
    (whole / "study.flags").write_text("\n".join(lines) + "\n")


# ---- Readers


@contextlib.contextmanager
def _typed(module: Any, *words: str) -> Iterator[None]:
    with mock.patch.object(sys, "argv", [module.PROGRAM.module, *words]):
        yield


def _ended_well(start: Callable[[], Any]) -> None:
    try:
        start()
    except SystemExit as ended:
        if ended.code:
            raise


def _report(folder: pathlib.Path, draws: bool = False) -> Any:
    """The page and the data of its figures, which take a second to draw."""
    from kerasrestart.experiments.report import command, run_report

    drawn: list[str] = []

    def note(curves: Any) -> dict[str, Any]:
        drawn.append(repr(curves))
        return {}

    draw = run_report.draw_run if draws else note
    with mock.patch.object(run_report, "draw_run", draw), _typed(command, str(folder)):
        _ended_well(command.entry_point)
    page = (folder / "report.html").read_text()
    if "Runs without a record" in page:
        said = page[page.index("Runs without a record") :].partition("<")[0]
        raise ValueError(f"{said} {folder / said.strip('.').split()[-1]}")
    return page, drawn


def _study(folder: pathlib.Path, jobs: list[Any], draws: bool = False) -> Any:
    """The files of a study's report without its figures."""
    from kerasrestart.experiments.study import figures
    from kerasrestart.experiments.study.collect import collect
    from kerasrestart.experiments.study.report import ReportSettings

    draw = figures.draw if draws else lambda *_: {}
    with mock.patch.object(figures, "draw", draw):
        collect(jobs, folder, {}, ReportSettings(folder, title="t", command="c"))
    text = (folder / "report.md").read_text()
    if missing := re.search(r"`([\w-]+)` *\| `not finished`", text):
        raise ValueError(f"{folder / missing[1]} is not finished")
    made = [*folder.glob("*.*"), *folder.glob("tables/*")]
    return {path.name: path.read_bytes() for path in sorted(made) if path.is_file()}


def _read_state(run: pathlib.Path) -> Any:
    from kerasrestart.experiments.run.state_folder import StateFolder

    return StateFolder(run / "state").read_last_good()[0]


def _state(folder: pathlib.Path, settings: Any, identity: Any, model: Any, baseline: Any) -> Any:
    """All that a run starts from, restored into a model; a damage that is named counts as such."""
    from kerasrestart.experiments.records.file_mark import read_marked
    from kerasrestart.experiments.records.growing_files import GrowingFiles
    from kerasrestart.experiments.records.run_folder import RunFolder
    from kerasrestart.experiments.run.build import restart_callback
    from kerasrestart.experiments.run.round_evaluator import RoundEvaluator
    from kerasrestart.experiments.run.run_checkpoint import restore_run, variables_of
    from kerasrestart.experiments.run.starting_point import starting_point

    run_folder = RunFolder(folder.parent, folder.name, resume=True)
    try:
        own = {**identity, "settings": settings.to_dict()}
        begin = starting_point(run_folder, settings, own)
        restart, evaluator = restart_callback(settings), RoundEvaluator(None)
        GrowingFiles(folder).restore(begin.marks, begin.source)
        if begin.state is None:
            raise FaultError("it began again")
        restore_run(begin.state, model, restart, evaluator)
    finally:
        run_folder.release()
    if "Resumed from the state before" in begin.message:
        raise ValueError(begin.message)
    content = begin.state.content
    values = [np.asarray(variable.value).tobytes() for variable in variables_of(model)]
    best = [array.tobytes() for array in (*evaluator.best_weights, *evaluator._round_weights)]
    files = [read_marked(folder / name, mark) for name, mark in content["files"].items()]
    return json.dumps(content), values, best, files


def _state_content(place: pathlib.Path, settings: Any, identity: Any, model: Any) -> Any:
    """A state whose files are whole, with the content of `content.json`."""
    from kerasrestart.experiments.run.state_folder import SavedState, StateFolder

    content = _content(place)
    run = place / "logs/run"
    state = _read_state(run)
    shutil.rmtree(run / "state")
    StateFolder(run / "state").write(
        SavedState(content, state.variables, state.run_best, state.round_best)
    )
    try:
        return _state(run, settings, identity, model, None)
    except ValueError as error:
        if str(run) not in str(error):
            raise
        raise ValueError(f"{error} {place / 'content.json'}") from error


def _resumed_content(place: pathlib.Path, settings: Any, images: Any) -> Any:
    """The history of a run that is resumed for its last epoch from a state with that content."""
    from kerasrestart.experiments.run import train
    from kerasrestart.experiments.run.state_folder import SavedState, StateFolder, read_state

    run = place / "logs/run"
    content = _content(place)
    state = read_state(min((run / "state").iterdir()))
    shutil.rmtree(run / "state")
    (run / "run.json").unlink()
    StateFolder(run / "state").write(
        SavedState(content, state.variables, state.run_best, state.round_best)
    )
    try:
        train.run(settings, images, logdir=str(place / "logs"), run_name="run")
    except (ValueError, RunStoppedError) as error:
        if str(run) not in str(error):
            raise
        raise ValueError(f"{error} {place / 'content.json'}") from error
    return (run / "history.csv").read_bytes()


def _content(place: pathlib.Path) -> Any:
    path = place / "content.json"
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # only what a state can hold is of interest
        raise ValueError(f"{path}: {error}") from error


def _flags(path: pathlib.Path) -> Any:
    from kerasrestart.experiments.run import command

    return _read_flags(command, path, lambda parsed: command.read_settings(parsed).to_dict())


def _study_flags(path: pathlib.Path) -> Any:
    from kerasrestart.experiments.study import command

    return _read_flags(
        command,
        path,
        lambda parsed: [job.command("logs") for job in command.read_plan(parsed).jobs({})],
    )


def _read_flags(module: Any, path: pathlib.Path, read: Callable[[Any], Any]) -> Any:
    found: list[Any] = []
    with _typed(module, f"--flagfile={path}"):
        _ended_well(lambda: module.PROGRAM.start(lambda parsed: found.append(read(parsed))))
    return found


def _weights(place: pathlib.Path) -> Any:
    from kerasrestart.experiments.models.weight_files import stored_tensors

    return {
        (name, key): (tensor.shape, tensor.read().tobytes())
        for name in _WEIGHTS
        for key, tensor in stored_tensors(place / name).items()
    }


def _data_folder(place: pathlib.Path) -> Any:
    """What is found before TFDS reads the images."""
    from kerasrestart.experiments.data import cifar10
    from kerasrestart.experiments.data.tfds_copy import TfdsCopy

    def images(found: TfdsCopy) -> Any:
        def split(name: str, count: int) -> Any:
            return found.folder.name, name, count

        return types.SimpleNamespace(classes=cifar10.CLASSES, split=split)

    no_network = mock.patch.object(cifar10, "download_obstacle", return_value="no network")
    with mock.patch.object(TfdsCopy, "images", images), no_network:
        return cifar10.load_cifar10(place / "tfds")


def _arrays(place: pathlib.Path) -> Any:
    from kerasrestart.experiments.data.arrays import load_npz

    return load_npz(place / "birds.npz").fingerprint


def _decoded(place: pathlib.Path) -> Any:
    from kerasrestart.experiments.data import decoded
    from kerasrestart.experiments.data.dataset import Split

    def decode() -> Split:
        rng = np.random.default_rng(0)
        return Split(rng.integers(0, 256, (9, 4, 4, 3), np.uint8), np.arange(9, dtype=np.int32))

    same_name = mock.patch.object(decoded, "_fingerprint", return_value="0")
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(place / "cache")}), same_name:
        split = decoded.decoded_once(place / "tfds/cifar10/3.0.2", "train", decode)
    return split.images.tobytes(), split.labels.tobytes()


def _tf_config(place: pathlib.Path) -> Any:
    from kerasrestart.experiments.run.strategies import make_strategy

    config = (place / "tf_config.json").read_bytes().replace(b"\x00", b"0")
    with mock.patch.dict(os.environ, {"TF_CONFIG": os.fsdecode(config)}):
        return make_strategy("mirrored").num_replicas_in_sync


def _log(place: pathlib.Path) -> Any:
    from kerasrestart.experiments.study.process import _failure

    reason = _failure(1, place / "run.log", 0)
    if len(reason.splitlines()) != 1:
        raise FaultError(f"not one line: {reason!r}")
    return reason


if __name__ == "__main__":
    sys.exit(main())
