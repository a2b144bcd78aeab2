"""Where filters are read, and how they are scored while a model trains."""
