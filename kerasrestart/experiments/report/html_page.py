"""Markdown and figures as one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

_CSS = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.9rem; }
th, td { border: 1px solid #8886; padding: 0.2rem 0.6rem; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: 0.6rem; border: 1px solid #8886; }
img { max-width: 100%; background: #fff; }
"""


def to_html(text: str, title: str, images: Mapping[str, bytes]) -> str:
    """Makes one HTML file of a text in Markdown, which needs no other file.

    Args:
        text: The text.
        title: The document's title.
        images: SVG files, by the name that the text calls them by.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in (child for of_block in tokens for child in of_block.children or ()):
        if (
            token.type == "image"
            and (source := parser.normalizeLink(str(token.attrs["src"]))) in images
        ):
            encoded = base64.b64encode(images[source]).decode()
            token.attrs["src"] = f"data:image/svg+xml;base64,{encoded}"
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )
