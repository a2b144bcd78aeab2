import contextlib
import json
import shutil
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest

from kerasrestart.experiments.data import DataError, Split, cifar10, load
from kerasrestart.experiments.data.errors import UnavailableError
from kerasrestart.experiments.data.tfds_copy import (
    LabelledImages,
    download_obstacle,
    find_prepared,
    resolve_data_dir,
)


@pytest.fixture(scope="module")
def loaded(prepared_dir):
    return load("cifar10", prepared_dir)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(cifar10, "download_obstacle", lambda: "no route to host")


@pytest.fixture
def copied(prepared_dir, tmp_path):
    """A copy that a test may damage: small files copied, data files linked."""
    source = find_prepared(prepared_dir, "cifar10")
    folder = tmp_path / "cifar10" / source.name
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if ".tfrecord" in file.name:
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder)
    return folder


def test_prepared_copy_has_the_official_counts_and_classes(loaded):
    assert loaded.name == "cifar10"
    assert loaded.note == ""
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [45000, 5000, 10000]
    assert loaded.classes[:3] == ("airplane", "automobile", "bird")
    assert loaded.train.images.shape == (45000, 32, 32, 3)
    for split, each in ((loaded.train, 4500), (loaded.validation, 500), (loaded.test, 1000)):
        assert np.bincount(split.labels).tolist() == [each] * 10


def test_images_and_labels_equal_those_of_tfds(prepared_dir, loaded):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(find_prepared(prepared_dir, "cifar10"))
    examples = builder.as_dataset(split="test[4000:4100]").as_numpy_iterator()
    for position, example in enumerate(examples, start=4000):
        np.testing.assert_array_equal(loaded.test.images[position], example["image"])
        assert loaded.test.labels[position] == example["label"]


def test_mean_and_std_match_the_published_values(loaded):
    np.testing.assert_allclose(loaded.mean, [0.4914, 0.4822, 0.4465], atol=0.01)
    np.testing.assert_allclose(loaded.std, [0.2470, 0.2435, 0.2616], atol=0.01)


def test_auto_uses_the_prepared_copy_without_network_access(prepared_dir, monkeypatch):
    def read(images, name, count):  # decoding all images is tested above
        assert images.copy.folder == find_prepared(prepared_dir, "cifar10")
        n = {"train": 5000, "test": 300}[name]
        return Split(np.zeros((n, 32, 32, 3), np.uint8), np.arange(n, dtype=np.int32) % 10)

    monkeypatch.setattr(LabelledImages, "split", read)
    monkeypatch.setattr(cifar10, "download_obstacle", lambda: pytest.fail("accessed the network"))
    data = load("auto", prepared_dir, validation_examples=1000, train_examples=500)
    assert (data.name, data.note) == ("cifar10", "")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [500, 1000, 300]


def test_error_without_data_and_network_is_immediate_and_names_three_solutions(tmp_path, offline):
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        load("cifar10", tmp_path / "absent")
    assert time.monotonic() - began < 5
    text = str(caught.value)
    assert "\n" not in text
    for part in (str(tmp_path / "absent"), "no route to host", "--data_dir", "TFDS_DATA_DIR"):
        assert part in text
    assert "network available" in text
    assert "--dataset=shapes" in text


def test_auto_falls_back_to_shapes_with_a_note(tmp_path, offline):
    data = load("auto", tmp_path, shapes_examples=200)
    assert data.name == "shapes"
    assert str(tmp_path) in data.note
    assert "NOT CIFAR-10" in data.note
    assert data.summary()["note"] == data.note


def test_data_dir_defaults_to_the_environment_then_to_tfds(monkeypatch, tmp_path):
    from tensorflow_datasets.core import constants

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert resolve_data_dir("elsewhere").name == "elsewhere"
    assert resolve_data_dir() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert str(resolve_data_dir()) == constants.get_default_data_dir()


def test_newest_complete_version_is_used(tmp_path):
    assert find_prepared(tmp_path, "cifar10") is None
    odd = ("5..2", "5.0.²", "5.0.٣", "5.0", "...", "5.0.0.0")
    for name in ("3.0.2", "3.0.10", "3.0.11.incompleteABCDEF", "4.0.0", *odd):
        (tmp_path / "cifar10" / name).mkdir(parents=True)
        if name != "4.0.0":
            (tmp_path / "cifar10" / name / "dataset_info.json").touch()
    assert find_prepared(tmp_path, "cifar10").name == "3.0.10"


def test_data_are_downloaded_by_tfds_if_the_server_answers(tmp_path, monkeypatch, prepared_dir):
    import tensorflow_datasets as tfds

    asked = []

    class Builder:
        data_dir = str(find_prepared(prepared_dir, "cifar10"))

        def download_and_prepare(self):
            asked.append("prepared")

    def builder(name, data_dir):
        asked.append((name, data_dir))
        return Builder()

    monkeypatch.setattr(cifar10, "download_obstacle", lambda: None)
    monkeypatch.setattr(tfds, "builder", builder)
    monkeypatch.setattr(LabelledImages, "split", lambda images, name, count: f"{name} read")
    assert cifar10.load_cifar10(tmp_path) == ("train read", "test read")
    assert asked == [("cifar10", str(tmp_path)), "prepared"]


def test_failed_download_is_reported_in_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def builder(*args, **kwargs):
        raise OSError("disk\nfull")

    monkeypatch.setattr(cifar10, "download_obstacle", lambda: None)
    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(UnavailableError, match=r"download failed \(OSError: disk full\)") as caught:
        cifar10.load_cifar10(tmp_path)
    assert "\n" not in str(caught.value)


def test_silent_server_times_out(monkeypatch):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setenv("no_proxy", "*")
        began = time.monotonic()
        assert "\n" not in download_obstacle(address, 0.5)
        assert time.monotonic() - began < 3


def test_slow_name_resolution_times_out(monkeypatch):
    over = threading.Event()

    def looks_up(request, timeout):
        over.wait(10)
        return contextlib.nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", looks_up)
    began = time.monotonic()
    reason = "data.org cannot be reached (no answer within 0.2 s)"
    assert download_obstacle("https://data.org/images.tar", 0.2) == reason
    assert time.monotonic() - began < 2
    over.set()


def test_no_obstacle_if_the_server_answers(monkeypatch):
    def answers(request, timeout):
        assert request.get_method() == "HEAD"
        return contextlib.nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", answers)
    assert download_obstacle("https://data.org/images.tar", 2) is None


def assert_damaged(folder, text):
    with pytest.raises(DataError, match=text) as caught:
        load("auto", folder.parents[1])
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UnavailableError)


def test_missing_data_file_is_reported(copied):
    next(copied.glob("cifar10-test.tfrecord*")).unlink()
    assert_damaged(copied, "test must have 1 data files and has 0")


def test_wrong_count_is_reported(copied):
    info = json.loads((copied / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["49999"]
    (copied / "dataset_info.json").write_text(json.dumps(info))
    assert_damaged(copied, "train must have 50000 images and has 49999")


def test_unreadable_listing_is_reported(copied):
    (copied / "dataset_info.json").write_text("{half")
    assert_damaged(copied, "JSONDecodeError")


def test_listing_of_another_json_type_is_reported(copied):
    (copied / "dataset_info.json").write_text("[]")
    assert_damaged(copied, "incomplete or damaged")


def test_missing_label_names_are_reported(copied):
    (copied / "label.labels.txt").unlink()
    assert_damaged(copied, "labels")


@pytest.mark.parametrize("keep", [0, 1_000_000])
def test_truncated_data_file_is_reported(copied, keep):
    file = next(copied.glob("cifar10-train.tfrecord*"))
    with file.open("rb") as whole:
        data = whole.read(keep)
    file.unlink()
    file.write_bytes(data)
    assert_damaged(copied, "damaged")
