"""The names of Pyodide that programs on Cloudflare import. Python here is native: most of them have little to do."""

__version__ = "0.28.3"
