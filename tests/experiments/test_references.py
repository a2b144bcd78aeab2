"""References to your own code: found without running it, loaded, and noticed when it changes."""

import hashlib
import sys

import keras
import pytest

from kerasrestart.experiments import references
from kerasrestart.experiments.references import (
    WrongReferenceError,
    call,
    find,
    is_importable,
    is_reference,
    load,
    refuse_while_loading,
    register,
    sha256_of,
    short_name,
)

NETS = """
import helper_beside
from math import sqrt
LOADED.append(__name__) if 'LOADED' in globals() else None
class Wide:
    @staticmethod
    def build(a, b): return ("wide", a, b)
def tiny(a, b): return ("tiny", a, b, helper_beside.VALUE)
def fails(a, b): raise KeyError("gone")
number = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    (tmp_path / "helper_beside.py").write_text("VALUE = 7")
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "__init__.py").write_text("")
    (tmp_path / "package_of_mine" / "nets.py").write_text("def tiny(a, b): return 'inner'")
    yield tmp_path / "nets_of_mine.py"
    for name in [n for n in sys.modules if "of_mine" in n or n == "helper_beside"]:
        del sys.modules[name]
        references._modules.pop(name, None)
    references._registered.clear()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("pkg.mod:fn", True),
        ("mod:Class.method", True),
        ("path/to/my nets.py:fn", True),
        ("../nets.py:fn", True),
        ("uniform", False),
        ("nets.py", False),
        ("a:b,c:d", False),
        ("mod:", False),
        (":fn", False),
        ("mod:1fn", False),
        ("NAME:flag=value", False),
        (3, False),
    ],
)
def test_the_form_of_a_reference(text, right):
    assert is_reference(text) is right


def test_a_function_is_loaded_from_a_file_a_module_and_a_package(nets):
    assert load("nets_of_mine.py:tiny")(1, 2) == ("tiny", 1, 2, 7)
    assert load(f"{nets}:Wide.build")(1, 2) == ("wide", 1, 2)
    assert call("nets_of_mine:tiny", 3, 4) == ("tiny", 3, 4, 7)
    assert call("package_of_mine.nets:tiny", 3, 4) == "inner"
    assert short_name("nets_of_mine.py:Wide.build") == "build"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nets_of_mine.py:tinny", "nets_of_mine.py has no 'tinny'. Did you mean tiny?"),
        ("nets_of_mine:tinny", "nets_of_mine has no 'tinny'. Did you mean tiny?"),
        ("nets_of_min.py:tiny", "no such file. Did you mean nets_of_mine.py?"),
        ("nets_of_mina:tiny", "no module named 'nets_of_mina'. Did you mean nets_of_mine?"),
        ("package_of_mine.net:tiny", "no module named 'package_of_mine.net'. Did you mean nets?"),
        ("packag_of_mine.nets:tiny", "no module named 'packag_of_mine'. Did you mean package"),
        ("broken.py:tiny", "broken.py, line 1: "),
    ],
)
def test_a_wrong_name_is_found_without_running_the_code(text, message, nets):
    nets.write_text(NETS + "\nraise AssertionError('it was run')")
    (nets.parent / "broken.py").write_text("def tiny(:")
    with pytest.raises(WrongReferenceError) as caught:
        find(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_code_names_its_line(nets):
    with pytest.raises(WrongReferenceError, match=r"fails: KeyError: 'gone' \(nets_of.*line 9\)"):
        call("nets_of_mine.py:fails", 1, 2)
    with pytest.raises(WrongReferenceError, match="cannot be called: missing a required"):
        call("nets_of_mine.py:tiny", 1)
    with pytest.raises(WrongReferenceError, match="not a function: int"):
        call("nets_of_mine.py:number")
    nets.write_text("import sys\nsys.exit('no')\ndef tiny(): pass")
    with pytest.raises(WrongReferenceError, match=r"fails: SystemExit: no \(nets.*2\)"):
        load("nets_of_mine.py:tiny")
    nets.write_text("import not_installed_here\ndef tiny(): pass")
    with pytest.raises(WrongReferenceError, match="ModuleNotFoundError: No module named 'not_inst"):
        load("nets_of_mine.py:tiny")


def test_a_file_that_has_changed_is_loaded_again_and_has_another_hash(nets):
    before = sha256_of("nets_of_mine.py:tiny")
    assert before == hashlib.sha256(NETS.encode()).hexdigest()
    assert sha256_of("nets_of_mine:tiny") == before
    assert load("nets_of_mine.py:tiny") is load("nets_of_mine.py:tiny")
    nets.write_text(NETS.replace('"tiny"', '"other"'))
    assert load("nets_of_mine.py:tiny")(1, 2)[0] == "other"
    assert sha256_of("nets_of_mine.py:tiny") != before


def test_an_imported_module_keeps_the_hash_of_what_was_imported(nets):
    before = sha256_of("nets_of_mine:tiny")
    load("nets_of_mine:tiny")
    nets.write_text(NETS + "# changed")
    assert sha256_of("nets_of_mine:tiny") == before


def test_objects_of_this_process_get_references(nets):
    function = load("nets_of_mine:tiny")
    assert register(function) == f"{nets.name}:tiny"
    assert is_importable(function)
    closure = lambda scores: {}  # noqa: E731
    text = register(closure)
    assert load(text) is closure
    assert is_reference(text)
    assert not is_importable(closure)
    one, other = (register(keras.initializers.RandomNormal(0, d)) for d in (0.1, 0.2))
    assert one == other
    assert sha256_of(one) is not None
    register(keras.initializers.RandomNormal(0, 0.1))
    assert sha256_of(one) != (register(keras.initializers.RandomNormal(0, 0.2)), sha256_of(one))[1]


def test_a_module_that_starts_work_while_it_is_imported_is_refused(nets):
    nets.write_text(
        "from kerasrestart import experiments\nexperiments.run(modle=3)\ndef tiny(): pass"
    )
    with pytest.raises(WrongReferenceError, match="put the call under if __name__ == '__main__'"):
        load("nets_of_mine.py:tiny")
    refuse_while_loading("nothing is loaded now")
