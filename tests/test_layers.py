"""Packages import only packages below them: read off their source."""

import ast
import pathlib

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


def imported(source):
    """The modules and names that a source imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
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
