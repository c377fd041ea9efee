"""How the command line reaches a node that is not on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stellwerk.cli.client import Client
from stellwerk.cli.place import Place


class AProxy(HTTPServer):
    """Answers every request itself, as a node behind it would; notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: AProxy

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        body = json.dumps({"success": True, "result": "found"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[AProxy]:
    with AProxy() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_far_node_is_called_through_the_proxy_of_the_environment(
    proxy: AProxy, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    monkeypatch.setenv(variable, f"{scheme}me:p%40ss@127.0.0.1:{proxy.server_port}")
    with Client(Place(url="http://node.example:8788", token="token")) as client:
        assert client.get("workflows") == "found"
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert proxy.asked == [("http://node.example:8788/client/v4/accounts/local/workflows", login)]


def test_a_node_on_this_machine_is_called_without_it(proxy: AProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Client(Place(url=f"http://127.0.0.1:{proxy.server_port}", token="token")) as client:
        assert client.get("workflows") == "found"
