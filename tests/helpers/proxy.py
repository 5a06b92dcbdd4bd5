"""An http proxy on the loopback, which notes what it is asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(slots=True)
class Proxy:
    """Where it is, and the lines and the Proxy-Authorization that it was asked by."""

    address: str
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serving(target: str) -> Iterator[Proxy]:
    """Run a proxy that brings everybody to TARGET, wherever he wants to go."""
    host, _, port = target.partition(":")

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:  # the name is http.server's
            self._note()
            self.send_response(200)
            self.end_headers()
            with socket.create_connection((host, int(port))) as there:
                back = threading.Thread(target=_pump, args=(there, self.connection))
                back.start()
                _pump(self.connection, there)
                back.join()

        def do_GET(self) -> None:  # the name is http.server's
            self._note()
            parts = urlsplit(self.path)
            kept = {key: self.headers[key] for key in self.headers if key != "Connection"}
            lines = [f"GET {parts.path}?{parts.query} HTTP/1.0", *(f"{k}: {kept[k]}" for k in kept)]
            with socket.create_connection((host, int(port))) as there:
                there.sendall("\r\n".join((*lines, "", "")).encode())
                _pump(there, self.connection)
            self.close_connection = True

        def _note(self) -> None:
            line = self.requestline.rpartition(" ")[0]
            proxy.asked.append((line, self.headers.get("Proxy-Authorization", "")))

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
