"""One run: model, callback, training, checkpoint, devices."""
