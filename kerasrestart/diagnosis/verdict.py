"""A verdict in words: the cause first, then the remedy, then what the numbers cannot tell."""

from __future__ import annotations

from collections.abc import Mapping

from kerasrestart.diagnosis.layer_diagnosis import LayerDiagnosis
from kerasrestart.network.text import listed

RESTART = "`PartialRestart(select=BelowMean(0.1))`"


def verdict(layers: Mapping[str, LayerDiagnosis], examples: int) -> str:
    """Says what is wrong, what is likely to help, and a caveat.

    Args:
        layers: The numbers of each layer, by key.
        examples: Number of examples that they are of.
    """
    dead = {name: len(layer.dead) for name, layer in layers.items() if layer.dead}
    useless = {name: len(layer.useless) for name, layer in layers.items() if layer.useless}
    dormant = {name: len(layer.dormant) for name, layer in layers.items() if layer.dormant}
    same = {name: len(layer.duplicate) for name, layer in layers.items() if layer.duplicate}
    diverged = [name for name, layer in layers.items() if not layer.is_finite]
    known = any(layer.useless is not None for layer in layers.values())
    kinds = "useless" if known else "dead, dormant or a duplicate"
    caveat = (
        f"Caveat: this is about {examples} examples in inference mode; on other data other filters "
        "may respond. Compare a restart with `control='none'`, which trains as long."
    )
    if diverged:
        said = (
            f"Activations, weights or gradients of {listed(diverged)} are not finite: training has "
            "diverged, or the data has values that are not numbers. The counts mean nothing then; "
            "a restart does not mend that: train again from earlier weights, at a lower learning "
            "rate."
        )
    elif dead:
        said = (
            f"{_counts(dead, layers)} dead: likely the learning rate; training again at a lower "
            f"one is likely to gain more than a restart; {RESTART} revives them, leaky ReLU "
            "prevents it."
        )
    elif useless:
        said = (
            f"{_counts(useless, layers)} useless but not dead: the network is wider than its task "
            f"needs, or no longer learns; {RESTART} re-initialises them. Where tasks change, a new "
            'output layer (`reset_layer(model, "logits")`) or a norm often helps as much.'
        )
    elif dormant:
        said = (
            f"{_counts(dormant, layers)} dormant: active far less than the rest of the layer. "
            "`PartialRestart(select=BelowMean(0.025), criterion='activation')` restarts them, as "
            "ReDo does; a restart is worth a try only if training has stalled."
        )
    elif same:
        said = (
            f"{_counts(same, layers)} a duplicate of an earlier filter: the layer is wider than "
            "its task needs. Their scores are not low, so a restart by score does not select them; "
            "a narrower layer is likely to do as well."
        )
    else:
        lowest = [x.lowest_score for x in layers.values() if x.lowest_score is not None]
        why = f" (lowest score {min(lowest):.2f} of the layer's mean)" if lowest else ""
        said = f"Nothing here is {kinds}: restarting filters is unlikely to help{why}."
    if not known:
        caveat += " Without targets and a compiled loss, useless filters are not known."
    return f"{said} {caveat}"


def _counts(of: Mapping[str, int], layers: Mapping[str, LayerDiagnosis]) -> str:
    """Such as "11 of 64 filters of conv3 (and 2 in 1 other layer) are"."""
    most = max(of, key=lambda name: of[name] / layers[name].filters)
    rest, others = sum(of.values()) - of[most], len(of) - 1
    more = f" (and {rest} in {others} other layer{'s' * (others > 1)})" if others else ""
    is_one = sum(of.values()) == 1
    return (
        f"{of[most]} of {layers[most].filters} filters of {most}{more} {'is' if is_one else 'are'}"
    )
