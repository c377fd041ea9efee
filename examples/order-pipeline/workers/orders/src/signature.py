"""The gateway's signature under an order, so that the workflow can tell who let it in.

The same file stands in `gateway`, which signs, and in `orders`, which checks.
"""

import hashlib
import hmac
import json


def sign(order, key):
    """HMAC-SHA256 over the order in one fixed spelling."""
    text = json.dumps(order, sort_keys=True, separators=(",", ":"))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(order, signature, key):
    return hmac.compare_digest(sign(order, key), signature)
