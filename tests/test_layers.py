"""The lower rooms of the package import no higher one: read off their source."""

import ast
import pathlib

import pytest

import kerasrestart

ROOT = pathlib.Path(kerasrestart.__file__).parent
SMALL = {"names", "files", "web", "interruption"}  # which all may import
BELOW = {
    "data": set(),
    "network": set(),
    "scoring": {"network"},
    "restart": {"network", "scoring"},
}


def imported(source):
    """The modules and names that a source imports, whether at its head or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "expected absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(source):
    """The rooms and modules of the package that a source imports from."""
    parts = [name.split(".") for name in imported(source)]
    return {name[1] if name[1:] else "" for name in parts if name[0] == "kerasrestart"}


@pytest.mark.parametrize("room", list(BELOW))
def test_a_lower_room_imports_no_higher_one(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) > 3
    for path in files:
        higher = rooms(path.read_text()) - BELOW[room] - SMALL - {room}
        assert not higher, f"{path.relative_to(ROOT)} imports {sorted(higher)}"


def test_all_ways_to_import_are_seen():
    source = """
import kerasrestart
import kerasrestart.report.table as table
from kerasrestart import data, models
from kerasrestart.study.plan import Job
def late():
    from kerasrestart.settings import FREE
if TYPE_CHECKING:
    from kerasrestart.run import run
import os, keras.layers
"""
    assert rooms(source) == {"", "report", "data", "models", "study", "settings", "run"}
