"""What a restart does to a network, whenever it comes: which filters it takes, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasrestart.network.channels import ChannelMap
from kerasrestart.network.filter_layers import FilterLayers
from kerasrestart.restart import drawing, initializers, surgery
from kerasrestart.restart.arguments import check, checked_layers
from kerasrestart.restart.combinations import check_combination
from kerasrestart.restart.compensation import check_compensation
from kerasrestart.restart.names import SLOTS
from kerasrestart.restart.optimizers import check_optimizers
from kerasrestart.restart.records import RestartEvent
from kerasrestart.restart.seeds import derive_seed
from kerasrestart.restart.selection import Selection
from kerasrestart.restart.slots import build_optimizer, check_second_moment
from kerasrestart.scoring import criteria
from kerasrestart.scoring.reduction import check_reductions
from kerasrestart.scoring.scorer import Scorer


@dataclasses.dataclass(frozen=True)
class RestartRule:
    """The arguments of `PartialRestart` that say what a restart does; they are described there.

    Raises:
        ValueError: An argument is not known, out of range, or goes with no other that is given.
    """

    initializer: Any
    criterion: str | criteria.Criterion | criteria.Saliency
    selection: Selection
    layers: str | Sequence[str] | None
    outgoing: str
    grace_restarts: int
    second_moment: str
    reset_norm: bool
    compensate_bias: bool
    seed: int

    def __post_init__(self):
        keeps = self.initializer == SLOTS
        if not self.keeps_weights:
            initializers.get(self.initializer)
        check_combination(
            self.selection,
            initializer=SLOTS if keeps else self.initializer,
            reverses=criteria.get(self.criterion).reversed,
            outgoing=self.outgoing,
            compensate_bias=self.compensate_bias,
        )
        check_second_moment(self.second_moment)
        checked_layers(self.layers)
        for name in ("grace_restarts", "seed"):
            value = getattr(self, name)
            right = isinstance(value, int | np.integer) and value >= 0
            check(name, value, bool(right), "0 or more, whole")

    @property
    def is_control(self) -> bool:
        """Whether nothing is reset."""
        return self.initializer in (None, "none")

    @property
    def keeps_weights(self) -> bool:
        """Whether no weight is drawn anew, so that the same filters may well be selected again."""
        return self.is_control or self.initializer == SLOTS

    def scorer_for(self, model: keras.Model) -> tuple[Scorer, list[str]]:
        """Makes the scorer of a model, once it is clear that the model can be restarted so.

        The optimizer is built where it is not yet.

        Args:
            model: A compiled model.

        Returns:
            The scorer, and the names of layers that are left out because of `outgoing`.

        Raises:
            TypeError: The model has no graph.
            ValueError: It is not compiled, or has no filters, `selection` selects none or too many,
                the optimizer's slots are not known, the criterion needs gradients and the losses
                have no reduction in common, or as `restart_filters` does.
        """
        if not model.compiled:
            raise ValueError(f"Model '{model.name}' is not compiled: call model.compile first.")
        scorer = self._scorer(model, self.layers)
        shared: dict[str, str] = {}
        if self.outgoing == "zero":
            shared = _obstacles(scorer.filter_layers)
            free = [name for name in scorer.layers if name not in shared]
            if not free:
                reasons = [f"{name}: {why}" for name, why in shared.items()]
                if (more := len(reasons) - 3) > 0:
                    reasons[3:] = [f"and {more} more (kerasrestart.describe lists them)"]
                raise ValueError(
                    f"No layer can be restarted with outgoing='zero'. {'; '.join(reasons)}."
                )
            if shared:
                scorer = self._scorer(model, free)
        self.selection.check(
            {name: filter_layer.filters for name, filter_layer in scorer.layers.items()}
        )
        if scorer.criterion.needs_gradient:
            check_reductions(model)
        build_optimizer(model)  # else unknown slots would come to light at the first restart
        check_optimizers(model)
        if not self.keeps_weights:
            drawing.check_draws(scorer.layers.values(), self.initializer, outgoing=self.outgoing)
        if self.outgoing == "zero":
            surgery.check_adafactor(model.optimizer, self.second_moment)
        if self.compensate_bias:
            check_compensation(scorer.filter_layers)
        return scorer, list(shared)

    def _scorer(self, model: keras.Model, layers: str | Sequence[str] | None) -> Scorer:
        return Scorer(
            model,
            self.criterion,
            seed=self.seed,
            layers=layers,
            with_reader_input_means=self.compensate_bias,
        )

    def select(
        self, scores: Mapping[str, np.ndarray], events: Sequence[RestartEvent]
    ) -> dict[str, np.ndarray]:
        """Selects filters, but for those that are in their grace period.

        Args:
            scores: By layer name, `[filters]`.
            events: The restarts made so far.

        Returns:
            By layer name, indices; empty where none is useless.
        """
        spared: dict[str, set[int]] = {}
        if self._grace:
            for event in events[-self._grace :]:
                for name, layer in event.layers.items():
                    spared.setdefault(name, set()).update(layer.filters)
        return self.selection.select(scores, spared)

    def repeats(self, chosen: Mapping[str, np.ndarray], events: Sequence[RestartEvent]) -> bool:
        """Whether a selection is the same as that of the last restart that could be the same.

        Filters in their grace period cannot be selected again, so restarts inside it are passed
        over.
        """
        comparable = events[: len(events) - self._grace]
        if not comparable:
            return False
        last = {name: layer.filters for name, layer in comparable[-1].layers.items()}
        return last == {name: filters.tolist() for name, filters in chosen.items()}

    @property
    def _grace(self) -> int:
        return self.grace_restarts if self.outgoing == "zero" else 0

    def apply(
        self,
        model: keras.Model,
        filter_layers: FilterLayers,
        chosen: Mapping[str, np.ndarray],
        number: int,
        reader_input_means: Mapping[str, np.ndarray],
    ) -> dict[str, str]:
        """Restarts filters in place.

        Args:
            model: The model.
            filter_layers: Its filter_layers.
            chosen: By layer name, the filters.
            number: Which restart of the run it is: each draws other weights.
            reader_input_means: What layers read on average; not looked at without `compensate_bias`.

        Returns:
            By layer, why it is left out: it may have been frozen since training began.
        """
        if self.is_control:
            return {}
        left_out = surgery.obstacles(model, filter_layers, chosen, outgoing=self.outgoing)
        chosen = {key: filters for key, filters in chosen.items() if key not in left_out}
        if self.initializer == SLOTS:
            surgery.reset_optimizer_state(
                model,
                chosen,
                second_moment=self.second_moment,
                norms=self.reset_norm,
                found=filter_layers,
            )
            return left_out
        surgery.restart_filters(
            model,
            chosen,
            initializer=self.initializer,
            outgoing=self.outgoing,
            second_moment=self.second_moment,
            norms=self.reset_norm,
            reader_input_means=reader_input_means if self.compensate_bias else None,
            seed=derive_seed(self.seed, number),
            found=filter_layers,
        )
        return left_out


def _obstacles(filter_layers: FilterLayers) -> dict[str, str]:
    """The filter_layers whose outgoing weights cannot be set to zero: by name, why."""
    channels = ChannelMap(filter_layers.graph)
    obstacles = {
        name: channels.outgoing(s.layer).obstacle() for name, s in filter_layers.layers.items()
    }
    return {name: obstacle for name, obstacle in obstacles.items() if obstacle}
