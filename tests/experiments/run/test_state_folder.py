"""The states of a run on disk: exact, whole or refused."""

import os
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrestart.experiments.run.state_folder import (
    SavedState,
    StateError,
    StateFolder,
    read_state,
    write_state,
)
from kerasrestart.restart.records import RestartState, Round

ARRAYS = {
    "a/kernel": np.random.default_rng(0).normal(size=(3, 4)).astype("float32"),
    "half": np.arange(5, dtype=ml_dtypes.bfloat16),
    "seed": np.array([7, 2**32 - 1], "uint32"),
    "scalar": np.array(7, "int64"),
    "empty": np.zeros((0, 3), "float32"),
    "zero": np.array([-0.0, 1e-45], "float32"),
}


RESTART = RestartState(rounds=[Round(0, 0)]).to_dict()


def state_of(epoch, **changes):
    content = {
        "next_epoch": epoch,
        "done": False,
        "identity": {
            **{"settings": {"layers": "ü"}, "data": None, "weights": None, "replicas": 1},
            "environment": {},
        },
        "variables": list(ARRAYS),
        "restart": RESTART,
        "scores": {"conv": [0.1, float("nan")]},
        "evaluator": {"evaluations": {}, "best_value": None, "same": True},
        "files": {},
        "rollbacks": [],
        "seconds": 1.5,
        **changes,
    }
    return SavedState(content, list(ARRAYS.values()), [ARRAYS["zero"]], [])


def assert_same(state, other):
    assert repr(state.content) == repr(other.content)  # NaN is not equal to itself
    for name in ("variables", "run_best", "round_best"):
        for array, expected in zip(getattr(state, name), getattr(other, name), strict=True):
            assert array.dtype == expected.dtype
            assert array.shape == expected.shape
            assert array.tobytes() == expected.tobytes()


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def damage(folder):
    for file in folder.iterdir():
        os.truncate(file, file.stat().st_size // 2)


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    states = StateFolder(tmp_path / "state")
    assert states.last is None
    assert states.read_last_good() is None
    states.write(state_of(3))
    state, wrong = states.read_last_good()
    assert wrong is None
    assert_same(state, state_of(3))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_state(folder, state_of(1))
    return folder


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_an_altered_state_is_refused_or_read_as_it_was(written, data):
    other = written.with_name("altered")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(written, other)
    path = data.draw(st.sampled_from(sorted(other.iterdir())))
    altered = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(altered[: data.draw(st.integers(0, len(altered)))]))
    try:
        read = read_state(other)
    except StateError as error:
        assert str(other) in str(error)  # noqa: PT017 - either is right
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert_same(read, state_of(1))


@pytest.mark.parametrize(
    "changes",
    [
        {"next_epoch": -1},
        {"identity": {}},
        {"rollbacks": [{"epoch": "first"}]},
        {"scores": {"conv": "high"}},
        {"files": {"history.csv": 3}},
        {"restart": {}},
        {"restart": {**RESTART, "rounds": []}},
        {"restart": {**RESTART, "progress": {"epochs": "many"}}},
        {"restart": {**RESTART, "events": [{"restart": 1}]}},
        {"restart": {**RESTART, "pending": {"event": None, "reader_input_means": {}}}},
        {"evaluator": {"evaluations": {"first": {}}, "best_value": None, "same": True}},
    ],
)
def test_a_state_of_the_right_checksum_and_wrong_content_is_refused(tmp_path, changes):
    write_state(tmp_path, state_of(1, **changes))
    with pytest.raises(StateError, match="is not a valid state of a run"):
        read_state(tmp_path)


def test_a_weight_that_is_not_finite_is_noticed(tmp_path):
    state = state_of(1)
    state.variables[0] = np.full((3, 4), np.nan, "float32")
    write_state(tmp_path, state)
    with pytest.raises(StateError, match="variable 'a/kernel' that are not finite"):
        read_state(tmp_path)


def test_the_last_two_states_are_kept_and_the_older_is_read_where_the_newer_is_damaged(tmp_path):
    states = StateFolder(tmp_path)
    for epoch in range(4):
        states.write(state_of(epoch))
    assert len(list(tmp_path.iterdir())) == 2
    newest = states.last
    damage(newest)
    state, wrong = states.read_last_good()
    assert state.content["next_epoch"] == 2
    assert str(newest) in wrong
    # The damaged one is gone, so that no later write can delete the good one in its place.
    assert not newest.exists()
    states.write(state_of(3))
    states.write(state_of(4))
    damage(states.last)
    assert states.read_last_good()[0].content["next_epoch"] == 3
    damage(states.last)
    with pytest.raises(StateError, match="Remove the run's folder"):
        states.read_last_good()


def test_killed_at_any_change_of_the_disk_there_is_a_whole_state(tmp_path, monkeypatch):
    """Double faults too: the newest state is damaged, and then the next write is interrupted."""

    class Killed(BaseException):
        pass

    def attempt(step):
        folder = tmp_path / f"attempt{step}"
        states = StateFolder(folder)
        states.write(state_of(1))
        states.write(state_of(2))
        damage(states.last)
        left = [step]

        def dying(function):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            # What a killed process does not do any more cannot clean up either.
            patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
            patch.setattr(pathlib.Path, "replace", dying(pathlib.Path.replace))
            patch.setattr(os, "fsync", dying(os.fsync))
            patch.setattr(tf.train.Checkpoint, "write", dying(tf.train.Checkpoint.write))
            try:
                states.read_last_good()
                states.write(state_of(2))
                ended = True
            except Killed:
                ended = False
        assert StateFolder(folder).read_last_good()[0].content["next_epoch"] in (1, 2)
        return ended

    assert next(step for step in range(20) if attempt(step)) > 5


def test_a_power_failure_leaves_the_last_state(tmp_path, monkeypatch):
    """When a state gets its name, and when an old one is deleted, the new files are on disk."""
    flushed, fsync, replace, rmtree = set(), os.fsync, pathlib.Path.replace, shutil.rmtree

    def flush(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def rename(path, target):
        assert {p.stat().st_ino for p in (path, *path.rglob("*"))} <= flushed
        flushed.discard(target.parent.stat().st_ino)  # a folder changes with its entries
        return replace(path, target)

    def remove(path, **options):
        if path.exists() and path.name != ".tmp":
            assert path.parent.stat().st_ino in flushed
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(pathlib.Path, "replace", rename)
    monkeypatch.setattr(shutil, "rmtree", remove)
    states = StateFolder(tmp_path / "state")
    for epoch in range(3):
        states.write(state_of(epoch))
    states.copy_last(tmp_path / "baseline")
    assert_same(read_state(tmp_path / "baseline"), state_of(2))


def test_a_write_that_fails_leaves_the_states_that_exist(tmp_path, monkeypatch):
    states = StateFolder(tmp_path)
    states.write(state_of(1))
    before = files_of(tmp_path)

    def full(checkpoint, path):
        pathlib.Path(f"{path}_temp").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    with pytest.raises(OSError, match="No space"):
        states.write(state_of(2))
    assert files_of(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1
