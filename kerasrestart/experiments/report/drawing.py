"""The style of all figures, and their files."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image  # which matplotlib requires

# Okabe and Ito's colours, distinct for the colour-blind too; the control is black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
CONTROL_COLOR, BASELINE_COLOR = "#000000", "#767676"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "kerasrestart",  # random names in the file otherwise
    "svg.fonttype": "path",
}
_DPI = 130
_PALETTE = 256  # colours of a PNG: a third of the bytes, and no difference to the eye


def to_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as a file of the kind `"png"` or `"svg"`; the same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
    if kind == "svg":
        return buffer.getvalue()
    image = Image.open(buffer).convert("RGB")
    image = image.quantize(_PALETTE, Image.Quantize.MAXCOVERAGE, kmeans=1)
    small = io.BytesIO()
    image.save(small, "png", optimize=True)
    return small.getvalue()
