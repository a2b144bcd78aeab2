"""Packages import only packages below them, and no files each other: read off their source."""

import ast
import graphlib
import pathlib
import re

import pytest

import kerasrestart

ROOT = pathlib.Path(kerasrestart.__file__).parent
LIBRARY = {
    "network": set(),
    "scoring": {"network"},
    "restart": {"network", "scoring"},
    "diagnosis": {"network", "scoring", "restart"},
}
EXPERIMENTS = {
    "data": set(),
    "models": set(),
    "records": set(),
    "report": {"records"},
    "run": {"data", "models", "records", "report"},
    "study": {"data", "models", "records", "report", "run"},
}


def imported(source, *, with_type_hints=True):
    """The modules and names that a source imports, at its top or inside a function."""
    tree = ast.parse(source)
    if not with_type_hints:
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "expected absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(source, below="kerasrestart"):
    """The packages and modules directly under `below` that a source imports from."""
    prefix = below + "."
    names = [name.removeprefix(prefix) for name in imported(source) if name.startswith(prefix)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", list(LIBRARY))
def test_the_library_imports_downwards_and_nothing_of_the_experiments(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        higher = packages(path.read_text()) - LIBRARY[package] - {package}
        assert not higher, f"{path.relative_to(ROOT)} imports {sorted(higher)}"


@pytest.mark.parametrize("package", list(EXPERIMENTS))
def test_the_experiments_import_downwards(package):
    for path in sorted((ROOT / "experiments" / package).rglob("*.py")):
        found = packages(path.read_text(), "kerasrestart.experiments") & EXPERIMENTS.keys()
        higher = found - EXPERIMENTS[package] - {package}
        assert not higher, f"{path.relative_to(ROOT)} imports {sorted(higher)}"


def test_no_files_import_each_other():
    sources = {
        ".".join(("kerasrestart", *path.relative_to(ROOT).with_suffix("").parts)): path.read_text()
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {
        module: {
            found
            for name in imported(source, with_type_hints=False)
            for found in (name, name.rpartition(".")[0])
            if found in sources
        }
        for module, source in sources.items()
    }
    assert sum(map(len, graph.values())) > 500
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def private_uses(source):
    """What a source uses that is private to Keras or TensorFlow, as far as its names show."""
    yield from (
        name for name in imported(source) if re.match(r"(tensorflow\.python|keras\.src)\b", name)
    )
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)|__internal__", node.attr):
            of_own_class = ast.unparse(node.value) in ("self", "cls", "other")
            if not of_own_class and ast.unparse(node) != "os._exit":
                yield ast.unparse(node)


def test_private_names_of_keras_and_tensorflow_are_used_in_one_file_for_each():
    used = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if any(private_uses(path.read_text()))
    }
    assert used == {"network/keras_internals.py", "network/tensorflow_internals.py"}


@pytest.mark.parametrize(
    "source",
    [
        *("from tensorflow.python.eager import record", "import keras.src.backend"),
        *("tf.__internal__.FuncGraph('g')", "self.graph._get_function('f')", "model._inputs"),
    ],
)
def test_each_kind_of_private_use_is_seen(source):
    assert len(list(private_uses(source))) == 1
    assert not list(private_uses("self._a = cls._b(tf.python, keras.source, x.__name__)"))


def test_all_ways_to_import_are_seen():
    source = """
import kerasrestart
import kerasrestart.report.table as table
from kerasrestart import data, models
from kerasrestart.study.plan import Job
def late():
    from kerasrestart.settings import defaults
if TYPE_CHECKING:
    from kerasrestart.run import run
import os, keras.layers
"""
    assert packages(source) == {"report", "data", "models", "study", "settings", "run"}
