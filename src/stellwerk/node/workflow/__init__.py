"""Durable runs: read, decide, record, act."""
