"""Runs that are stopped, killed or diverge: what they say, and that they end undisturbed."""

import functools
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest

from kerasrestart.experiments import data
from kerasrestart.experiments.interruption import RunStoppedError
from kerasrestart.experiments.run import divergence
from kerasrestart.experiments.run.run_checkpoint import RunCheckpoint
from kerasrestart.experiments.run.state_folder import StateFolder
from tests.soak.kill_resume import POINTS, compare
from tests.typed_settings import parse_settings

ROOT = str(pathlib.Path(__import__("kerasrestart").__file__).parents[1])
SMALL = (
    *("--dataset=shapes", "--train_examples=200", "--batch_size=50", "--augment"),
    *("--trigger=epochs", "--round_epochs=2", "--learning_rate_drops=1", "--max_restarts=1"),
    "--optimizer=adam",
)


@pytest.fixture(scope="module")
def images():
    return data.load("shapes", train_examples=200, shapes_examples=1000)


def run(images, logdir, name, *arguments, **options):
    from kerasrestart.experiments.run.train import run

    keras.utils.clear_session()  # names are then as in a process of its own
    return run(
        parse_settings([*SMALL, *arguments]), images, logdir=logdir, run_name=name, **options
    )


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(images, folder, "undisturbed")
    return folder / "undisturbed"


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_settings_are_refused_by_name(images, undisturbed):
    before = files_of(undisturbed)
    with pytest.raises(ValueError, match=r"--learning_rate was 0.01, is 0.5; --seed was 0, is 1"):
        run(images, undisturbed.parent, "undisturbed", "--seed=1", "--learning_rate=0.5")
    with pytest.raises(ValueError, match="pass --resume to resume it"):
        run(images, undisturbed.parent, "undisturbed", resume=False)
    others = data.load("shapes", train_examples=200, shapes_examples=1010)
    with pytest.raises(ValueError, match="the images have changed"):
        run(others, undisturbed.parent, "undisturbed")
    assert files_of(undisturbed) == before


def test_a_run_that_has_ended_prints_its_table_and_trains_no_more(images, undisturbed, capsys):
    before = files_of(undisturbed)
    record = run(images, undisturbed.parent, "undisturbed", "--on_nan=rollback")
    assert record == json.loads((undisturbed / "run.json").read_text())
    assert "has ended already" in capsys.readouterr().out
    assert files_of(undisturbed) == before


def test_a_run_that_has_ended_is_refused_with_other_settings_without_its_state_too(
    images, undisturbed, tmp_path
):
    folder = tmp_path / "ended"
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns("state"))
    run(images, tmp_path, "ended")
    with pytest.raises(ValueError, match=r"--fraction was 0\.\d+, is 0.5\. Pass"):
        run(images, tmp_path, "ended", "--fraction=0.5")
    others = data.load("shapes", train_examples=200, shapes_examples=1010)
    with pytest.raises(ValueError, match="the images have changed"):
        run(others, tmp_path, "ended")


def interrupt(monkeypatch, epoch):
    """Makes the next run stop when an epoch begins, counted from 0."""

    def stop(checkpoint, begun, logs=None):
        if begun == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunCheckpoint, "on_epoch_begin", stop, raising=False)


def test_a_run_from_a_baseline_is_the_run_that_made_it(images, undisturbed, tmp_path, monkeypatch):
    arguments = (images, tmp_path, "branch", f"--baseline={undisturbed}")
    with monkeypatch.context() as patch:
        interrupt(patch, 1)  # before its first own epoch has ended
        with pytest.raises(RunStoppedError, match="end of epoch 1 is saved"):
            run(*arguments)
    run(*arguments)
    found = compare(undisturbed, tmp_path / "branch")
    naming_the_baseline = {"identity", "settings", "flags.txt"}
    without_its_first_epochs = {
        f"TensorBoard's {name}" for name in ("train", "validation", "restart")
    }
    assert set(found) <= naming_the_baseline | without_its_first_epochs


def test_what_is_missing_or_damaged_on_resume_is_refused_or_repaired(
    images, undisturbed, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(RunStoppedError, match="end of epoch 3 is saved"):
            run(images, tmp_path, "run")
    for name, content in (
        *(("history.csv", None), ("history.csv", "epoch,loss\n"), ("scores.jsonl", None)),
        *(("rounds.jsonl", None), ("run.json", "{}"), ("run.json", "[")),
    ):
        before = (folder / name).read_bytes()
        (folder / name).unlink()
        if content:
            (folder / name).write_text(content)
        with pytest.raises(ValueError, match=re.escape(str(folder / name))):
            run(images, tmp_path, "run")
        (folder / name).write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setenv("TF_DETERMINISTIC_OPS", "1")
        with pytest.raises(ValueError, match="TF_DETERMINISTIC_OPS was None, is '1'"):
            run(images, tmp_path, "run")
    for file in StateFolder(folder / "state").last.iterdir():
        os.truncate(file, file.stat().st_size // 2)
    run(images, tmp_path, "run")
    assert "resumed after epoch 2 (" in capsys.readouterr().out
    assert compare(undisturbed, folder) == []


def test_what_is_saved_each_epoch_does_not_grow_with_the_number_of_restarts(tmp_path, monkeypatch):
    images, sizes = data.load("shapes", train_examples=50, shapes_examples=100), []
    write = StateFolder.write

    def measured(states, state):
        sizes.append(len(json.dumps(state.content)))
        write(states, state)

    monkeypatch.setattr(StateFolder, "write", measured)
    many = ("--round_epochs=1", "--learning_rate_drops=0", "--max_restarts=6", "--nostop_on_repeat")
    record = run(images, tmp_path, "many", *many)
    assert len(record["events"]) == 6
    *_, early, _, _, late, _ = sizes
    assert late < 1.05 * early


def test_a_baseline_that_is_none_is_refused_before_work(images, undisturbed, tmp_path):
    for folder, says in (
        (tmp_path, "baseline must be the folder of a run"),
        (undisturbed, "--augment was True, is False"),
    ):
        with pytest.raises(ValueError, match=says):
            run(images, tmp_path, "other", "--noaugment", f"--baseline={folder}")


def test_a_diverged_loss_stops_the_run_with_the_last_good_state(images, tmp_path):
    with pytest.raises(RunStoppedError) as raised:
        run(images, tmp_path, "nan", "--optimizer=sgd", "--learning_rate=1e6")
    text = str(raised.value)
    assert text.startswith("The loss is ")
    assert "in epoch 1, batch" in text
    assert "Before it came no restart" in text
    assert "--on_nan=rollback" in text
    state, _ = StateFolder(tmp_path / "nan" / "state").read_last_good()
    assert state.content["next_epoch"] == 0
    assert not (tmp_path / "nan" / "model.keras").exists()


def test_rolled_back_it_is_the_run_of_the_lower_rate(images, tmp_path):
    rates = ("--optimizer=sgd", "--learning_rate_drops=0")
    rates += ("--round_epochs=1",)  # the restart resets the rate to the lower one
    lowered = (f"--learning_rate={2**20}", "--on_nan=rollback", f"--learning_rate_factor={2**-27}")
    record = run(images, tmp_path, "back", *rates, *lowered)
    assert [rollback["epoch"] for rollback in record["rollbacks"]] == [0]
    straight = run(images, tmp_path, "lower", *rates, f"--learning_rate={2**-7}")
    assert straight["rollbacks"] == []
    assert record["table"] == straight["table"]
    assert [event["learning_rate"] for event in record["events"]] == [2**-7]
    one, other = (
        StateFolder(tmp_path / name / "state").read_last_good()[0] for name in ("back", "lower")
    )
    for path, mine, theirs in zip(
        one.content["variables"], one.variables, other.variables, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs, path)


def test_a_divergence_is_described_without_weights_of_known_names():
    state = types.SimpleNamespace(variables=[np.ones(2)], content={"variables": ["own/w"]})
    assert divergence.divergence_context([], state) == "Before it came no restart"


def test_a_weight_that_is_not_finite_is_noticed_where_the_loss_hides_it():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, "relu", name="hidden"), keras.layers.Dense(1)]
    )
    check = divergence.DivergenceCheck()
    check.set_model(model)
    check.on_epoch_begin(4)
    check.on_epoch_end(4, {"loss": 0.5})
    model.layers[0].bias.assign([0.0, np.nan])
    with pytest.raises(divergence.DivergedError, match="Weights of hidden are not finite") as error:
        check.on_epoch_end(4, {"loss": 0.5})
    assert error.value.epoch == 4


# The command line with the data and options of this module.
MAIN = """
import functools
import tensorflow as tf
from kerasrestart.experiments import data
from kerasrestart.main import entry_point
tf.config.experimental.enable_tensor_float_32_execution(False)
data.load = functools.partial(data.load, shapes_examples=1000)
entry_point()
"""


def command(*arguments, **options):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ROOT}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, **options,
    )  # fmt: skip


def error_of(stderr):
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_ctrl_c_explains_how_to_resume_and_the_end_is_that_of_the_undisturbed_run(
    undisturbed, tmp_path, typed, monkeypatch
):
    arguments = (*SMALL, f"--logdir={tmp_path}")
    interrupted = command(*arguments, "--run_name=stopped")
    for line in interrupted.stdout:
        if line.startswith("Epoch 3/"):
            break
    interrupted.send_signal(signal.SIGINT)
    status, _, err = ended(interrupted)
    assert status == 130
    message = error_of(err)
    assert re.search("All up to the end of epoch [23] is saved", message)
    # The command in the message can be typed as it is.
    resume = shlex.split(message.partition("Resume with: python -m kerasrestart.main ")[2])
    monkeypatch.setattr(data, "load", functools.partial(data.load, shapes_examples=1000))
    done = typed(*resume, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert compare(undisturbed, tmp_path / "stopped") == []


def test_a_limit_on_file_size_ends_the_run_in_one_line_and_it_resumes_without(
    images, undisturbed, tmp_path
):
    # The first states are smaller.
    last = StateFolder(undisturbed / "state").last
    limit = max(file.stat().st_size for file in last.iterdir()) * 5 // 6
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(RunStoppedError) as raised:
            run(images, tmp_path, "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(raised.value)
    assert re.fullmatch(
        r"/\S*/full/state/\S*; File too large\. No epoch has ended yet\. Resume with: py.*", message
    )
    assert len(message.splitlines()) == 1
    assert not list((tmp_path / "full").rglob(".*tmp*"))
    run(images, tmp_path, "full")
    assert compare(undisturbed, tmp_path / "full") == []


def test_a_second_ctrl_c_ends_at_once():
    code = (
        "import time\n"
        "from kerasrestart.experiments.interruption import interruptible\n"
        "with interruptible():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('ending', flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "ending\n"
        since = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert time.monotonic() - since < 20


@pytest.mark.slow
def test_killed_inside_each_write_and_resumed_it_is_the_undisturbed_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.kill_resume", f"--points={','.join(POINTS)}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(POINTS)} of {len(POINTS)} trials ended bit-identical" in done.stdout
    assert "never came" not in done.stdout
