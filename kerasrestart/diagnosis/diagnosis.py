"""The result of `diagnose`."""

from __future__ import annotations

import dataclasses
import html
import io
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table

from kerasrestart.diagnosis.layer_diagnosis import LayerDiagnosis
from kerasrestart.diagnosis.verdict import verdict

HEADER = (
    "layer",
    "filters",
    "dead",
    "dormant",
    "useless",
    "duplicate",
    "effective rank",
    "weight norm",
    "gradient norm",
)


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis:
    """The numbers of each layer, and a verdict; `print` shows both.

    Example:
    ```python
    diagnosis = kerasrestart.diagnose(model, x, y)
    print(diagnosis)
    diagnosis.layers["conv3"].dead  # (3, 17)
    ```

    Attributes:
        layers: By key of the layer, a `LayerDiagnosis`.
        examples: Number of examples.
        notes: What was left out or sampled, one sentence each.
    """

    layers: dict[str, LayerDiagnosis]
    examples: int
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What is wrong, what is likely to help, and a caveat."""
        return verdict(self.layers, self.examples)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "examples": self.examples,
            "notes": list(self.notes),
            "verdict": self.verdict,
        }

    def __rich__(self) -> Group:
        table = Table(*HEADER, box=box.SIMPLE_HEAD)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self._rows():
            table.add_row(*row)
        return Group(table, *self.notes, self.verdict)

    def __str__(self):
        file = io.StringIO()
        console = Console(file=file, width=120, color_system=None, markup=False, highlight=False)
        console.print(self)
        return "\n".join(line.rstrip() for line in file.getvalue().strip("\n").splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: tuple[str, ...], tag: str) -> str:
            return f"<tr>{''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in cells)}</tr>"

        rows = row(HEADER, "th") + "".join(row(cells, "td") for cells in self._rows())
        said = "".join(f"<p>{html.escape(text)}</p>" for text in (*self.notes, self.verdict))
        return f"<table>{rows}</table>{said}"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, x in self.layers.items():
            yield (
                name,
                str(x.filters),
                str(len(x.dead)),
                str(len(x.dormant)),
                "?" if x.useless is None else str(len(x.useless)),
                str(len(x.duplicate)),
                f"{x.effective_rank:.1f} of {x.width}",
                f"{x.weight_norm:.3g}",
                "?" if x.gradient_norm is None else f"{x.gradient_norm:.3g}",
            )
