"""Public HTTP in: an HTTP/1.1 server of our own, and where its requests go."""
