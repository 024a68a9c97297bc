"""A webhook's receiver on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str]]


class Hook:
    """Responds by a script, then with 204, or 422 to invalid JSON; keeps the requests."""

    def __init__(self) -> None:
        self.script: list[Answer | None] = []
        self.text = b""
        self.got: list[tuple[dict[str, str], Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = hook.script.pop(0) if hook.script else (204, {})
                try:
                    hook.got.append((headers, json.loads(body)))
                except (ValueError, RecursionError):
                    answer = 422, {}
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                for name, value in answer[1].items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(hook.text)))
                self.end_headers()
                self.wfile.write(hook.text)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?key=hush"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
