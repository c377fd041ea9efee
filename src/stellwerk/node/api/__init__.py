"""The control plane: the v4 API that wrangler and our CLI speak, health and metrics."""

from stellwerk.node.api.ports import Ports
from stellwerk.node.api.server import ControlServer

__all__ = ["ControlServer", "Ports"]
