"""https: certificates are checked, and a failed handshake is an ``OSError`` like any other."""

from __future__ import annotations

import ssl
from functools import partial

import pytest
import trustme
from tests.integration.http_client.server import a_client, always, ask, read, run, serving

from stellwerk.isolate.http_client import DirectConnect

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def a_server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def a_client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_a_server_with_a_known_certificate_is_spoken_to() -> None:
    authority = trustme.CA()

    async def main() -> None:
        connect = DirectConnect(a_client_context(authority))
        async with (
            serving(partial(always, data=OK), a_server_context(authority, "localhost")) as server,
            a_client(connect=connect) as client,
        ):
            for _ in range(2):
                response = await client.fetch(ask(f"https://localhost:{server.port}/"))
                assert await read(response) == b"hello"
            assert server.connections == 1
            assert server.asked[0].headers["host"] == f"localhost:{server.port}"

    run(main())


@pytest.mark.parametrize(("known", "name"), [(False, "localhost"), (True, "other.example")])
def test_a_certificate_that_does_not_fit_is_refused(known: bool, name: str) -> None:
    authority = trustme.CA()

    async def main() -> None:
        connect = DirectConnect(a_client_context(authority if known else trustme.CA()))
        async with (
            serving(partial(always, data=OK), a_server_context(authority, name)) as server,
            a_client(connect=connect) as client,
        ):
            with pytest.raises(OSError, match=rf"https://localhost:{server.port} cannot be reached: .*certificate"):
                await client.fetch(ask(f"https://localhost:{server.port}/"))

    run(main())
