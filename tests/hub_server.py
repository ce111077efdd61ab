"""A Hugging Face hub on this machine. It takes a repository in one commit, and gives the files of a repository."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    def __init__(self, token):
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.files = token, {}
        self.refused, self.given = set(), []  # names of files that it does not give, and of those that it gave
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.reply({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.files.setdefault(name, {})
            return self.reply({"url": f"{self.server.url}/{name}", "name": name, "id": name})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self.reply({"files": files, "commitOid": "0" * 40})
        if "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.files[name][entry["value"]["path"]] = content
            oid = "1" * 40
            return self.reply({"commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"})
        return self.reply({"error": f"not known: {self.path}"}, 404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = self.path.partition("?")[0].split("/")
        if "tree" in parts:
            files = self.server.files["/".join(parts[3:5])]
            return self.reply([{"type": "file", "path": name, "size": len(content), "oid": name}
                               for name, content in files.items()])  # fmt: skip
        if "resolve" in parts:
            return self.give("/".join(parts[1:3]), parts[4], parts[-1])
        if self.path.startswith("/api/models/"):
            name = "/".join(self.path.split("/")[3:5])
            return self.reply({"id": name, "sha": "0" * 40, "siblings": [], "private": True, "tags": []})
        return self.reply({"error": f"not known: {self.path}"}, 404)

    def give(self, name, commit, file):
        if file in self.server.refused:
            return self.reply({"error": "not today"}, 403)
        if self.command == "GET":
            self.server.given.append(file)
        self.send(self.server.files[name][file], 200, {"ETag": f'"{file}"', "X-Repo-Commit": commit})

    def reply(self, value, status=200):
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def send(self, body, status, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Nothing on the terminal."""


@contextmanager
def serve_hub(token):
    hub = Hub(token)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
