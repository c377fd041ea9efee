"""What the node leaves in its state folder so that the command line finds it: where it listens, and the token.

Two files: ``node.json`` (this module's ``NodeFile``) is written when the control plane listens and removed when the
node stops; ``token`` (mode 0600) is made once and stays. A ``node.json`` of a killed node stays behind, so readers
take it for a hint, never for a proof that somebody listens.
"""

from __future__ import annotations

import msgspec

NODE_FILE = "node.json"
TOKEN_FILE = "token"
STATE_FOLDER = (".stellwerk", "state")
"""Where a workspace keeps its state, relative to its root."""


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``node.json``."""

    pid: int
    control_host: str
    control_port: int
    ingress_host: str = ""
    ingress_port: int = 0
    version: str = ""

    @property
    def control_url(self) -> str:
        """The base address of the control plane, without a slash at the end."""
        host = self.control_host
        if host in ("0.0.0.0", "::", ""):  # listening everywhere is not an address to call
            host = "127.0.0.1"
        return f"http://[{host}]:{self.control_port}" if ":" in host else f"http://{host}:{self.control_port}"


encode_node_file = msgspec.json.Encoder(order="deterministic").encode
decode_node_file = msgspec.json.Decoder(NodeFile).decode
