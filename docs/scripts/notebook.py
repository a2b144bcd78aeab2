"""Runs a notebook and keeps what its cells print.

    python -m docs.scripts.notebook docs/notebooks/wasted_filters.ipynb

writes the outputs into the file. A cell shows what it prints, and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import sys
from typing import Any


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a notebook of format 4."""
    return json.loads(pathlib.Path(path).read_text())


def run(notebook: dict[str, Any], name: str) -> list[str]:
    """Runs the code cells in order, in one namespace.

    Args:
        notebook: As `read` returned it; its outputs are replaced.
        name: Its name, for errors.

    Returns:
        What each code cell has printed.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = compile("".join(cell["source"]), f"{name}, cell {number}", "exec")
            exec(code, namespace)
        text = output.getvalue()
        stream = {"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}
        cell["execution_count"], cell["outputs"] = number, [stream] if text else []
        printed.append(text)
    return printed


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that hold code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def as_markdown(notebook: dict[str, Any]) -> str:
    """The notebook as a page: text, code and what it has printed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join(line for output in cell["outputs"] for line in output.get("text", []))
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    file = pathlib.Path(sys.argv[1])
    content = read(file)
    run(content, file.name)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
