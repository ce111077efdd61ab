"""A search API on this machine that answers as it is told: well, not at all, or with something hostile."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

RESULT = "found: {}"


class SearchServer(ThreadingHTTPServer):
    """`faults` has functions of the handler that answer the first requests; later ones are answered well."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.asked, self.headers = [], [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/search"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        text = parse_qs(urlsplit(self.path).query)["q"][0]
        self.server.asked.append(text)
        self.server.headers.append(dict(self.headers))
        if self.server.faults:
            self.server.faults.pop(0)(self)
        else:
            self.answer(json.dumps({"results": [{"snippet": RESULT.format(text)}]}).encode())

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def search_server():
    with SearchServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
