"""Setup of all tests, and small data shared by several packages of tests."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As the command lines do. Without it, some CPUs lack convolutions with channels first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrestart.experiments import data

tf.config.experimental.enable_tensor_float_32_execution(False)


def rewrite_graphs(on):
    """Turns Grappler on or off, which rewrites each graph before its first run."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not on})


rewrite_graphs(False)  # a quarter of the time of a small fit

# They come first, the longest at the very start, so that no worker waits at the end for another.
LONG_FILES = (
    "test_zoo.py",
    "test_survival.py",
    "test_main.py",
    "test_callback.py",
    "test_applications.py",
    "test_callback_options.py",
    "test_restart_backup.py",
    "test_strategy.py",
    "test_controller.py",
    "test_documents.py",
    "test_examples.py",
)


def pytest_xdist_auto_num_workers():
    """One worker more than cores: tests that wait for another process leave theirs idle."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish():
    """Takes the modules out of garbage collections, which the many objects of traces cause."""
    gc.freeze()
    gc.set_threshold(7000, 20, 10)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Keeps decoded images of the tests out of the user's home folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(autouse=True)
def _fresh_keras():
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def grappler():
    """Graphs are rewritten, as they are for a user.

    For tests that compare bit for bit: operations are fused only where nothing else, such as a
    score, reads what lies between them.
    """
    rewrite_graphs(True)
    yield
    rewrite_graphs(False)


@pytest.fixture
def few_shapes(monkeypatch):
    """`data.load` draws 200 shapes, whatever number is asked for: pages then run in seconds."""
    load = data.load
    monkeypatch.setattr(data, "load", lambda name, shapes_examples: load(name, shapes_examples=200))


@pytest.fixture
def images():
    """20 examples of 8x8x2 in 3 classes; with batches of 8 the last one is smaller."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(20, 8, 8, 2)).astype("float32")
    y = rng.integers(0, 3, 20)
    x += y[:, None, None, None] * 0.5
    return x, y


@pytest.fixture
def randomized():
    """A function that sets all weights of a model, including batch norm's, to random values."""

    def randomize(model, seed=0):
        rng = np.random.default_rng(seed)
        for variable in model.weights:
            if "seed" in variable.path:
                continue
            fan_in = int(np.prod(variable.shape[:-1])) or 1
            value = rng.normal(size=variable.shape) / np.sqrt(fan_in)
            if any(word in variable.path for word in ("gamma", "variance", "alpha")):
                value = 0.3 + np.abs(value)
            variable.assign(value)
        return model

    return randomize
