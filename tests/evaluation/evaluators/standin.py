"""A stand-in for an OpenAI-compatible endpoint: a real server on this machine that says what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What is answered: the judge's words, or a whole body; `drop` closes the connection instead."""

    words: str | None = "Score: 5"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drop: bool = False

    def bytes(self) -> bytes:
        """The body."""
        if self.body is not None:
            return self.body
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": self.words}}]}).encode()


@dataclass
class StandIn:
    """The server. `requests`: path, headers and body of each in order; `most`: most of them at the same time."""

    url: str
    answer: Callable[[dict[str, Any]], Answer] = lambda body: Answer()
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    most: int = 0

    @property
    def chats(self) -> list[list[dict[str, str]]]:
        """The messages of each request."""
        return [body["messages"] for _, _, body in self.requests]


@contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in while the block runs."""
    lock, now = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                now += 1
                here.most = max(here.most, now)
                here.requests.append((self.path, dict(self.headers), body))
            answer = here.answer(body)
            with lock:
                now -= 1
            if answer.drop:
                self.close_connection = True
                return
            content = answer.bytes()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients that leave are part of the game

    server = Quiet(("127.0.0.1", 0), Handler)
    here = StandIn(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
