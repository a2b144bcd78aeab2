import subprocess
import sys
import textwrap

import numpy as np
import pytest

import kerasrestart.experiments.data
from kerasrestart.experiments.data import DataError, load


def sizes(data):
    return [len(data.train), len(data.validation), len(data.test)]


def test_default_is_twenty_thousand_shapes():
    data = load("shapes")
    assert data.name == "shapes"
    assert data.note == ""
    assert sizes(data) == [16_000, 2_000, 2_000]
    assert len(data.classes) == 10


def test_splits_have_the_requested_sizes():
    data = load("shapes", shapes_examples=600, validation_examples=90, train_examples=100)
    assert sizes(data) == [100, 90, 60]
    assert np.bincount(data.train.labels).tolist() == [10] * 10


def test_eval_examples_keeps_subsets_of_validation_and_test():
    everything = load("shapes", shapes_examples=300)
    data = load("shapes", shapes_examples=300, eval_examples=20)
    assert sizes(data) == [len(everything.train), 20, 20]
    for split, whole in ((data.validation, everything.validation), (data.test, everything.test)):
        assert np.bincount(split.labels).tolist() == [2] * 10
        known = {image.tobytes() for image in whole.images}
        assert all(image.tobytes() in known for image in split.images)


def test_train_examples_keeps_a_subset_of_the_training_images():
    everything = load("shapes", shapes_examples=300).train
    part = load("shapes", shapes_examples=300, train_examples=50).train
    known = {image.tobytes(): label for image, label in zip(*arrays(everything), strict=True)}
    assert all(known[image.tobytes()] == label for image, label in zip(*arrays(part), strict=True))


def arrays(split):
    return split.images, split.labels


def test_data_depend_on_the_seed_only():
    first, again, other = (load("shapes", shapes_examples=200, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "mnist"}, "dataset must be one of auto, .* Received: 'mnist'"),
        ({"validation_examples": 0}, "validation_examples must be .* Received: 0"),
        (
            {"validation_examples": 20_000},
            "validation_examples must be .* 1..17999. Rec.*: 20000",
        ),
        ({"train_examples": -5}, "train_examples must be .* Received: -5"),
        ({"eval_examples": 2001}, r"eval_examples must be .* 1\.\.2000. Received: 2001"),
        ({"shapes_examples": 5}, "shapes_examples must be .* Received: 5"),
        ({"seed": -1}, "seed must be .* Received: -1"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments, text):
    with pytest.raises(DataError, match=text) as caught:
        load(**{"name": "shapes", **arguments})
    assert "\n" not in str(caught.value)


def test_more_training_images_than_available_are_refused():
    with pytest.raises(
        DataError, match=r"train_examples must be an integer in 1\.\.160. Received: 161"
    ):
        load("shapes", shapes_examples=200, train_examples=161)


def test_importing_and_drawing_shapes_do_not_import_tensorflow():
    script = """
        import sys
        import kerasrestart.experiments.data
        kerasrestart.experiments.data.load("shapes", shapes_examples=100)
        heavy = {"tensorflow", "keras", "tensorflow_datasets"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_package_has_its_public_names():
    for name in kerasrestart.experiments.data.__all__:
        assert getattr(kerasrestart.experiments.data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kerasrestart.experiments.data.nonsense  # noqa: B018
