"""What stands in README and docs/ runs: blocks of Python whole, command lines up to their flags."""

import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasrestart.experiments.run import command

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document, language):
    """The fenced blocks of a language, with the line that each begins in."""
    text = (ROOT / document).read_text()
    for match in FENCE.finditer(text):
        if match[1] == language:
            yield text.count("\n", 0, match.start(2)) + 1, match[2]


def run_blocks(document, namespace):
    found = list(blocks(document, "python"))
    assert found
    for line, code in found:
        # Empty lines before it, so that an error tells the line of the document.
        exec(compile("\n" * (line - 1) + code, document, "exec"), namespace)


def test_the_blocks_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8, 8, 3)).astype("float32"), rng.integers(0, 10, 40)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(10, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    run_blocks(
        "README.md", {"model": model, "x": x, "y": y, "train": batches, "validation": batches}
    )


@pytest.mark.parametrize("document", ["docs/tutorial.md", "docs/extending.md"])
def test_the_blocks_of_a_page_run_one_after_the_other(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(document, {})


def commands():
    """Each command line of kerasrestart that stands in a document, a flagfile's header or help."""
    # A study's report has the command as it was typed then, in the flags of that version.
    documents = [name for name in DOCUMENTS if not name.endswith("/report.md")]
    texts = {document: (ROOT / document).read_text() for document in documents}
    texts |= {f"flags/{p.name}": p.read_text() for p in sorted(ROOT.glob("flags/*.flags"))}
    pattern = re.compile(r"python -m kerasrestart\.(main|study)\b([^\n`&|(]*)")
    for document, text in texts.items():
        for match in pattern.finditer(text.replace("\\\n", " ")):
            if match[2].strip():
                yield pytest.param(match[1], match[2].strip(), id=f"{document}: {match[0]}")


@pytest.mark.parametrize(("program", "arguments"), commands())
def test_a_command_line_in_a_document_has_flags_that_parse(program, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)  # flagfiles are named from here
    if program == "main":
        assert command.read_settings(command.PROGRAM.parse(shlex.split(arguments)))
        return
    done = subprocess.run(
        [sys.executable, "-m", "kerasrestart.study", *shlex.split(arguments), "--dry_run"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("python -m kerasrestart.main ") for line in done.stdout.splitlines())


def test_pages_are_in_the_menu_and_the_menu_has_no_others():
    menu = re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    assert set(menu) == pages
    assert len(menu) == len(pages)
