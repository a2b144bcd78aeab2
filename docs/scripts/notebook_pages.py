"""MkDocs hook: each notebook of docs/ is also a page, with the outputs that are stored in it."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from docs.scripts.notebook import as_markdown, read


def on_files(files: Files, config: Any) -> Files:
    """Adds `notebooks/name.md` beside each `notebooks/name.ipynb`."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            page = file.src_uri.removesuffix(".ipynb") + ".md"
            files.append(File.generated(config, page, content=as_markdown(read(file.abs_src_path))))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Makes links to notebooks, which a code host shows, lead to their pages."""
    return re.sub(r"\]\((?!\w+:)([^)#]+)\.ipynb(?=[)#])", r"](\1.md", markdown)
