"""Settings of published methods, as arguments of `PartialRestart`; readable without TensorFlow.

Where a paper's method has a part that is not here, or a part here differs, the preset says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kerasrestart.network.arguments import check_choice
from kerasrestart.restart.arguments import SHORT_FORMS
from kerasrestart.restart.every_steps import EverySteps
from kerasrestart.restart.reset import Reset
from kerasrestart.restart.select import BelowMean, Fraction, GlobalFraction
from kerasrestart.restart.when import EveryEpochs, OnPlateau
from kerasrestart.scoring.scoring import Scoring


def han_zhang() -> dict[str, Any]:
    """Han and Zhang, "Partial Restart of Neural Network": algorithm 1, with its best initializer.

    A round trains until the validation loss has not improved for five epochs, at the initial
    learning rate and then at a tenth of it. The tenth of each convolution's filters with the lowest
    Taylor score gets weights from U(-0.05, 0.05); their outgoing weights stay. Restarts end after
    three, or when the same filters are selected twice.

    The paper does not say how many filters are useless, how a plateau is found, or what happens to
    the state of the optimizer and to batch norm: here these are reset with the filter.
    """
    return {
        "criterion": "taylor",
        "select": Fraction(0.1),
        "when": OnPlateau("val_loss", patience=5, learning_rate_drops=1),
        "reset": Reset("uniform"),
        "max_restarts": 3,
        "stop_on_repeat": True,
    }


def redo() -> dict[str, Any]:
    """Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement Learning" (ICML 2023).

    ReDo: every 1,000 batches the units whose mean absolute activation is at most 0.025 of their
    layer's mean are recycled: incoming weights as the layer's initializer draws them, outgoing
    weights zero, Adam's moments zero.

    Differences: the activation is a running mean over the last batches (decay 0.9), where the
    authors' code takes one batch of 256. One unit of a layer stays at least. A weight between two
    units that are recycled together is drawn, where their code sets it to zero.
    """
    return {
        "criterion": Scoring("activation", window=50),
        "select": BelowMean(0.025),
        "when": EverySteps(1000, maturity=0, decay=0.9),
        "reset": Reset("own", outgoing="zero"),
        "layers": ".*",
    }


def continual_backprop() -> dict[str, Any]:
    """Dohare et al., "Loss of plasticity in deep continual learning" (Nature 632, 2024).

    Continual backpropagation: the utility of a unit is the running mean (decay 0.99) of its
    absolute activation times the sum of its absolute outgoing weights. Of the units of a layer that
    are older than 100 batches, a fraction of 1e-4 per batch is replaced, those of lowest utility:
    incoming weights from He's uniform distribution, outgoing weights zero. The bias of what reads a
    unit absorbs the unit's running mean contribution.

    The paper has replacement rates of 1e-4 to 1e-6 and maturities of 100 to 10,000, by experiment.

    Differences: after a flattening, a filter's activation and outgoing weights are averaged over
    positions before they are multiplied. The authors' Adam also counts steps for each weight; here
    new weights get the survivors' second moments, which bounds their first steps.
    """
    return {
        "criterion": "contribution",
        "when": EverySteps(1, replacement_rate=1e-4, maturity=100, decay=0.99),
        "reset": Reset(
            "he_uniform", outgoing="zero", second_moment="survivors", compensate_bias=True
        ),
        "layers": ".*",
    }


def repr_() -> dict[str, Any]:
    """Prakash et al., "RePr: Improved Training of Convolutional Filters" (CVPR 2019).

    Three times: the network trains 20 epochs; the 30 % of all filters that overlap most with others
    of their layer are dropped, and the rest of the network trains 10 epochs; then they return with
    weights that are orthogonal to the other filters of their layer and, where the fan-in allows, to
    their own old weights. Training continues for 20 more epochs: 110 in all.

    Not from the paper, which does not say: new filters have the mean norm of the others; their
    outgoing weights return as zero, so that the function of the network does not jump. Layers whose
    outgoing weights read other filters too, as at the end of residual blocks, are left out.
    """
    return {
        "criterion": "orthogonality",
        "select": GlobalFraction(0.3, cap=1.0),
        "when": EveryEpochs(20, monitor="loss"),
        "reset": Reset(
            "orthogonal_to_survivors", outgoing="zero", grace_restarts=0, drop_epochs=10
        ),
        "max_restarts": 3,
        "stop_on_repeat": False,
    }


PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "han_zhang": han_zhang,
    "redo": redo,
    "continual_backprop": continual_backprop,
    "repr": repr_,
}


def preset_arguments(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a preset.

    Args:
        name: A name in `PRESETS`.
        overrides: Arguments that replace the preset's.

    Raises:
        ValueError: The name is not known; or an override is the short form of a part that the
            preset sets.
    """
    check_choice("name", name, tuple(PRESETS))
    arguments = PRESETS[name]()
    for part, short_forms in SHORT_FORMS.items():
        for short_form in short_forms:
            if short_form in overrides and part in arguments and part not in overrides:
                raise ValueError(
                    f"Preset {name!r} sets the whole part {part}={arguments[part]!r}: {part} must "
                    f"be another part. Received: {short_form}={overrides[short_form]!r}"
                )
    return {**arguments, **overrides}
