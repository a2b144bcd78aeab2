"""Whether anything in a network is useless."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kerasrestart.diagnosis.diagnosis import Diagnosis
from kerasrestart.diagnosis.diagnosis_pass import DiagnosisPass


def diagnose(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    layers: str | Sequence[str] | None = ".*",
    batch_size: int = 128,
    max_width: int = 1024,
    seed: int = 0,
) -> Diagnosis:
    """Finds dead, dormant, useless and duplicate filters, and says in words what is likely to help.

    ```python
    print(kerasrestart.diagnose(model, x, y))
    ```

    One pass in inference mode; the model stays as it is. The numbers, by layer:

    - dead: the activation is zero on all data;
    - dormant: mean |activation| of at most 0.025 of the layer's mean (Sokar et al., "The Dormant
      Neuron Phenomenon in Deep Reinforcement Learning", ICML 2023, definition 3.1 and ReDo's
      threshold);
    - useless: Taylor score (Molchanov et al., ICLR 2017, equation 8) of at most a tenth of the
      layer's mean;
    - duplicate: activations correlated above 0.99 with those of an earlier filter of the layer
      (Pearson's correlation over examples and positions);
    - effective rank: exp of the entropy of the normalised singular values of the features, a row
      for each example and position, not centred (Roy and Vetterli, EUSIPCO 2007);
    - weight and gradient norm: L2 norm of a filter's kernel, and of the gradient of the mean cost
      by it; the mean over the layer's filters.

    A dead filter counts as dormant and useless, too. Memory for a layer is one float64 matrix of
    its width squared, at most `max_width` squared, whatever the number of examples.

    Args:
        model: A model whose filters `kerasrestart.describe` finds. Compiled, for useless filters
            and gradients.
        x: Inputs: arrays, a dict or structure of arrays, or batches as a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        y: Targets, where `x` is arrays. Defaults to None: then useless filters and gradients are
            not known, unless the loss needs no targets.
        layers: Which layers: names, or a regular expression that a whole name matches. Defaults to
            `".*"`: all with filters or units. Output layers and frozen layers are left out.
        batch_size: Examples in a batch, where `x` is arrays. Defaults to 128.
        max_width: Above this many filters, rank and duplicates are of a random sample of as many;
            the result's `notes` say so. Defaults to 1024.
        seed: Seed of that sample. Defaults to 0.

    Returns:
        A `Diagnosis`.

    Raises:
        ValueError: The model has no filters or cannot be traced, there is no example, `batch_size`
            or `max_width` is below 1, or `y` is given beside a data set.
        TypeError: `model` is not a Keras model; or `x` is neither arrays nor a data set.
    """
    return DiagnosisPass(
        model, x, y, layers=layers, batch_size=batch_size, max_width=max_width, seed=seed
    ).run()
