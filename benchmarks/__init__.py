"""Ratios, side by side in one run; docs/benchmarks.md tells what came out."""

from kerasrestart.experiments.command_line import set_up_tensorflow

set_up_tensorflow()  # before TensorFlow is imported, as the command lines do
