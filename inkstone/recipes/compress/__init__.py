"""A smaller model, and a table of what it costs. `run` is where to begin."""
