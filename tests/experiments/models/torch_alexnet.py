"""AlexNet written out in PyTorch's functions, with weights under torchvision's names."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra 'bench')")
F = torch.nn.functional

CONVOLUTIONS = {  # number: (filters, channels, side), stride, padding, whether a max-pool follows
    0: ((64, 3, 11, 11), 4, 2, True),
    3: ((192, 64, 5, 5), 1, 2, True),
    6: ((384, 192, 3, 3), 1, 1, False),
    8: ((256, 384, 3, 3), 1, 1, False),
    10: ((256, 256, 3, 3), 1, 1, True),
}


def random_weights(units=None, classes=10, seed=0):
    """Float32 arrays by name; the convolutions alone where there are no `units`."""
    rng = np.random.default_rng(seed)
    shapes = {f"features.{n}": shape for n, (shape, *_) in CONVOLUTIONS.items()}
    if units:
        shapes |= {
            "classifier.1": (units, 256 * 6 * 6),
            "classifier.4": (units, units),
            "classifier.6": (classes, units),
        }
    weights = {}
    for name, shape in shapes.items():
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = rng.normal(0, deviation, shape).astype("float32")
        weights[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype("float32")
    return weights


def last_map(images, weights):
    """The map after the last pooling: `[batch, 256, height, width]` from `[batch, h, w, 3]`."""
    x = torch.as_tensor(images).permute(0, 3, 1, 2)
    for number, (_, stride, padding, pooled) in CONVOLUTIONS.items():
        kernel, bias = _of(weights, f"features.{number}")
        x = F.relu(F.conv2d(x, kernel, bias, stride=stride, padding=padding))
        x = F.max_pool2d(x, 3, 2) if pooled else x
    return x


def logits(images, weights):
    x = F.adaptive_avg_pool2d(last_map(images, weights), (6, 6)).flatten(1)
    x = F.relu(F.linear(x, *_of(weights, "classifier.1")))
    x = F.relu(F.linear(x, *_of(weights, "classifier.4")))
    return F.linear(x, *_of(weights, "classifier.6")).numpy()


def _of(weights, name):
    return torch.as_tensor(weights[f"{name}.weight"]), torch.as_tensor(weights[f"{name}.bias"])
