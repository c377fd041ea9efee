"""Entry of the zygote: ``python -I -S .../isolate/__main__.py zygote <control fd> <node's pid> <launch as JSON>``.

Started as a script with ``-I -S``: no site-packages, no ``.pth`` code, no PYTHON* variables. So nothing of ours can be
imported before ``sys.path`` is set, and this file imports only the standard library until then.
"""

import importlib
import json
import sys


def main(arguments: list[str]) -> int:
    if len(arguments) != 4 or arguments[0] != "zygote":
        print("This is started by the node: zygote <control fd> <node's pid> <launch>.", file=sys.stderr)
        return 64
    _, control, node_pid, launch = arguments
    told = json.loads(launch)
    sys.path[:0] = [told["sdk"], *told["paths"]]
    zygote = importlib.import_module("stellwerk.isolate.zygote")
    zygote.main(int(control), int(node_pid), launch)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
