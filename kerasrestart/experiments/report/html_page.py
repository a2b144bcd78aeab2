"""Markdown and figures as one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

_CSS = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: break-word; }
table { border-collapse: collapse; font-size: 0.9rem; max-width: 100%; }
th, td { border: 1px solid #8886; padding: 0.2rem 0.5rem; overflow-wrap: break-word; }
td { font-variant-numeric: tabular-nums; vertical-align: top; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
pre { padding: 0.6rem; border: 1px solid #8886; white-space: pre-wrap; }
img { max-width: 100%; background: #fff; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 0.4rem; }
  table { font-size: 0.68rem; line-height: 1.3; display: block; overflow-x: auto; }
  th, td { padding: 0.12rem 0.15rem; }
}
"""
# The only resources are the figures and the style inside the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"


def to_html(text: str, title: str, images: Mapping[str, bytes]) -> str:
    """Converts Markdown to one HTML file that loads nothing, whatever the text says.

    Links, raw HTML and images other than the given ones are shown as text.

    Args:
        text: The Markdown.
        title: The document's title.
        images: SVG files, by the name under which the text refers to them.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "autolink", "reference"])
    tokens = parser.parse(text)
    for token in (child for of_block in tokens for child in of_block.children or ()):
        if token.type != "image":
            continue
        if (source := parser.normalizeLink(str(token.attrs["src"]))) in images:
            encoded = base64.b64encode(images[source]).decode()
            token.attrs["src"] = f"data:image/svg+xml;base64,{encoded}"
        else:
            token.type, token.tag, token.content = "text", "", f"{token.content} ({source})"
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )
