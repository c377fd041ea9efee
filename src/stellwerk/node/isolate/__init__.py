"""Isolates as the node sees them: the pool, one process, its channel."""
