"""What the files of a run hold is validated when it is read."""

import hashlib
import json
from unittest.mock import ANY

import numpy as np
import pytest

from kerasrestart.experiments.records.history import read_history
from kerasrestart.experiments.records.run_record import read_record, write_record
from kerasrestart.experiments.records.schema import RecordError
from kerasrestart.experiments.records.score_log import read_scores
from tests.experiments.records.sample_record import sample_record

ROW = {
    "round": "baseline", "data": "shapes", "epochs": 2, "best_epoch": 1, "restarted": {"conv1": 3},
    "validation_accuracy": 0.5, "test_accuracy": 0.5, "test_accuracy_last": None,
    "train_accuracy_last": 1.0,
}  # fmt: skip
ROUND = {"round": 0, "first_epoch": 0, "epochs": 2, "best_epoch": 1, "ended": "so"}


def write(folder, record):
    (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return folder


def test_the_record_of_an_ended_run_is_returned_as_it_was_written(tmp_path):
    assert read_record(tmp_path) is None
    record = sample_record(table=[ROW], rounds=[ROUND], later_version={"adds": "this"})
    assert read_record(write(tmp_path, record)) == record
    record["finished"] = None
    assert read_record(write(tmp_path, record)) is None
    assert read_record(tmp_path, ended=False) == record


@pytest.mark.parametrize(
    "record",
    [
        *("", "{", "[]", "7", "null", '{"finished": null}', "[" * 100_000, "9" * 5000),
        sample_record(settings=[]),
        sample_record(table=None),
        sample_record(table=[{**ROW, "test_accuracy": 5.0}]),
        sample_record(table=[{**ROW, "test_accuracy": float("nan")}]),
        sample_record(table=[{**ROW, "test_accuracy": float("inf")}]),
        sample_record(table=[{**ROW, "epochs": -1}]),
        sample_record(table=[{**ROW, "best_epoch": "1"}]),
        sample_record(rounds=[{**ROUND, "epochs": None}]),
        sample_record(rounds=[{"round": 0}]),
        sample_record(events=[{"restart": 1}]),
        sample_record(finished=3),
        sample_record(timing={"started": "", "seconds": 1e300, "folder": ""}),
    ],
)
def test_a_damaged_record_is_refused_in_one_line_that_names_the_file(tmp_path, record):
    with pytest.raises(RecordError) as refused:
        read_record(write(tmp_path, record))
    assert str(tmp_path / "run.json") in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 500


def test_a_record_that_was_changed_is_refused_unless_its_hash_is_removed(tmp_path):
    record = sample_record(table=[ROW])
    write_record(tmp_path, record)
    written = read_record(tmp_path)
    assert written.pop("timing") == {**record.pop("timing"), "sha256": ANY}
    assert written == record
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"test_accuracy": 0.5', '"test_accuracy": 0.6'))
    with pytest.raises(RecordError, match=r"run\.json was changed since the run wrote it"):
        read_record(tmp_path)
    changed = json.loads(path.read_text())
    del changed["timing"]["sha256"]
    assert read_record(write(tmp_path, changed))["table"][0]["test_accuracy"] == 0.6


@pytest.mark.parametrize("damage", [None, b"", b"epoch,loss\n0,1.6\n"])
def test_a_history_and_scores_that_are_not_those_of_the_record_are_refused(tmp_path, damage):
    content = b"epoch,loss\n0,1.5\n"
    mark = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path = tmp_path / "history.csv"
    path.write_bytes(content + b"1,2\n")  # of a later epoch
    assert read_history(tmp_path, mark) == {"epoch": (0,), "loss": (1.5,)}
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(RecordError, match=r"history\.csv is missing or was changed"):
        read_history(tmp_path, mark)
    with pytest.raises(RecordError, match=r"scores\.jsonl is missing or was changed"):
        read_scores(tmp_path / "scores.jsonl", mark)


def test_a_folder_in_place_of_a_record_is_refused(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(RecordError, match=r"run\.json cannot be read: Is a directory"):
        read_record(tmp_path)


def test_a_history_has_a_number_for_each_epoch_and_column(tmp_path):
    assert read_history(tmp_path) == {}
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss\n0,1.5,\n1,x,nan\n2,0.")
    found = read_history(tmp_path)
    assert found["epoch"] == (0, 1)
    np.testing.assert_array_equal(found["loss"], [1.5, np.nan])
    assert "val_loss" not in found


@pytest.mark.parametrize("content", [b"epoch\n\xff\xfe\n", b"epoch\n" + b"9" * 200_000 + b"\n"])
def test_a_history_that_is_not_csv_is_refused(tmp_path, content):
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(RecordError, match=r"history\.csv is not a valid history"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "x", '{"epoch": 0}', '{"epoch": -1, "scores": {}}', '{"epoch": 0, "scores": [1]}'),
        '{"epoch": 0, "scores": {"conv": ["a"]}}',
        '{"epoch": 0, "scores": {"conv": [1]}}\n{"epoch": 1, "scores": {"conv": [1, 2]}}',
    ],
)
def test_scores_that_are_damaged_are_refused(tmp_path, line):
    (tmp_path / "scores.jsonl").write_text(line + "\n")
    with pytest.raises(RecordError, match=r"scores\.jsonl is not a valid record"):
        read_scores(tmp_path / "scores.jsonl")
