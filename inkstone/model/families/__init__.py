"""Foreign families of models: a table of names and one function each way, no behaviour by name. See `family.py`."""
