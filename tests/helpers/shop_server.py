"""A real HTTP server whose requests burn a known CPU time: ``GET /rank?n=20`` costs 1 ms and 0.1 ms for each of n.

Run as a script it prints its port; ``/metrics`` tells its CPU as Prometheus clients do, ``/broken`` answers 500.
"""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs, urlsplit


def rank(request: dict) -> None:
    """Burn what a request of ``n`` candidates costs, by the clock of this thread."""
    end = time.thread_time() + 1e-3 + 1e-4 * request["n"]
    while time.thread_time() < end:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/rank":
            rank({"n": int(parse_qs(parts.query)["n"][0])})
        body = f"# HELP x y\nprocess_cpu_seconds_total {time.process_time()}\n".encode()
        self.send_response(500 if parts.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    disable_nagle_algorithm = True


if __name__ == "__main__":
    Handler.wbufsize = -1
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
