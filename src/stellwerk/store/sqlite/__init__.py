"""The SQLite back end of the store: ``store.py`` is what a node opens. Imports nothing, since the process that writes
comes by here and has to be up in a moment."""
