"""Data of your own: arrays, NumPy files, folders of images and data sets of TFDS."""

import shutil
import time

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

from kerasrestart.experiments.data import DataError, ImageData, load
from kerasrestart.experiments.data.arrays import from_arrays, load_npz, save_npz
from kerasrestart.experiments.data.dataset import Split, in_colour, split_tenth, split_validation
from kerasrestart.experiments.data.pipeline import evaluation_batches
from kerasrestart.experiments.data.tfds_copy import find_prepared
from kerasrestart.experiments.setting import SettingError


def arrays(count=40, channels=1, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, 6, 5, channels), np.uint8)
    return x, np.arange(count) % classes


def sizes(data):
    return [len(split) for split in (data.train, data.validation, data.test)]


@pytest.mark.parametrize("counts", [(200,) * 5, (400, 100, 40, 12, 3), (2, 2), (90, 10)])
def test_a_tenth_has_some_of_each_class_and_shares_no_image(counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.arange(len(labels) * 3).reshape(-1, 1, 1, 3).astype(np.uint8)
    rest, tenth = split_tenth(Split(images, labels), seed=0)
    assert len(rest) + len(tenth) == len(labels)
    for label, count in enumerate(counts):
        taken = int((tenth.labels == label).sum())
        assert 1 <= taken <= count / 2
        assert taken == (20 if counts[0] == 200 else taken)
    if counts == (400, 100, 40, 12, 3):  # in proportion, as the last class has too few
        assert np.bincount(tenth.labels).tolist() == [40, 10, 4, 1, 1]


def test_a_tenth_of_equal_classes_is_that_of_cifar10():
    labels = (np.arange(1000) % 10).astype(np.int32)
    split = Split(np.arange(3000).reshape(-1, 1, 1, 3).astype(np.uint8), labels)
    for one, other in zip(split_tenth(split, 0), split_validation(split, 100, 0), strict=True):
        np.testing.assert_array_equal(one.images, other.images)


def test_arrays_become_three_splits_without_loss():
    x, y = arrays()
    data = from_arrays((x, y), "mine")
    assert sizes(data) == [32, 4, 4]
    assert data.classes == ("0", "1", "2", "3")
    pixels = np.concatenate([s.images for s in (data.train, data.validation, data.test)])
    assert sorted(map(bytes, pixels)) == sorted(map(bytes, x))
    given = from_arrays(((x, y[:, np.newaxis]), arrays(8, seed=1)), "mine")
    assert sizes(given) == [36, 4, 8]
    named = from_arrays({"x": x[..., 0], "y": np.array(["a", "b"])[y % 2]}, "mine")
    assert named.classes == ("a", "b")
    assert named.train.images.shape[1:] == (6, 5, 1)


def test_images_in_0_to_1_are_rounded_to_256_levels():
    x, y = arrays()
    exact = from_arrays((x, y), "mine")
    scaled = from_arrays((x.astype("float32") / 255, y), "mine")
    assert scaled.fingerprint == exact.fingerprint
    assert from_arrays((x.astype("int64"), y), "mine").fingerprint == exact.fingerprint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mine", "Images must be .x, y., .* Received: 'str'"),
        ((np.zeros((4, 4)), np.zeros(4, int)), r"Received: 'tuple'"),
        ((np.zeros((4, 2, 2, 2)), np.zeros(4, int)), "1 or 3 channels last. Received: float64"),
        ((np.full((4, 2, 2), 2.0), np.zeros(4, int)), "floating-point in 0..1. .* from 2.0 to 2.0"),
        (
            (np.where(np.arange(16).reshape(4, 2, 2) % 8, 0.5, np.nan), np.zeros(4, int)),
            r"finite numbers\. .* of which 2 of 16 values are NaN or infinite",
        ),
        ((np.full((4, 2, 2), -0.1), np.zeros(4, int)), r"in 0\.\.1\. .* from -0\.1 to -0\.1"),
        ((np.full((4, 2, 2), 300), np.zeros(4, int)), "in 0..255. .* from 300"),
        ((np.zeros((4, 2, 2)), np.zeros(4)), "Labels must be whole numbers or texts"),
        ((np.zeros((4, 2, 2)), np.array([0, 1, -1, 0])), "Labels must be from 0"),
        ((np.zeros((4, 2, 2)), np.zeros(3, int)), "There must be two classes|labels must be int32"),
        ((np.zeros((4, 2, 2)), np.zeros(4, int)), "There must be two classes or more"),
        (
            (np.zeros((4, 2, 2)), np.array([0, 0, 0, 1])),
            "have 3 images or more, .* Received: 1 of class '1'",
        ),
        ({"x_train": np.zeros((4, 2, 2))}, r"Each x must have its y, .* Received: \['x_train'\]$"),
        ({"images": 1}, "The arrays must be x_train, y_train, x_test, y_test"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused_in_one_line(value, message):
    with pytest.raises(DataError, match=message) as caught:
        from_arrays(value, "mine")
    assert "\n" not in str(caught.value)


def test_a_numpy_file_holds_a_data_set_and_is_never_unpickled(tmp_path):
    data = from_arrays(arrays(channels=3), "mine")
    save_npz(tmp_path / "mine.npz", data)
    loaded = load(f"npz:{tmp_path / 'mine.npz'}")
    assert (loaded.fingerprint, loaded.classes) == (data.fingerprint, data.classes)
    assert loaded.name == "mine"
    np.savez(tmp_path / "pickled.npz", x=np.array([None]), y=np.zeros(1))
    np.save(tmp_path / "single.npz", np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "mine.npz").read_bytes()[:-9])
    (tmp_path / "single.npz.npy").rename(tmp_path / "single.npz")
    for name in ("pickled", "cut", "none", "single"):
        with pytest.raises(DataError, match=f"{name}.npz") as caught:
            load_npz(tmp_path / f"{name}.npz")
        expected = "Received: Python objects in 'x', which are not unpickled"
        assert (expected in str(caught.value)) == (name == "pickled")


@pytest.mark.parametrize(
    ("given", "missing", "least"),
    [(("train",), "test and one for validation", 3), (("train", "test"), "validation", 2)],
)
def test_a_class_of_too_few_images_is_named(given, missing, least):
    x, y = arrays()
    few = np.flatnonzero(y != 2).tolist() + np.flatnonzero(y == 2).tolist()[: least - 1]
    value = {"classes": ["a", "b", "c", "d"]}
    for split in given:
        value |= {f"x_{split}": x[few], f"y_{split}": y[few]}
    with pytest.raises(DataError) as caught:
        from_arrays(value, "mine")
    assert str(caught.value).startswith(
        f"Each class must have {least} images or more, of which at least one is taken for "
        f"{missing}: add images, or a split of your own for "
    )
    assert str(caught.value).endswith(f". Received: {least - 1} of class 'c'")
    few.append(int(np.flatnonzero(y == 2)[-1]))
    for split in given:
        value |= {f"x_{split}": x[few], f"y_{split}": y[few]}
    assert from_arrays(value, "mine").classes == ("a", "b", "c", "d")


class Column:
    """A column of a table as pandas makes it: an array of objects, and no sequence."""

    def __init__(self, values):
        self._values = np.array(values, object)

    def __array__(self, dtype=None, copy=None):
        return self._values


def test_labels_in_a_column_of_texts_are_those_of_an_array():
    x, y = arrays()
    texts = np.array(["plane", "bird", "cat", "dog"])[y]
    data = from_arrays((x, Column(texts.tolist())), "mine")
    assert data.fingerprint == from_arrays((x, texts), "mine").fingerprint
    assert data.classes == ("bird", "cat", "dog", "plane")
    assert from_arrays((x, Column(y.tolist())), "mine").classes == ("0", "1", "2", "3")
    with pytest.raises(DataError, match=r"whole numbers or texts, .* Received: object \[40\]"):
        from_arrays((x, Column([None, *texts[1:].tolist()])), "mine")


def test_classes_give_the_order_of_labels_that_are_texts():
    x, y = arrays(classes=2)
    value = {"x": x, "y": np.array(["b", "a"])[y], "classes": ["b", "a"]}
    data = from_arrays(value, "mine")
    assert data.classes == ("b", "a")
    assert data.fingerprint == from_arrays((x, y), "mine").fingerprint
    with pytest.raises(DataError, match=r"Labels must be among the classes a, c\. Received: 'b'"):
        from_arrays({**value, "classes": ["a", "c"]}, "mine")


def test_hidden_folders_are_no_classes(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "birds")
    (tmp_path / "birds" / ".ipynb_checkpoints").mkdir()
    data = load(f"folder:{tmp_path / 'birds'}", image_size=8)
    assert data.classes == ("crow", "heron")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of images, of several sizes, two classes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(20):
        path = root / "my birds" / ("crow", "heron")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 8 + 4 * (number % 3)
        image = np.full((side, side, 3), 10 * number + rng.integers(0, 5, 3), np.uint8)
        keras.utils.save_img(path, image, data_format="channels_last", scale=False)
    return root / "my birds"


def test_a_folder_of_images_is_split_by_class(pictures):
    data = load(f"folder:{pictures}", image_size=8)
    assert data.name == "my_birds"
    assert data.classes == ("crow", "heron")
    assert sizes(data) == [16, 2, 2]
    assert data.train.images.shape[1:] == (8, 8, 3)
    for split in (data.train, data.validation, data.test):
        numbers = np.round(split.images.mean((1, 2, 3)) / 10)  # the images have one colour each
        assert np.bincount(split.labels).min() == len(split) // 2
        np.testing.assert_array_equal(split.labels, numbers % 2)
    assert load(f"folder:{pictures}", image_size=8).fingerprint == data.fingerprint


def test_a_folder_may_have_train_and_test_folders_and_grey_images(pictures, tmp_path):
    for split, first in (("train", 0), ("test", 3)):
        for number in range(20 if split == "train" else 4):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(path, np.full((4, 4, 1), first + number, np.uint8), scale=False)
    data = load(f"folder:{tmp_path}", image_size=4)
    assert sizes(data) == [18, 2, 4]
    assert data.train.images.shape[1:] == (4, 4, 1)
    assert sorted(data.test.images[:, 0, 0, 0]) == [3, 4, 5, 6]
    assert in_colour(data).test.images.shape[1:] == (4, 4, 3)
    (tmp_path / "test" / "c").mkdir()
    with pytest.raises(DataError, match="c must have images"):
        load(f"folder:{tmp_path}", image_size=4)
    (tmp_path / "test" / "c" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"must have the classes .*: a, b\. Received: a, b, c$"):
        load(f"folder:{tmp_path}", image_size=4)
    (tmp_path / "train" / "c").mkdir()
    (tmp_path / "train" / "c" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/c/1.jpg cannot be decoded"):
        load(f"folder:{tmp_path}", image_size=4)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    ("kept", "received"),
    [
        (60, "60 bytes of a damaged image"),
        (0, "0 bytes"),
        (None, "8 bytes of another type of file"),
    ],
)
def test_a_damaged_image_is_named_in_one_line(kept, received, suffix, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "birds")
    broken = tmp_path / "birds" / "heron" / f"05{suffix}"
    keras.utils.save_img(broken, np.zeros((9, 9, 3), np.uint8), scale=False)
    broken.write_bytes(b"no image" if kept is None else broken.read_bytes()[:kept])
    with pytest.raises(DataError) as caught:
        load(f"folder:{tmp_path / 'birds'}", image_size=8)
    assert str(caught.value) == (
        f"{broken} cannot be decoded: it must be replaced by a BMP, GIF, JPEG or PNG image, or "
        f"removed. Received: {received}"
    )


def test_images_that_would_be_left_out_are_refused(pictures, tmp_path):
    root = tmp_path / "birds"
    shutil.copytree(pictures, root)
    expected = load(f"folder:{root}", image_size=8).fingerprint
    for name in ("crow/Thumbs.db", "crow/.DS_Store", "heron/notes.txt", "heron/._1.webp", "a.csv"):
        (root / name).write_bytes(b"no image")
    assert load(f"folder:{root}", image_size=8).fingerprint == expected
    (root / "1.png").touch()
    with pytest.raises(DataError, match=r"move .* Received: 1 beside these folders, such as 1"):
        load(f"folder:{root}", image_size=8)
    for name in ("crow/2.webp", "crow/1.webp", "heron/more/3.TIFF"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    with pytest.raises(DataError, match=r"2 of \.webp, 1 of \.tiff, such as .*crow/1\.webp$"):
        load(f"folder:{root}", image_size=8)


@pytest.mark.parametrize(
    ("place", "message"), [("none", "must name a folder"), (".", "a folder of images for each cl")]
)
def test_a_folder_without_classes_is_refused(place, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load(f"folder:{tmp_path / place}", image_size=8)


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_a_folder_of_validation_images_has_one_of_three_names(name, pictures, tmp_path):
    for split in ("train", name):
        (tmp_path / split).symlink_to(pictures)
    assert sizes(load(f"folder:{tmp_path}", image_size=4)) == [18, 20, 2]


@pytest.mark.parametrize("name", ["valid2", None])
def test_a_train_folder_beside_unknown_ones_is_refused(name, pictures, tmp_path):
    for split in filter(None, ("train", name)):
        (tmp_path / split).symlink_to(pictures)
    with pytest.raises(DataError, match="must have 'test' or 'validation' beside 'train'"):
        load(f"folder:{tmp_path}", image_size=4)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Two data sets as TFDS prepares them, the one with images of several sizes."""
    root = tmp_path_factory.mktemp("tfds")
    for name, shape in (("grey_digits", (6, 5, 1)), ("flowers", (None, None, 3))):
        x, y = arrays(30, channels=shape[-1], classes=3)
        # Of several sizes: every other image has a row less.
        images = [i[: 6 - (shape[0] is None) * (n % 2)] for n, i in enumerate(x)]
        rows = [{"image": i, "label": int(of)} for i, of in zip(images, y, strict=True)]
        rows = list(enumerate(rows))
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            split_datasets={"train": rows} | ({"test": rows[:6]} if shape[0] else {}),
            data_dir=root,
        )
    return root


def test_a_prepared_data_set_of_tfds_is_read_with_its_test_split(tfds_dir):
    data = load("tfds:grey_digits", tfds_dir)
    assert data.name == "grey_digits"
    assert sizes(data) == [27, 3, 6]
    x, y = arrays(30, classes=3)
    read = sorted((bytes(i), n) for i, n in zip(data.test.images, data.test.labels, strict=True))
    assert read == sorted((bytes(i), n) for i, n in zip(x[:6], y[:6], strict=True))
    assert load("tfds:grey_digits", tfds_dir).fingerprint == data.fingerprint


def test_images_of_several_sizes_need_one_size_and_a_test_split_is_split_off(tfds_dir):
    with pytest.raises(DataError, match=r"several sizes: .* Received: no --image_size$"):
        load("tfds:flowers", tfds_dir)
    data = load("tfds:flowers", tfds_dir, image_size=4)
    assert sizes(data) == [24, 3, 3]
    assert data.train.images.shape[1:] == (4, 4, 3)


def test_a_data_set_that_cannot_be_read_is_refused_within_seconds(tfds_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(DataError, match=r"mnist is not prepared in .*cannot be reached"):
        load("tfds:mnist", tmp_path)
    assert time.monotonic() - start < 10
    with pytest.raises(DataError, match=r"Received: 'mnits'. Did you mean mnist?"):
        load("tfds:mnits", tmp_path)
    with pytest.raises(DataError, match="must be such as tfds:mnist"):
        load("tfds:../mnist", tmp_path)
    for config in ("a", "b"):
        (tmp_path / "many" / config / "1.0.0").mkdir(parents=True)
        (tmp_path / "many" / config / "1.0.0" / "dataset_info.json").touch()
    with pytest.raises(DataError, match="one of its configurations: tfds:many/a, tfds:many/b"):
        find_prepared(tmp_path, "many")
    assert find_prepared(tmp_path, "many/a").name == "1.0.0"
    with pytest.raises(DataError, match="incomplete or damaged"):
        load("tfds:many/a", tmp_path)


def test_a_function_returns_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_images.py").write_text(
        "import numpy as np\n"
        "def digits(): return np.zeros((20, 4, 4), 'uint8'), np.arange(20) % 2\n"
        "def wrong(): return 3\n"
    )
    data = load("own_images.py:digits")
    assert (data.name, sizes(data)) == ("digits", [16, 2, 2])
    with pytest.raises(DataError, match="Received: 'int'"):
        load("own_images.py:wrong")
    with pytest.raises(SettingError, match=r"--dataset must be a function .* Did you mean digits"):
        load("own_images.py:digit")


def test_grey_images_are_normalised_by_their_own_channel():
    data = from_arrays(arrays(), "mine")
    assert isinstance(data, ImageData)
    batches = evaluation_batches(data.train, 40, mean=data.mean, std=data.std)
    images, _ = next(iter(batches))
    assert images.shape == (32, 6, 5, 1)
    assert float(np.mean(images)) == pytest.approx(0, abs=1e-5)
    assert float(np.std(images)) == pytest.approx(1, abs=1e-5)
