"""What the node tells about itself and its Workers: logs, metrics."""
