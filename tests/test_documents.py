"""The Python blocks of README and docs/ run, and their command lines and links are valid."""

import pathlib
import re
import shlex

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasrestart
from kerasrestart.experiments.run import command
from kerasrestart.experiments.study import command as study_command

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document, language):
    """The fenced blocks of a language, with the line in which each starts."""
    text = (ROOT / document).read_text()
    for match in FENCE.finditer(text):
        if match[1] == language:
            yield text.count("\n", 0, match.start(2)) + 1, match[2]


def run_blocks(document, namespace):
    found = list(blocks(document, "python"))
    assert found
    for line, code in found:
        # Empty lines before the code, so that an error names the line of the document.
        exec(compile("\n" * (line - 1) + code, document, "exec"), namespace)


def test_blocks_of_the_readme_run(tmp_path, monkeypatch):
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


@pytest.mark.usefixtures("few_shapes")
@pytest.mark.parametrize("document", ["docs/tutorial.md", "docs/extending.md", "docs/diagnosis.md"])
def test_blocks_of_a_page_run_in_order(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(document, {})


def commands():
    """The command lines of kerasrestart in documents and headers of flagfiles."""
    # A study's report has the flags of the version that wrote it.
    documents = [name for name in DOCUMENTS if not name.endswith("/report.md")]
    texts = {document: (ROOT / document).read_text() for document in documents}
    texts |= {f"flags/{p.name}": p.read_text() for p in sorted(ROOT.glob("flags/*.flags"))}
    pattern = re.compile(r"python -m kerasrestart\.(main|study)\b([^\n`&|(]*)")
    for document, text in texts.items():
        for match in pattern.finditer(text.replace("\\\n", " ")):
            if match[2].strip():
                yield pytest.param(match[1], match[2].strip(), id=f"{document}: {match[0]}")


@pytest.mark.parametrize(("program", "arguments"), commands())
def test_command_lines_parse(program, arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)  # flagfiles are named from here
    for name, function in (("nets", "tiny(input_shape, classes)"), ("rules", "lowest(scores)")):
        (tmp_path / f"{name}.py").write_text(f"def {function}: pass")
        arguments = arguments.replace(f"={name}.py:", f"={tmp_path}/{name}.py:")
    if program == "main":
        assert command.read_settings(command.PROGRAM.parse(shlex.split(arguments)))
        return
    study_command.main(study_command.PROGRAM.parse([*shlex.split(arguments), "--dry_run"]))
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("python -m kerasrestart.main ") for line in lines)


def test_the_menu_has_all_pages():
    menu = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    reports = ROOT.glob("docs/results/**/report.md")
    pages = [*ROOT.glob("docs/*.md"), ROOT / "docs/results/README.md", *reports]
    pages += [path.with_suffix(".md") for path in ROOT.glob("docs/notebooks/*.ipynb")]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in pages}
    assert set(menu) == pages
    assert len(menu) == len(pages)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "/results/" not in name])
def test_links_to_files_lead_somewhere(document):
    folder = (ROOT / document).parent
    text = (ROOT / document).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text)
    for target, anchor in links:
        file = folder / target if target else ROOT / document
        assert file.exists(), target
        if anchor:  # a heading: a code host knows no others
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", name).strip().lower() for name in headings]
            assert anchor in [slug.replace(" ", "-") for slug in slugs], f"{target}#{anchor}"


def api_names():
    return re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)


def test_the_api_page_has_all_public_names():
    listed = {name.removeprefix("kerasrestart.") for name in api_names()}
    assert set(kerasrestart.__all__) <= listed


def test_the_api_page_has_all_names_that_docs_and_examples_import():
    paths = [*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py"), ROOT / "README.md"]
    pattern = re.compile(r"^ *from (kerasrestart[\w.]*) import ([\w, ]+)", re.MULTILINE)
    imported = {
        f"{module}.{name.strip()}"
        for path in paths
        for module, names in pattern.findall(path.read_text())
        for name in names.split(",")
    }
    assert len(imported) > 2
    for name in imported:
        assert any(
            name == listed or name.startswith(f"{listed}.") or listed.startswith(f"{name}.")
            for listed in api_names()
        ), name


def test_the_code_page_names_files_and_functions_that_exist():
    text = (ROOT / "docs/code.md").read_text()
    paths = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("kerasrestart/**/*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any(path.endswith(f"/{name}") for path in [*paths, f"{ROOT}/{name}"]), name
    rows = re.findall(r"^\| W[^|]*\| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    assert len(rows) > 10
    for files, names in rows:
        code = "".join(
            paths[f"kerasrestart/{file}"].read_text() for file in re.findall(r"`(.+?\.py)`", files)
        )
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"\b(def|class) {name}\b", code), name


@pytest.mark.parametrize(
    "table",
    [
        *("table2/tables/by_initialisation", "table3/tables/by_restart"),
        *("table3/tables/by_test_epoch", "table3/tables/restarted"),
    ],
)
def test_the_page_of_the_paper_has_the_committed_tables(table):
    written = (ROOT / f"docs/results/paper/{table}.md").read_text()
    assert written in (ROOT / "docs/paper.md").read_text()
