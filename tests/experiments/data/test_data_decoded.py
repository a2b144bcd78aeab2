"""The cache of decoded images."""

import os

import numpy as np
import pytest

from kerasrestart.experiments.data import Split
from kerasrestart.experiments.data.decoded import decoded_once


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "some_data" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "a.tfrecord").write_bytes(b"one")
    return folder


class Decoder:
    """Counts how often it decodes, and returns other images each time."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return Split(np.full((5, 4, 4, 3), self.calls, np.uint8), np.arange(5, dtype=np.int32))


def cached(source):
    (file,) = (source.parents[1] / "cache" / "kerasrestart").iterdir()
    return file


def test_a_split_is_decoded_once(source):
    decode = Decoder()
    first, second = (decoded_once(source, "train", decode) for _ in range(2))
    assert decode.calls == 1
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (second.images.dtype, second.labels.dtype) == (np.uint8, np.int32)
    decoded_once(source, "test", decode)
    assert decode.calls == 2


def test_changed_data_are_decoded_again(source):
    decode = Decoder()
    decoded_once(source, "train", decode)
    (source / "a.tfrecord").write_bytes(b"three")
    assert decoded_once(source, "train", decode).images[0, 0, 0, 0] == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "pickle"])
def test_a_damaged_file_is_not_used_and_replaced(source, damage):
    decode = Decoder()
    decoded_once(source, "train", decode)
    content = bytearray(cached(source).read_bytes())
    if damage == "flip":
        content[400] ^= 1
    elif damage == "truncate":
        del content[300:]
    elif damage == "empty":
        content.clear()
    else:
        np.savez(cached(source), images=np.array([object()]), labels=np.array([1]))
        content = cached(source).read_bytes()
    cached(source).write_bytes(content)
    assert decoded_once(source, "train", decode).images[0, 0, 0, 0] == 2
    assert decoded_once(source, "train", decode).images[0, 0, 0, 0] == 2


def test_without_a_place_to_write_it_decodes_each_time(source, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    decode = Decoder()
    for calls in (1, 2):
        assert decoded_once(source, "train", decode).images[0, 0, 0, 0] == calls
