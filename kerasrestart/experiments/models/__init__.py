"""The networks of the experiments, and the files of weights they start from.

Nothing is imported here: `weight_files` is used before TensorFlow is imported.
"""
