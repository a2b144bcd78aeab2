"""Runs that are stopped, killed or diverge: what they say, and that they end as if undisturbed."""

import json
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from kerasrestart.experiments import data
from kerasrestart.experiments.interruption import RunStoppedError
from kerasrestart.experiments.run.state_file import read_state
from kerasrestart.experiments.settings import parse_settings
from tests.soak.kill_resume import compare

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
    with pytest.raises(ValueError, match="pass --resume to go on with it"):
        run(images, undisturbed.parent, "undisturbed", resume=False)
    others = data.load("shapes", train_examples=200, shapes_examples=1010)
    with pytest.raises(ValueError, match="the images are others"):
        run(others, undisturbed.parent, "undisturbed")
    assert files_of(undisturbed) == before


def test_a_run_that_has_ended_tells_its_table_and_trains_no_more(images, undisturbed, capsys):
    before = files_of(undisturbed)
    record = run(images, undisturbed.parent, "undisturbed", "--on_nan=rollback")
    assert record == json.loads((undisturbed / "run.json").read_text())
    assert "has ended already" in capsys.readouterr().out
    assert files_of(undisturbed) == before


@pytest.mark.parametrize("killed", [False, True])
def test_going_on_from_a_baseline_gives_the_run_that_made_it_itself(
    images, undisturbed, tmp_path, monkeypatch, killed
):
    arguments = (images, tmp_path, "branch", f"--baseline={undisturbed}")
    if killed:  # before its first own epoch has ended
        from kerasrestart.experiments.run.round_evaluator import RoundEvaluator

        def end(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RoundEvaluator, "on_epoch_end", end)
            with pytest.raises(RunStoppedError, match="end of epoch 1 is saved"):
                run(*arguments)
    run(*arguments)
    found = compare(undisturbed, tmp_path / "branch")
    assert set(found) <= {"identity", "settings"}  # the baseline's name is one of the settings


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
    arrays, content = read_state(tmp_path / "nan" / "state.npz")
    assert content["next_epoch"] == 0
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    assert not (tmp_path / "nan" / "model.keras").exists()


def test_rolled_back_it_is_the_run_of_the_lower_rate(images, tmp_path):
    rates = ("--optimizer=sgd", f"--learning_rate_factor={2**-27}")
    record = run(images, tmp_path, "back", *rates, f"--learning_rate={2**20}", "--on_nan=rollback")
    assert [rollback["epoch"] for rollback in record["rollbacks"]] == [0]
    straight = run(images, tmp_path, "lower", *rates, f"--learning_rate={2**-7}")
    assert straight["rollbacks"] == []
    assert record["table"] == straight["table"]
    one, other = (read_state(tmp_path / name / "state.npz")[0] for name in ("back", "lower"))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], name)


def command(*arguments, **options):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ROOT}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "kerasrestart.main", *arguments],
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


def test_ctrl_c_says_how_to_go_on_and_that_ends_as_if_undisturbed(tmp_path):
    arguments = (*SMALL, "--round_epochs=4", f"--logdir={tmp_path}")
    interrupted = command(*arguments, "--run_name=stopped")
    for line in interrupted.stdout:
        if line.startswith("Epoch 3"):
            break
    interrupted.send_signal(signal.SIGINT)
    status, _, err = ended(interrupted)
    assert status == 130
    said = error_of(err)
    assert "All up to the end of epoch 2 is saved" in said
    # What it says can be typed as it stands.
    typed = shlex.split(said.partition("Go on with: python -m kerasrestart.main ")[2])
    going_on, straight = command(*typed), command(*arguments, "--run_name=straight")
    for process in (going_on, straight):
        status, _, err = ended(process)
        assert status == 0, err
    assert compare(tmp_path / "straight", tmp_path / "stopped") == []


def test_a_limit_on_file_size_ends_the_run_in_one_line_and_it_goes_on_without(
    images, undisturbed, tmp_path
):
    limit = undisturbed.joinpath("state.npz").stat().st_size * 5 // 6  # the first ones are smaller

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    arguments = (*SMALL, f"--logdir={tmp_path}", "--run_name=full")
    status, _, err = ended(command(*arguments, preexec_fn=limited))
    assert status == 1
    assert re.search(r"File too large\. All up to .* \d is saved\. Go on with: py", error_of(err))
    assert not list((tmp_path / "full").glob(".*.tmp"))
    status, out, err = ended(command(*arguments))
    assert status == 0, err
    assert "restart 1" in out


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


def test_killed_at_these_points_and_started_again_it_is_the_undisturbed_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.kill_resume", "--points=write,restart,rename"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 trials ended bit-identical" in done.stdout
    assert "never came" not in done.stdout
