"""The files that grow by a line an epoch: cut to what a state belongs to, or refused."""

import json
import os

import pytest

from kerasrestart.experiments.records.growing_files import GrowingFiles, closed_records
from kerasrestart.experiments.records.schema import RecordError
from kerasrestart.restart.records import Round
from tests.experiments.records.test_records import ROUND

EVENT = {
    "restart": 1, "epoch": 1, "reason": "so", "initializer": "he", "learning_rate": None,
    "layers": {}, "metrics_before": {"loss": 1.0},
}  # fmt: skip


def append(folder, epoch):
    with (folder / "history.csv").open("a") as file:
        file.write(f"{epoch},0.5\n" if epoch else "epoch,loss\n0,0.5\n")
    with (folder / "scores.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": epoch, "scores": {}}) + "\n")


@pytest.fixture
def run(tmp_path):
    """A folder, and the marks of its files after each of three epochs."""
    files, marks = GrowingFiles(tmp_path), []
    for epoch in range(3):
        append(tmp_path, epoch)
        files.append_closed([EVENT] * epoch, [ROUND] * epoch)
        marks.append(files.marks())
    return tmp_path, marks


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_cut_to_what_they_were_and_grow_as_before(run):
    folder, marks = run
    complete = contents(folder)
    append(folder, 3)  # by a process that was killed before it saved its state,
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"event": {"resta')  # and in the middle of a line
    files = GrowingFiles(folder)
    files.restore(marks[2])
    assert contents(folder) == complete
    files.restore(marks[0])
    assert b"\n1," not in (folder / "history.csv").read_bytes()
    for epoch in (1, 2):
        append(folder, epoch)
        files.append_closed([EVENT] * epoch, [ROUND] * epoch)
        assert files.marks() == marks[epoch]
    assert contents(folder) == complete


def test_what_a_mark_describes_is_on_disk(run, monkeypatch):
    folder, _ = run
    flushed, fsync = set(), os.fsync

    def flush(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    GrowingFiles(folder).marks()
    assert {path.stat().st_ino for path in folder.iterdir()} == flushed


def test_without_marks_all_begins_again(run):
    folder, _ = run
    GrowingFiles(folder).restore({})
    assert set(contents(folder).values()) == {b""}


def test_files_of_another_run_are_copied_up_to_its_marks(run, tmp_path):
    folder, marks = run
    other = tmp_path / "other"
    other.mkdir()
    files = GrowingFiles(other)
    files.restore(marks[1], folder)
    assert files.marks() == marks[1]


@pytest.mark.parametrize("name", ["history.csv", "scores.jsonl", "rounds.jsonl"])
@pytest.mark.parametrize("damage", ["missing", "short", "altered", "folder"])
def test_a_missing_or_foreign_file_is_refused_and_nothing_changes(run, name, damage):
    folder, marks = run
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(content[:-1])
    if damage == "altered":
        path.write_bytes(b"7" + content[1:])
    if damage == "folder":
        path.mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(RecordError, match=name):
        GrowingFiles(folder).restore(marks[2])
    assert sorted(folder.iterdir()) == before


def test_closed_rounds_and_restarts_are_read_in_their_order(run):
    folder, _ = run
    events, rounds = closed_records((folder / "rounds.jsonl").read_bytes(), "here")
    assert events == [EVENT, EVENT]
    assert [Round(**of_round) for of_round in rounds] == [Round(**ROUND)] * 2
    with pytest.raises(RecordError, match="here"):
        closed_records(b'{"round": {"round": "first"}}\n', "here")
