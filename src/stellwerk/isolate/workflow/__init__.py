"""Durable runs inside the isolate: the program, its deterministic event loop, its steps, and replay."""
