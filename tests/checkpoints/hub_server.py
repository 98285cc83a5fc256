"""A hub on this machine: the few addresses that huggingface_hub asks for, answered from memory."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ADDRESS = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^?]+)")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/?]+)")


@dataclass
class Hub:
    """Repositories by name; each has commits, the newest last, and each commit its files.

    Attributes:
        gated: repositories whose files are refused.
        asked: every request, "METHOD path".
        url: where it answers.
    """

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Its name: forty digits, as Git has them."""
        commits = self.repositories.setdefault(repository, {})
        name = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits[name] = files
        return name

    def at(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision means, and its files."""
        commits = self.repositories[repository]
        name = next(reversed(commits)) if revision == "main" else revision
        return (name, commits[name]) if name in commits else None


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub answers on a port of this machine until the end."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read what was asked."""

    def _answer(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        found = _ADDRESS.match(self.path) or _API.match(self.path)
        if found is None:
            return self._send(404, b"")
        if found["repo"] not in self.hub.repositories:  # as for a private one, to those who are not logged in
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        at = self.hub.at(found["repo"], found["revision"])
        if at is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit, files = at
        if "file" in found.groupdict():
            return self._file(found["repo"], commit, files.get(found["file"]))
        if found["what"] == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._send(200, json.dumps(entries).encode())
        siblings = [{"rfilename": name} for name in files]
        return self._send(200, json.dumps({"id": found["repo"], "sha": commit, "siblings": siblings}).encode())

    def _file(self, repository: str, commit: str, content: bytes | None) -> None:
        known = {"X-Repo-Commit": commit}
        if repository in self.hub.gated:
            return self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        if content is None:
            return self._send(404, b"", {**known, "X-Error-Code": "EntryNotFound"})
        sha = hashlib.sha256(content).hexdigest()
        linked = {"ETag": f'"{sha}"', "X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha}"'}
        return self._send(200, content, {**known, **linked})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
