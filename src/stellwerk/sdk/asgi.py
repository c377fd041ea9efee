"""``import asgi`` is ``workers.asgi``, the very same module, as on Cloudflare."""

import sys

from workers import asgi

sys.modules[__name__] = asgi
