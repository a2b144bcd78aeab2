"""Files of trained weights: where they are, and what tensors are in them. No TensorFlow in here."""
