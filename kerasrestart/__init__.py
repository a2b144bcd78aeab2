"""Partial restart for Keras: finds useless filters, re-initialises only those and trains on.

The public names are those of `__init__.pyi`. Each is loaded when it is first used, so that the
command line can check its flags without importing TensorFlow.
"""

from kerasrestart.network.public_names import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
