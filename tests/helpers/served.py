"""A real local HTTP server that answers like an OpenAI-compatible one, or misbehaves as told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Served", dict[str, Any]], None]


class Served(BaseHTTPRequestHandler):
    """One request; `self.server.plan` says what to do with it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        server: Any = self.server
        with server.lock:
            number = len(server.requests)
            server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
        server.plan(number)(self, body)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def says(text: str | Callable[[dict[str, Any]], str], reason: str = "stop", **more: Any) -> Answer:
    """A sound answer."""

    def answer(request: Served, body: dict[str, Any]) -> None:
        content = text(body) if callable(text) else text
        chat = request.path.endswith("/chat/completions")
        said = {"message": {"role": "assistant", "content": content}} if chat else {"text": content}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        reply = {"model": "served-1", "choices": [{**said, "finish_reason": reason}], "usage": usage, **more}
        request.reply(200, json.dumps(reply).encode())

    return answer


def status(code: int, message: str = "", **headers: str) -> Answer:
    return lambda request, body: request.reply(code, json.dumps({"error": {"message": message}}).encode(), **headers)


def raw(body: bytes) -> Answer:
    return lambda request, _: request.reply(200, body)


def hangs_up(request: Served, _: dict[str, Any]) -> None:
    """Half a header and gone."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    request.close_connection = True


def drips(seconds: float, code: int = 200) -> Answer:
    """A byte at a time, for longer than anybody waits."""

    def answer(request: Served, _: dict[str, Any]) -> None:
        request.send_response(code)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                request.wfile.write(b" ")
                request.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass
        request.close_connection = True

    return answer


@contextmanager
def serving(*plan: Answer, then: Answer | None = None) -> Iterator[Any]:
    """The server, with `.url` and `.requests`; the first requests get `plan`, all further ones `then` or its last."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    server.daemon_threads = True
    server.lock, server.requests = threading.Lock(), []
    server.plan = lambda number: plan[number] if number < len(plan) else then or plan[-1]
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
