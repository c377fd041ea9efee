"""The command line: an HTTP client of the control plane, with commands."""
