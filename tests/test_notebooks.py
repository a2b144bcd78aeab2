"""The notebooks run, and their pages have the outputs that are stored in them."""

import pathlib

import pytest

from docs.scripts.notebook import as_markdown, code_cells, read, run

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("few_shapes")
def test_a_notebook_runs_and_prints_what_it_did_before(path):
    notebook = read(path)
    stored = [
        "".join("".join(output["text"]) for output in cell["outputs"])
        for cell in code_cells(notebook)
    ]
    printed = run(notebook, path.name)
    assert printed[0]
    # Numbers differ between machines; which cells print, and the names of layers, do not.
    for before, now in zip(stored, printed, strict=True):
        assert bool(before) == bool(now)
        assert [line.split()[:1] for line in before.splitlines() if "conv" in line[:8]] == [
            line.split()[:1] for line in now.splitlines() if "conv" in line[:8]
        ]


def test_a_page_shows_text_code_and_output_in_order():
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
            {"cell_type": "code", "source": ["print(", "1 + 1)"], "outputs": []},
            {"cell_type": "code", "source": ["x = 3"], "outputs": []},
        ]
    }
    assert run(notebook, "a notebook") == ["2\n", ""]
    parts = ["# Title\nText", "```python\nprint(1 + 1)\n```", "```text\n2\n```"]
    assert as_markdown(notebook) == "\n\n".join([*parts, "```python\nx = 3\n```"]) + "\n"
    notebook["cells"][1]["source"] = ["1 / 0"]
    with pytest.raises(ZeroDivisionError):
        run(notebook, "a notebook")


def test_a_link_to_a_notebook_leads_to_its_page():
    pytest.importorskip("mkdocs")
    from docs.scripts.notebook_pages import on_page_markdown

    links = "[a](notebooks/one.ipynb), [b](two.ipynb#part), [c](https://host/three.ipynb) two.ipynb"
    assert on_page_markdown(links, page=None) == (
        "[a](notebooks/one.md), [b](two.md#part), [c](https://host/three.ipynb) two.ipynb"
    )
