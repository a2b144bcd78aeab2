"""Errors have one form, which CONTRIBUTING.md describes."""

import ast
import pathlib
import re

import pytest

import kerasrestart

ROOT = pathlib.Path(kerasrestart.__file__).parent
PACKAGES = ("network", "scoring", "restart", "diagnosis", "experiments")


def texts(source):
    """The line and the text of each error of a source, with {} for what is filled in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and re.search(r"Error$|^fail$", ast.unparse(node.func)):
            text = ""
            for part in node.args[:1]:
                pieces = part.values if isinstance(part, ast.JoinedStr) else [part]
                for piece in pieces:
                    text += str(piece.value) if isinstance(piece, ast.Constant) else "{}"
            yield node.lineno, text


def is_right(text):
    """Whether what would be right comes first, with "must", and what was received last."""
    if re.search(r"\b[Ee]xpected\b", text):
        return False
    first, received, last = text.partition("Received: ")
    if not received:
        return not re.search(r"\b[Rr]eceived\b", text)
    return bool(re.search(r"\bmust\b|^\{\}", first)) and not re.search(r"[.;] \w|\.$", last)


def wrong_texts(paths):
    """The texts of another form, each with its place, and the number of all texts."""
    wrong, count = [], 0
    for path in sorted(paths):
        for line, text in texts(path.read_text()):
            count += 1
            if not is_right(text):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {text}")
    return "\n".join(wrong), count


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_say_what_would_be_right_and_then_what_was_received(package):
    wrong, count = wrong_texts((ROOT / package).rglob("*.py"))
    assert count >= 1
    assert not wrong, wrong


def test_no_package_and_no_module_is_left_out():
    wrong, _ = wrong_texts(ROOT.glob("*.py"))
    assert not wrong, wrong
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)


@pytest.mark.parametrize(
    "text",
    [
        "fraction must be lower. Received: {}",
        "A control re-initialises nothing: reset must be left out. Received: control={}, reset={}",
        "Model {} is not compiled: call model.compile first.",
        "{}. Received: {}{}",
    ],
)
def test_the_form_is_accepted(text):
    assert is_right(text)


@pytest.mark.parametrize(
    "text",
    [
        "Unknown criterion. Received: {}. Expected one of {}.",
        "Unknown criterion. Received: {}; expected one of {}",
        "Expected one of {}. Received: {}",
        "criterion is wrong. Received: {}",
        "criterion must be one of {}. Received {}",
        "fraction must be lower. Received: {}. Choose another",
    ],
)
def test_other_forms_are_found(text):
    assert not is_right(text)
