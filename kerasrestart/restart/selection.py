"""The rule by which filters are selected for a restart."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kerasrestart.restart.arguments import checked_layers
from kerasrestart.restart.names import SELECTION_NORMALIZATIONS, SELECTION_SCOPES
from kerasrestart.restart.ranking import (
    check_finite,
    count_low,
    filter_count,
    least_fraction,
    lowest,
    lowest_of_all,
    normalized,
)

DEFAULT_FRACTION = 0.1
DEFAULT_CAP = 0.5


@dataclasses.dataclass(frozen=True)
class Selection:
    """A rule by which the filters of lowest score are selected; equal scores in order of index.

    There are three rules:

    - `fraction` (the default) takes the same share of every layer: of n filters exactly
      k = fraction * n, rounded to the nearest (a half upwards). A layer of which k is none, being
      small, keeps all of its filters.
    - `fraction` with `scope="global"` takes a share of all filters of all layers together, exactly
      k of them, the scores of each layer first divided as `normalize` says. Of equal scores the
      earlier layer's go first. A layer that has come to its `cap` gives no more.
    - `threshold` takes each filter whose score is at most that share of the mean of its layer, as
      ReDo does (Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", ICML
      2023, section 4); these may be none. A layer of which all scores are zero is useless as a
      whole, and gives as many as it may.

    Attributes:
        fraction: Share of the filters, between 0 and 1, both excluded. Not together with
            `threshold`. Defaults to None: 0.1, where there is no threshold.
        threshold: Largest share of the layer's mean score, from 0 to 1. For scores that are not
            negative. Defaults to None.
        scope: `"layer"` or `"global"`: what the fraction is a share of. Defaults to `"layer"`.
        cap: Largest share of one layer's filters that is selected, above 0 and up to 1, rounded
            downwards. For `scope="global"` and for `threshold`, the lowest scores first; a fraction
            of each layer needs none. Defaults to None: 0.5 with `scope="global"`, none otherwise.
        normalize: What the scores of a layer are divided by before layers are compared, with
            `scope="global"`: `"l2"`, their L2 norm (Molchanov et al., ICLR 2017, section 2.2);
            `"mean"`, the mean of their absolute values; None or `"none"`, nothing. Defaults to
            None.
        layers: Which layers take part: a list of names, or one regular expression that matches the
            whole name. Defaults to None: all.
        min_survivors: How many filters every layer keeps at least. Fewer are selected where need
            be, but a fraction of each layer is exact, and refused if it leaves fewer. Defaults
            to 1.

    Raises:
        ValueError: An argument is out of range, or goes with no other that is given.
    """

    fraction: float | None = None
    threshold: float | None = None
    scope: str = "layer"
    cap: float | None = None
    normalize: str | None = None
    layers: str | Sequence[str] | None = None
    min_survivors: int = 1

    def __post_init__(self):
        if self.fraction is not None and self.threshold is not None:
            raise ValueError(
                "fraction and threshold are two rules of selection: expected one of them. Received "
                f"fraction={self.fraction}, threshold={self.threshold}; use cap to bound a "
                "threshold."
            )
        if self.fraction is None and self.threshold is None:
            self._set("fraction", DEFAULT_FRACTION)
        if self.fraction is not None:
            _check_number("fraction", self.fraction, "lie between 0 and 1, both excluded")
        if self.threshold is not None:
            _check_number("threshold", self.threshold, "lie between 0 and 1, both included", 0, 1)
        if self.cap is not None:
            _check_number("cap", self.cap, "be above 0 and at most 1", high=1)
        if self.scope not in SELECTION_SCOPES:
            raise ValueError(
                f"scope must be one of {list(SELECTION_SCOPES)}. Received: {self.scope!r}"
            )
        if self.normalize not in (None, *SELECTION_NORMALIZATIONS):
            raise ValueError(
                f"normalize must be one of {list(SELECTION_NORMALIZATIONS)}. "
                f"Received: {self.normalize!r}"
            )
        survivors = self.min_survivors
        if not isinstance(survivors, numbers.Integral) or survivors < 1:
            raise ValueError(f"min_survivors must be 1 or more, whole. Received: {survivors!r}")
        self._check_combination()
        self._set("layers", checked_layers(self.layers))
        if self.scope == "global" and self.cap is None:
            self._set("cap", DEFAULT_CAP)

    def check(self, filters: Mapping[str, int]) -> None:
        """Checks that the rule can be followed in a network, before there are scores.

        Args:
            filters: By layer name, the number of filters.

        Raises:
            ValueError: `layers` names no layer or one that is not there, or the fraction selects no
                filter, or more than `cap` and `min_survivors` allow.
        """
        filters = {name: filters[name] for name in self._taking_part(filters)}
        if self.threshold is not None:
            return
        if self.scope == "global":
            self._check_global(filters)
        else:
            self._check_layers_share(filters)

    def select(
        self,
        scores: Mapping[str, np.ndarray],
        spared: Mapping[str, Collection[int]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Selects filters.

        Args:
            scores: By layer name, `[filters]`.
            spared: By layer name, filters that are not to be selected whatever their score; fewer
                are selected where too few others are left. Defaults to None: none.

        Returns:
            By layer name, int64 `[k]`: indices in ascending order. Layers with none are left out.

        Raises:
            ValueError: As `check` does, or a score is not finite, or one is negative and there is a
                threshold.
        """
        scores = {name: np.asarray(of_layer) for name, of_layer in scores.items()}
        self.check({name: len(of_layer) for name, of_layer in scores.items()})
        scores = {name: scores[name] for name in self._taking_part(scores)}
        for name, of_layer in scores.items():
            check_finite(name, of_layer)
        eligible = {name: np.ones(len(of_layer), bool) for name, of_layer in scores.items()}
        for name, filters in (spared or {}).items():
            if name in eligible:
                eligible[name][list(filters)] = False
        if self.scope == "global":
            limits = {name: self._limit(len(of_layer)) for name, of_layer in scores.items()}
            comparable = {name: normalized(of, self.normalize) for name, of in scores.items()}
            count = filter_count(self.fraction, sum(map(len, scores.values())))
            chosen = lowest_of_all(comparable, eligible, limits, count)
        else:
            chosen = {
                name: lowest(of, eligible[name], self._count(name, of, eligible[name]))
                for name, of in scores.items()
            }
        return {name: np.sort(filters) for name, filters in chosen.items() if len(filters)}

    def _count(self, name: str, scores: np.ndarray, eligible: np.ndarray) -> int:
        """How many filters of a layer are selected, where each is judged by itself."""
        if self.threshold is None:
            return filter_count(self.fraction, len(scores))
        low = count_low(name, scores, eligible, self.threshold)
        return min(low, self._limit(len(scores)))

    def _limit(self, filters: int) -> int:
        """Number of filters of a layer that may be selected at most."""
        # 0.29 * 100 is a little less than 29.
        most = filters if self.cap is None else math.floor(self.cap * filters + 1e-9)
        return max(0, min(most, filters - self.min_survivors))

    def _taking_part(self, names: Iterable[str]) -> list[str]:
        names = list(names)
        if self.layers is None:
            return names
        if isinstance(self.layers, str):
            matching = [name for name in names if re.fullmatch(self.layers, name)]
            if not matching:
                raise ValueError(
                    f"layers={self.layers!r} matches the whole name of no layer. Expected a "
                    f"regular expression for some of {names}."
                )
            return matching
        unknown = [name for name in self.layers if name not in names]
        if unknown:
            raise ValueError(f"layers names {unknown[0]!r}, which is none of the layers {names}.")
        return [name for name in names if name in self.layers]

    def _check_layers_share(self, filters: Mapping[str, int]) -> None:
        for name, count in filters.items():
            selected = filter_count(self.fraction, count)
            if selected and count - selected < self.min_survivors:
                which = f"all {count}" if selected == count else f"{selected} of the {count}"
                kept = (
                    "some survive"
                    if self.min_survivors == 1
                    else f"min_survivors={self.min_survivors} are kept"
                )
                raise ValueError(
                    f"fraction={self.fraction} selects {which} filters of layer '{name}': "
                    f"lower it, so that {kept}."
                )
        if not any(filter_count(self.fraction, count) for count in filters.values()):
            largest = max(filters, key=filters.__getitem__)
            count = filters[largest]
            raise ValueError(
                f"fraction={self.fraction} selects no filter of any layer (the largest, "
                f"'{largest}', has {count}): raise it to {least_fraction(count)} or more."
            )

    def _check_global(self, filters: Mapping[str, int]) -> None:
        total = sum(filters.values())
        count = filter_count(self.fraction, total)
        most = sum(self._limit(of_layer) for of_layer in filters.values())
        if not count:
            raise ValueError(
                f"fraction={self.fraction} selects none of the {total} filters of all layers: "
                f"raise it to {least_fraction(total)} or more."
            )
        if count > most:
            raise ValueError(
                f"fraction={self.fraction} asks for {count} of {total} filters, but cap={self.cap} "
                f"and min_survivors={self.min_survivors} leave {most} to select: lower fraction or "
                "raise cap."
            )

    def _check_combination(self) -> None:
        if self.scope == "global" and self.threshold is not None:
            raise ValueError(
                "threshold is a share of each layer's own mean: expected scope='layer'. Received "
                f"scope='global', threshold={self.threshold}."
            )
        if self.scope == "layer" and self.cap is not None and self.threshold is None:
            raise ValueError(
                "cap bounds a threshold or scope='global', and a fraction of each layer is exact: "
                f"expected no cap. Received fraction={self.fraction}, cap={self.cap}."
            )
        if self.scope == "layer" and self.normalize not in (None, "none"):
            raise ValueError(
                "normalize makes layers comparable: expected scope='global' with it. Received "
                f"scope='layer', normalize={self.normalize!r}."
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for all others


def _check_number(
    name: str, value: Any, expected: str, low: float | None = None, high: float | None = None
) -> None:
    """Checks a share: from `low`, or above 0, up to `high`, or below 1."""
    right = (
        isinstance(value, numbers.Real)
        and (float(value) > 0 if low is None else float(value) >= low)
        and (float(value) < 1 if high is None else float(value) <= high)
    )
    if not right:
        raise ValueError(f"{name} must {expected}. Received: {value}")
