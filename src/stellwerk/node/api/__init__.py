"""The control plane: the v4 API that wrangler and our CLI speak, health and metrics."""
