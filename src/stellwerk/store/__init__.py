"""MEMORY: what survives. SQL and files behind one small Protocol per room."""
