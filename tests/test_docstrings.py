"""The examples in docstrings run as they are written, and every public name has one."""

import ast
import inspect
import re
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart
from kerasrestart import experiments, models
from tests.test_documents import ROOT, api_names

PACKAGE = ROOT / "kerasrestart"
LIBRARY = ("network", "scoring", "restart", "diagnosis")
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = ("experiments.data.tfds_images.load_tfds",)  # it downloads a data set
# What examples import from a file of the user's.
NETS = """
import keras
from keras import layers

def tiny(input_shape, classes):
    return keras.Sequential([keras.Input(input_shape), layers.Conv2D(8, 3, activation="relu"),
        layers.GlobalAveragePooling2D(), layers.Dense(classes)])

def wide(input_shape, classes):
    return tiny(input_shape, classes)
"""


def docstrings(path):
    """Yields each docstring of a file, with the name of what it describes; the file's is empty."""

    def inside(node, prefix):
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.ClassDef | ast.FunctionDef):
                yield prefix + inner.name, ast.get_docstring(inner) or ""
                yield from inside(inner, f"{prefix}{inner.name}.")

    tree = ast.parse(path.read_text())
    yield "", ast.get_docstring(tree) or ""
    yield from inside(tree, "")


def examples():
    """Yields the examples of the library, and of what is public in the experiments."""
    public = {name.removeprefix("kerasrestart.") for name in api_names()}
    public |= {f"experiments.models.{name}.{name}" for name in models.__all__}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for name, text in docstrings(path):
            whole = f"{module}.{name}".rstrip(".")
            listed = whole in public or module.split(".")[0] in LIBRARY
            blocks = FENCE.findall(text)
            if blocks and listed and whole not in NOT_RUN:
                yield pytest.param(blocks, id=whole)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What examples take as given, and a folder for what they write."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(64, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 64)
    convolutions = (layers.Conv2D(10, 3, activation="relu", name=f"conv{n}") for n in (1, 2, 3))
    logits = layers.Dense(4, name="logits")
    model = keras.Sequential([keras.Input((8, 8, 3)), *convolutions, layers.Flatten(), logits])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss_fn)

    def few_epochs(*args, epochs=1, **options):
        return keras.Model.fit(model, *args, epochs=min(epochs, 2), verbose=0, **options)

    model.fit = few_epochs
    monkeypatch.chdir(tmp_path)
    modules = {"kerasrestart": kerasrestart, "keras": keras, "layers": layers, "np": np, "tf": tf}
    batches = [(x[:16], y[:16])]
    return {**modules, "model": model, "x": x, "y": y, "batches": batches, "loss_fn": loss_fn}


@pytest.fixture
def short_experiments(tmp_path, monkeypatch):
    """Runs of one epoch, studies that are planned but not made, and the files that both read."""
    run, study = experiments.run, experiments.study

    def planned(**settings):
        result = study(**settings, dry_run=True)
        shutil.copytree(ROOT / "docs/results/mininet_arms/tables", result.path / "tables")
        return result

    monkeypatch.setattr(experiments, "run", lambda **settings: run(**{**settings, "epochs": 1}))
    monkeypatch.setattr(experiments, "study", planned)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    (tmp_path / "nets.py").write_text(NETS)
    image = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8))
    for species in ("crow", "heron"):
        (tmp_path / "birds" / species).mkdir(parents=True)
        for number in range(10):
            tf.io.write_file(str(tmp_path / f"birds/{species}/{number}.png"), image)


@pytest.mark.usefixtures("short_experiments")
@pytest.mark.parametrize("blocks", examples())
def test_an_example_runs(blocks, given):
    for code in blocks:
        exec(code, given)


@pytest.mark.parametrize("module", [kerasrestart, models, experiments], ids=lambda m: m.__name__)
def test_every_public_function_and_class_has_an_example(module):
    public = {name: getattr(module, name) for name in module.__all__}
    without = [
        name
        for name, value in public.items()
        if callable(value) and not FENCE.search(inspect.getdoc(value) or "")
    ]
    assert not without
