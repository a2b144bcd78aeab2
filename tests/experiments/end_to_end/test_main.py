"""The command line of one run: the whole of it, and what it refuses in one line."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kerasrestart.experiments.records.history import read_history
from kerasrestart.experiments.run import train
from tests.experiments.report.hparams_sessions import sessions

SMALL = (
    "--model=mininet",
    "--dataset=shapes",
    "--train_examples=200",
    "--eval_examples=200",
    "--trigger=epochs",
    "--monitor=val_accuracy",
    "--round_epochs=2",
    "--learning_rate_drops=1",
    "--max_restarts=2",
    "--batch_size=50",
)


def command(*arguments, cwd, redirect="", **variables):
    """Starts the command line in a shell, as a process of its own."""
    root = str(pathlib.Path(__import__("kerasrestart").__file__).parents[1])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": root, **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    shell = f'exec "$0" -m kerasrestart.main "$@" {redirect}'
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run with two restarts."""
    place = tmp_path_factory.mktemp("runs")
    arguments = (*SMALL, "--init=uniform", "--test_each_epoch", "--run_name=first")
    # As in a user's shell, and both streams in one.
    done = command(*arguments, cwd=place, redirect="2>&1", TF_CPP_MIN_LOG_LEVEL=None)
    assert done.returncode == 0, done.stdout
    return place / "tf_logs" / "first", done


def test_a_run_ends_with_a_row_for_the_baseline_and_each_restart(finished):
    folder, done = finished
    record = record_of(folder)
    rows = record["table"]
    assert [row["round"] for row in rows] == ["baseline", "restart 1", "restart 2"]
    assert [row["epochs"] for row in rows] == [2, 2, 2]
    assert rows[0]["restarted"] == {}
    assert rows[1]["restarted"] == {"conv1": 3, "conv2": 3, "conv3": 6}
    for row in rows:
        line = next(
            line for line in done.stdout.splitlines() if line.strip("| ").startswith(row["round"])
        )
        assert f"{100 * row['validation_accuracy']:.2f}" in line
        assert f"{100 * row['test_accuracy']:.2f}" in line
        assert 0.05 < row["test_accuracy_last"] < 1
    assert str(folder.name) in done.stdout
    assert list(sessions(folder.parent)) == ["first"]
    assert "Restarted 12 of 128 filters (conv1 3/32, conv2 3/32, conv3 6/64)" in done.stdout


def test_tests_of_each_epoch_are_those_of_the_table(finished):
    history = read_history(finished[0])
    assert len(history["test_accuracy"]) == 6
    for row in record_of(finished[0])["table"]:
        tested = history["test_accuracy"][row["best_epoch"]]
        assert tested == pytest.approx(row["test_accuracy"], abs=1e-6)


def test_no_line_of_a_library_comes_before_the_first_line_of_a_run(finished):
    assert finished[1].stdout.startswith("Data: shapes, ")


def test_random_labels_are_neither_validated_nor_tested(tmp_path, typed):
    arguments = ("--tasks=random_labels", "--monitor=accuracy", "--max_restarts=1")
    done = typed(*SMALL, *arguments, "--run_name=random", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "tf_logs" / "random"
    for row in record_of(folder)["table"]:
        assert (
            row["validation_accuracy"] is row["test_accuracy"] is row["test_accuracy_last"] is None
        )
        assert f"{100 * row['train_accuracy_last']:.2f}" in done.stdout
    history = read_history(folder)
    assert "accuracy" in history
    assert not [name for name in history if name.startswith("val_")]
    assert (folder / "report.html").exists()


def test_the_record_says_what_was_run_and_what_was_restarted(finished):
    record = record_of(finished[0])
    assert record["settings"]["init"] == "uniform"
    assert record["settings"]["fraction"] == 0.1
    assert record["settings"]["train_examples"] == 200
    assert record["data"]["name"] == "shapes"
    assert record["environment"]["image_data_format"] == "channels_last"
    assert set(record["versions"]) >= {"keras", "tensorflow", "numpy", "kerasrestart", "python"}
    first, second = record["events"]
    assert (first["epoch"], second["epoch"]) == (1, 3)
    for event in (first, second):
        for name, count in (("conv1", 32), ("conv2", 32), ("conv3", 64)):
            layer = event["layers"][name]
            lowest = np.argsort(layer["scores"], kind="stable")[: len(layer["filters"])]
            assert len(layer["scores"]) == count
            assert layer["filters"] == sorted(lowest.tolist())
        assert event["metrics_before"]["val_loss"] != event["metrics_after"]["val_loss"]


def test_the_history_has_a_line_for_each_epoch(finished):
    folder, _ = finished
    with (folder / "history.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == [str(n) for n in range(6)]
    assert [line["learning_rate"] for line in lines] == ["0.01", "0.001"] * 3
    best = record_of(folder)["table"][1]
    assert float(lines[best["best_epoch"]]["val_accuracy"]) == best["validation_accuracy"]


def test_the_saved_model_is_plain_and_has_the_weights_of_the_best_epoch(finished):
    folder, _ = finished
    record = record_of(folder)
    best = max(record["rounds"], key=lambda r: r["best_metrics"]["val_accuracy"])
    with zipfile.ZipFile(folder / "model.keras") as file:
        assert not [name for name in file.namelist() if b"kerasrestart" in file.read(name)]
    model = keras.saving.load_model(folder / "model.keras")
    assert (type(model).__name__, model.count_params()) == ("Functional", 145578)
    from kerasrestart.experiments import data

    images = data.load("shapes", train_examples=200, eval_examples=200)
    batches = data.evaluation_batches(images.validation, 500, mean=images.mean, std=images.std)
    loss, accuracy = model.evaluate(batches, verbose=0)
    assert loss == pytest.approx(best["best_metrics"]["val_loss"], rel=1e-4)
    assert accuracy == pytest.approx(best["best_metrics"]["val_accuracy"])


def test_tensorboard_finds_the_run_and_its_restarts(finished):
    folder, _ = finished
    restarts = EventAccumulator(str(folder / "restart"), {"tensors": 0}).Reload()
    assert any(tag.endswith("conv1") for tag in restarts.Tags()["tensors"])
    validation = EventAccumulator(str(folder / "validation"), {"tensors": 0}).Reload()
    assert len(validation.Tensors("epoch_accuracy")) == 6


def test_the_flagfile_repeats_a_run_whatever_keras_json_and_standard_output_are(finished, tmp_path):
    folder, _ = finished
    config = {"image_data_format": "channels_first", "floatx": "float16", "backend": "jax"}
    (tmp_path / "keras.json").write_text(json.dumps({**config, "epsilon": 0.1}))
    options = {"redirect": ">&-", "KERAS_HOME": str(tmp_path)}
    flags = (f"--flagfile={folder / 'flags.txt'}", "--run_name=second")
    done = command(*flags, cwd=folder.parents[1], **options)
    assert done.returncode == 0, done.stderr
    again = folder.parent / "second"
    first, second = record_of(folder), record_of(again)
    assert first.pop("timing") != second.pop("timing")
    assert first == second
    assert (folder / "history.csv").read_text() == (again / "history.csv").read_text()


def test_another_backend_is_refused_in_one_line(tmp_path, typed, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    done = typed(*SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert "KERAS_BACKEND must be 'tensorflow' or unset. Received: 'jax'" in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_the_control_shares_the_baseline_and_restarts_no_filter(finished, typed):
    folder, _ = finished
    done = typed(*SMALL, "--init=none", "--run_name=control", cwd=folder.parents[1])
    assert done.returncode == 0, done.stderr
    record, treated = record_of(folder.parent / "control"), record_of(folder)
    assert record["table"][0] == treated["table"][0]
    assert [row["restarted"] for row in record["table"]] == [{}, {}, {}]
    assert [row["epochs"] for row in record["table"]] == [2, 2, 2]
    assert record["events"][0]["layers"] == treated["events"][0]["layers"]
    assert record["table"][1] != treated["table"][1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--noresume"], "pass --resume to resume it"),
        (["--seed=1", "--fraction=0.2"], "--fraction was 0.1, is 0.2; --seed was 0, is 1"),
        (["--baseline=nowhere"], "baseline must be the folder of a run"),
    ],
)
def test_an_existing_run_is_not_overwritten(finished, typed, arguments, says):
    folder, _ = finished
    name = "other" if "nowhere" in arguments[0] else "first"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = typed(*SMALL, f"--run_name={name}", *arguments, cwd=folder.parents[1])
    assert done.returncode == 1
    assert says in one_line(done.stderr)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_in_another_process_is_not_touched(finished, typed):
    folder, _ = finished
    with filelock.FileLock(folder / ".lock"):
        done = typed(*SMALL, "--run_name=first", cwd=folder.parents[1])
    assert done.returncode == 1
    assert "in use by a run that has not ended" in one_line(done.stderr)


def prepare_half(folder):
    (folder / "cifar10" / "3.0.2.incompleteAB12").mkdir(parents=True)


def prepare_corrupt(folder):
    version = folder / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text('{"splits": [')
    (version / "features.json").write_text("{}")


@pytest.mark.parametrize("prepare", [None, pathlib.Path.mkdir, prepare_half, prepare_corrupt])
def test_a_data_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path, typed, prepare):
    folder = tmp_path / "data"
    if prepare:
        prepare(folder)
    before = sorted(tmp_path.rglob("*"))
    done = typed("--dataset=cifar10", f"--data_dir={folder}", cwd=tmp_path)
    assert done.returncode == 1
    assert str(folder) in one_line(done.stderr)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("logdir", ["a_file", "a_file/below", "/proc/nowhere"])
def test_a_log_folder_that_cannot_be_created_is_refused_in_one_line(tmp_path, typed, logdir):
    (tmp_path / "a_file").write_text("mine")
    done = typed(*SMALL, f"--logdir={logdir}", cwd=tmp_path)
    assert done.returncode == 1
    assert logdir.split("/")[-1] in one_line(done.stderr)
    assert (tmp_path / "a_file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fraction=0.001"], "--fraction must be 0.008 or more, or it selects no filter"),
        (["--layers=conv9"], "not among the chosen layers"),
    ],
)
def test_settings_that_do_not_fit_the_network_are_refused_before_there_is_a_folder(
    tmp_path, typed, arguments, says
):
    done = typed("--dataset=shapes", "--train_examples=100", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_of_weights_is_refused_before_data_and_tensorflow_are_loaded(tmp_path):
    weights = ("--model=alexnet", "--image_size=64", "--weights=nowhere.safetensors")
    done = command(*weights, cwd=tmp_path)
    assert done.returncode == 1
    assert "Received: 'nowhere.safetensors'" in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_missing_baseline_and_a_taken_name_are_refused_before_data_are_loaded(tmp_path, typed):
    # CIFAR-10 is missing, too: the message would be about that if it had been looked for.
    data = ("--dataset=cifar10", f"--data_dir={tmp_path}")
    done = typed(*data, "--baseline=nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("error: --baseline must be the folder of a run")
    assert "Received: 'nowhere'" in one_line(done.stderr)
    (tmp_path / "tf_logs" / "mine").mkdir(parents=True)
    done = typed(*data, "--run_name=mine", "--noresume", cwd=tmp_path)
    assert done.returncode == 1
    assert "exists already" in one_line(done.stderr)
    (tmp_path / "file").touch()
    done = typed(*data, "--logdir=file", cwd=tmp_path)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("error: --logdir must be a folder, or not exist yet.")


def test_memory_that_the_system_refuses_before_training_is_one_line(tmp_path, typed, monkeypatch):
    def build_model(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM\nmore")

    monkeypatch.setattr(train, "build_model", build_model)
    done = typed("--dataset=shapes", "--train_examples=100", cwd=tmp_path)
    assert done.returncode == 1
    assert one_line(done.stderr) == "error: OOM. Training had not begun."
    assert not list(tmp_path.iterdir())


def one_line(text):
    lines = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]
