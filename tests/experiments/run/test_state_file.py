"""The file that a run's state is in: exact, whole or refused."""

import io

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrestart.experiments.run.state_file import (
    StateError,
    previous_of,
    read_last_good,
    read_state,
    write_state,
)

ARRAYS = {
    "float": np.random.default_rng(0).normal(size=(3, 4)).astype("float32"),
    "half/with a path": np.arange(5, dtype=ml_dtypes.bfloat16),
    "scalar": np.array(7, "int64"),
    "empty": np.zeros((0, 3), "float32"),
    "not finite": np.array([np.nan, np.inf, -0.0], "float64"),
}
CONTENT = {"epoch": 3, "names": ["a", "ü"], "nothing": None, "rate": 0.1}


def assert_same(arrays, content):
    assert content == CONTENT
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    write_state(tmp_path / "state.npz", ARRAYS, CONTENT)
    assert_same(*read_state(tmp_path / "state.npz"))
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "state.npz"
    write_state(path, ARRAYS, CONTENT)
    return path, path.read_bytes()


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_an_altered_file_is_refused_or_read_as_it_was(written, data):
    path, whole = written
    altered = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        altered[place] ^= 1 << data.draw(st.integers(0, 7))
    other = path.with_name("altered.npz")
    other.write_bytes(bytes(altered[: data.draw(st.integers(0, len(whole)))]))
    try:
        read = read_state(other)
    except StateError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    else:
        assert_same(*read)


def test_every_truncation_is_refused(written):
    path, whole = written
    other = path.with_name("short.npz")
    for length in range(0, len(whole), 7):
        other.write_bytes(whole[:length])
        with pytest.raises(StateError):
            read_state(other)


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "state.npz", content=np.array([Bomb()], object))
    with pytest.raises(StateError):
        read_state(tmp_path / "state.npz")
    assert not (tmp_path / "exploded").exists()


def test_the_state_before_is_kept_and_taken_where_the_last_is_damaged(tmp_path):
    path = tmp_path / "state.npz"
    assert read_last_good(path) is None
    write_state(path, ARRAYS, {"epoch": 1})
    write_state(path, ARRAYS, {"epoch": 2})
    assert read_last_good(path)[1:] == ({"epoch": 2}, None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _, content, wrong = read_last_good(path)
    assert content == {"epoch": 1}
    assert str(path) in wrong
    path.unlink()  # killed between the two renames
    assert read_last_good(path)[1:] == ({"epoch": 1}, None)
    previous_of(path).write_bytes(b"")
    with pytest.raises(StateError, match="Remove the run's folder"):
        read_last_good(path)


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    write_state(path, ARRAYS, CONTENT)
    savez = np.savez

    def full(file, **members):
        half = io.BytesIO()
        savez(half, **members)
        file.write(half.getvalue()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        write_state(path, {}, {"epoch": 9})
    assert_same(*read_state(path))
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_a_format_that_is_not_known_is_refused(tmp_path):
    text = b'{"format": 99, "arrays": {}, "content": {}}'
    np.savez(tmp_path / "state.npz", content=np.frombuffer(text, np.uint8))
    with pytest.raises(StateError, match="format 99: expected 1"):
        read_state(tmp_path / "state.npz")
