"""Published results, which a report shows beside its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

BASELINE = "baseline"


@dataclasses.dataclass(frozen=True)
class Published:
    """The results of a paper. Networks and arms have the names that they have in a study.

    Attributes:
        name: The authors, as in a citation.
        source: The publication.
        by_arm: Network -> arm -> accuracy in percent at the best epoch.
        by_restart: Network -> arm -> accuracy in percent of each round, starting with the baseline.
        settings: Network -> setting -> its value there, where it is known and may differ here.
        differs: What differs from every study, in whole sentences.
        figures: Kind of a figure -> its name there, such as `"figure 3"`.
    """

    name: str
    source: str
    by_arm: Mapping[str, Mapping[str, float]]
    by_restart: Mapping[str, Mapping[str, tuple[float, ...]]]
    settings: Mapping[str, Mapping[str, Any]]
    differs: tuple[str, ...]
    figures: Mapping[str, str]

    def file_name(self, figure: str) -> str:
        """The name of a figure's file: after that of the paper's figure, if there is one."""
        kind, _, of = figure.partition("-")
        if kind not in self.figures:
            return figure
        return f"{self.figures[kind].replace(' ', '_')}-{of or kind}"


_IMAGES = {"training images": 50_000, "epochs per round": 40}


def _for_both_sizes(networks: dict[str, Any]) -> dict[str, Any]:
    """Gives AlexNet's values a second name, for studies on all images beside those on 15,000."""
    alexnets = {name: of for name, of in networks.items() if name.startswith("alexnet")}
    return networks | {f"{name}_45000": of for name, of in alexnets.items()}


PUBLISHED = {
    "han_zhang": Published(
        name="Han and Zhang",
        source="Partial Restart of Neural Network, Shanghai Jiao Tong University, tables 2 and 3",
        by_arm=_for_both_sizes(
            {
                "alexnet_pretrained": {
                    BASELINE: 90.45,
                    "uniform": 91.60,
                    "xavier": 88.72,
                    "minmax": 74.59,
                },
                "alexnet": {BASELINE: 86.20, "uniform": 88.40, "xavier": 86.19, "minmax": 80.86},
                "mininet": {BASELINE: 75.66, "uniform": 79.66, "xavier": 76.76, "minmax": 74.88},
            }
        ),
        by_restart=_for_both_sizes(
            {
                "alexnet_pretrained": {"uniform": (90.45, 90.64, 91.60, 89.25)},
                "alexnet": {"uniform": (86.20, 88.09, 88.41, 88.35)},
                "mininet": {"uniform": (75.66, 74.20, 75.79, 79.66)},
            }
        ),
        settings=_for_both_sizes(
            {
                "alexnet_pretrained": {**_IMAGES, "pixels": 224},
                "alexnet": {**_IMAGES, "pixels": 224},
                "mininet": _IMAGES,
            }
        ),
        differs=(
            "It has one seed, and no control that trains as long without a restart of filters.",
            "It does not say whether its best epochs are chosen by the test images; here they are "
            "chosen by validation images.",
        ),
        figures={
            "baselines": "figure 3",
            "arms": "figures 4 to 6",
            "restarts": "figures 7 to 9",
        },
    )
}
"""Published results, by their name for `--compare_with`."""
