"""A request that is made again: for whom, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tortie.cli.client import Client
from tortie.cli.errors import Unreachable


@contextmanager
def api(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """Answers with one status after another, and with the last from then on; its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses[min(len(asked), len(statuses) - 1)]
            asked.append(self.path)
            body = b'{"error": "the bus is away"}' if status == 503 else b"{}"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_patient_client_asks_again_until_it_is_answered() -> None:
    with api(503, 200) as (address, asked):
        assert Client(address, patience_s=60.0).get("/v1/pods") == {}
    assert asked == ["/v1/pods", "/v1/pods"]


def test_others_are_told_at_once() -> None:
    with api(503, 200) as (address, asked):
        with pytest.raises(Unreachable, match="the bus is away"):
            Client(address).get("/v1/pods")
        with pytest.raises(Unreachable):
            Client("http://127.0.0.1:1").get("/v1/pods")
    assert len(asked) == 1


def test_one_try_of_a_patient_client() -> None:
    with api(503) as (address, asked), pytest.raises(Unreachable):
        Client(address, patience_s=60.0).once("GET", "/v1/pods")
    assert len(asked) == 1


def test_patience_ends() -> None:
    with pytest.raises(Unreachable, match="no api at"):
        Client("http://127.0.0.1:1", patience_s=0.01).get("/v1/pods")
