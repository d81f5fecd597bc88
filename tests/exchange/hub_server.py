"""A small HTTP server that speaks the endpoints of the Hugging Face Hub which pushing and pulling a library use.

It keeps one branch of any number of model repositories in memory. Files are uploaded inside the commit, or by the LFS
protocol where their name ends in one of `lfs`; the Hub's own Xet protocol is not spoken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TOKEN = "hf_test"


class Hub:
    """What the server holds.

    Attributes:
        repositories: Repository id, path, content.
        commits: Messages of all commits.
        lfs: Suffixes of files that go by LFS.
        requests: Method and path of every request.
    """

    def __init__(self, lfs: tuple[str, ...] = ()) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []
        self.lfs = lfs
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serves on a free port of this machine; yields the address."""
        hub = self

        class Handler(_Handler):
            holds = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    holds: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keeps stderr free."""

    def do_GET(self) -> None:
        """Information on a repository, its tree, and files."""
        path = self._noted()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path):
            self._repository(found[1])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main(?:/(.*))?", path):
            files = self.holds.repositories.get(found[1], {})
            self._json([self._file(name, content) for name, content in files.items() if "/" not in name])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path):
            self._content(found[1], found[2])
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Creates repositories, takes commits, and says how files are to be uploaded."""
        path = self._noted()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/main", path):
            # Older clients, such as 1.31, send a form.
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            files = self.holds.repositories.get(found[1], {})
            self._json([self._file(name, files[name]) for name in wanted if name in files])
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.holds.repositories.setdefault(name, {})
            self._json({"url": f"{self._address()}/{name}", "name": name})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self._json({"files": [self._mode(file["path"]) for file in json.loads(body)["files"]]})
        elif re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._json(
                {"transfer": "basic", "objects": [self._upload(one) for one in json.loads(body)["objects"]]}
            )
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "EntryNotFound")

    def do_PUT(self) -> None:
        """Takes an object of LFS, if it is the one that was announced."""
        oid = self._noted().removeprefix("/lfs/")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if hashlib.sha256(content).hexdigest() != oid:
            self._refuse(400, "BadRequest")
            return
        self.holds.objects[oid] = content
        self._json({})

    def _repository(self, name: str) -> None:
        if name not in self.holds.repositories:
            self._refuse(404, "RepoNotFound")
            return
        files = self.holds.repositories[name]
        siblings = [{"rfilename": file} for file in files]
        self._json({"id": name, "modelId": name, "sha": self._sha(), "siblings": siblings, "private": False})

    def _content(self, name: str, file: str) -> None:
        content = self.holds.repositories.get(name, {}).get(file)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        start, status = 0, 200
        end = len(content)
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, status = int(span[1]), 206
            end = min(end, int(span[2]) + 1) if span[2] else end
        self._answer(
            status, content[start:end], "application/octet-stream",
            {"ETag": f'"{self._oid(content)}"', "X-Repo-Commit": self._sha(), "Accept-Ranges": "bytes",
             "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"},
        )  # fmt: skip

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.holds.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.holds.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.holds.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self._json(
            {
                "success": True,
                "commitOid": self._sha(),
                "commitUrl": f"{self._address()}/{name}/commit/{self._sha()}",
            }
        )

    def _mode(self, file: str) -> dict[str, Any]:
        return {
            "path": file,
            "uploadMode": "lfs" if file.endswith(self.holds.lfs or ("\0",)) else "regular",
            "shouldIgnore": False,
        }

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        href = f"{self._address()}/lfs/{asked['oid']}"
        return {**asked, "actions": {"upload": {"href": href, "header": {}}}}

    def _file(self, name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(content), "oid": self._oid(content)}

    def _sha(self) -> str:
        return hashlib.sha1(str(len(self.holds.commits)).encode()).hexdigest()

    def _oid(self, content: bytes) -> str:
        return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()

    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _noted(self) -> str:
        path = self.path.partition("?")[0]
        self.holds.requests.append(f"{self.command} {path}")
        return path

    def _json(self, document: object) -> None:
        self._answer(200, json.dumps(document).encode(), "application/json", {})

    def _refuse(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._answer(status, json.dumps({"error": code}).encode(), "application/json", headers)

    def _answer(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
