"""A Hub on loopback: the endpoints that huggingface_hub uses to create, fill, list and read a model repository.

Repositories live in memory. What only the real one does: pull requests, Xet storage, uploads in several parts.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

OWNERS = {"hf_owner": "maker", "hf_other": "reader"}
"""user name by token"""
LARGE = ("*.safetensors", "*.faiss", "*.bin", "*.npz")
Files = dict[str, bytes]


@dataclass
class Repository:
    private: bool
    commits: list[Files] = field(default_factory=lambda: [{".gitattributes": b""}])
    heads: dict[str, int] = field(default_factory=lambda: {"main": 0})
    """by branch, its newest commit"""

    def sha_of(self, revision: str) -> str:
        return _sha(self.heads[revision]) if revision in self.heads else revision

    def files(self, revision: str) -> Files | None:
        shas = [_sha(number) for number in range(len(self.commits))]
        sha = self.sha_of(revision)
        return self.commits[shas.index(sha)] if sha in shas else None

    def commit(self, branch: str, files: Files) -> None:
        self.commits.append(files)
        self.heads[branch] = len(self.commits) - 1


def _sha(number: int) -> str:
    return hashlib.sha1(f"{number}".encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    """What it holds, what it was sent, and how it fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        """large files by SHA-256, whether committed or not"""
        self.uploads: list[str] = []
        """digests of the large files that came in whole"""
        self.cuts = 0
        """uploads of large files that will break off half-way"""
        self.allowed: int | None = None
        """large files that may still come in; all others break off"""
        self.admission = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    # ---- what is asked ----

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2":
            return self._whoami()
        if "/resolve/" in path:
            return self._resolve(path)
        repo, _, rest = self._split(path.removeprefix("/api/models/"))
        found = self._readable(repo)
        if found is None:
            return None
        kind, _, revision = rest.partition("/")
        files = found.files(revision or "main")
        if files is None:
            return self._answer(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
        if kind == "tree":
            return self._answer(200, [self._entry(name, content) for name, content in files.items()])
        names = [{"rfilename": name} for name in files]
        facts = {"_id": "0", "id": repo, "sha": found.sha_of(revision or "main"), "private": found.private}
        return self._answer(200, {**facts, "siblings": names, "tags": [], "downloads": 0, "likes": 0})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if self._user() is None:
            return self._answer(401, {"error": "Invalid credentials"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        repo, _, rest = self._split(path.removeprefix("/api/models/").removeprefix("/").replace(".git/", "/"))
        found = self._writable(repo)
        if found is None:
            return None
        if rest == "info/lfs/objects/batch":
            return self._batch(json.loads(body)["objects"])
        kind, _, branch = rest.partition("/")
        if kind == "branch":
            return self._branch(found, branch)
        if kind == "preupload":
            return self._modes(found.files(branch) or {}, json.loads(body)["files"])
        return self._commit(repo, found, branch, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        if not self._admitted():
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return None
        content, digest = self.rfile.read(length), self.path.rsplit("/", 1)[-1]
        if len(content) < length or hashlib.sha256(content).hexdigest() != digest:
            return self._answer(400, {"error": "not the announced file"})
        self.server.blobs[digest] = content
        self.server.uploads.append(digest)
        return self._answer(200, {})

    def _admitted(self) -> bool:
        """Decided for one upload at a time: a client sends several at once."""
        with self.server.admission:
            if self.server.allowed == 0:
                return False
            if self.server.cuts:
                self.server.cuts -= 1
                return False
            if self.server.allowed is not None:
                self.server.allowed -= 1
            return True

    # ---- who asks ----

    def _user(self) -> str | None:
        return OWNERS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _whoami(self) -> None:
        user = self._user()
        if user is None:
            return self._answer(401, {"error": "Invalid credentials"})
        return self._answer(200, {"name": user, "type": "user", "orgs": []})

    def _readable(self, repo: str) -> Repository | None:
        found = self.server.repositories.get(repo)
        if found is None or (found.private and self._user() != repo.split("/")[0]):
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _writable(self, repo: str) -> Repository | None:
        if self._user() != repo.split("/")[0]:
            self._answer(403, {"error": "You have no write access to this repository"})
            return None
        return self._readable(repo)

    # ---- what is done ----

    def _create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or self._user()
        repo = f"{owner}/{asked['name']}"
        if owner != self._user():
            return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        if repo in self.server.repositories:
            return self._answer(409, {"error": "You already created this model repo", "url": self._url(repo)})
        self.server.repositories[repo] = Repository(asked.get("visibility") == "private")
        return self._answer(200, {"url": self._url(repo), "name": repo, "id": "0"})

    def _validate(self, card: str) -> None:
        """Some of the Hub's rules: a licence and ids of data sets are words, results name data set and metric."""
        front = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
        results = [result for model in front.get("model-index", []) for result in model["results"]]
        wrong = [
            f'"{key}" must be a string'
            for key in ("license", "library_name")
            if not isinstance(front.get(key, ""), str)
        ]
        wrong += ['"dataset.type" must be an id' for result in results if " " in result["dataset"].get("type", " ")]
        wrong += [
            '"metrics.value" must be given'
            for result in results
            for metric in result["metrics"]
            if "value" not in metric
        ]
        errors = [{"message": message} for message in wrong]
        return self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _branch(self, found: Repository, name: str) -> None:
        if name in found.heads:
            return self._answer(409, {"error": "Reference already exists"})
        found.heads[name] = found.heads["main"]
        return self._answer(201, {})

    def _modes(self, held: Files, files: list[dict[str, Any]]) -> None:
        modes = []
        for file in files:
            path = file["path"]
            large = any(fnmatch.fnmatch(path, pattern) for pattern in LARGE)
            oid = self._entry(path, held[path]) if path in held else {}
            digest = oid.get("lfs", oid).get("oid")
            modes.append(
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": digest}
            )
        return self._answer(200, {"files": modes})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        for wanted in objects:
            if wanted["oid"] not in self.server.blobs:
                wanted["actions"] = {"upload": {"href": f"{self.server.address}/upload/{wanted['oid']}"}}
        return self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, found: Repository, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(found.files(branch) or {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        found.commit(branch, files)
        sha = found.sha_of(branch)
        return self._answer(200, {"commitUrl": f"{self._url(repo)}/commit/{sha}", "commitOid": sha})

    def _resolve(self, path: str) -> None:
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        found = self._readable(repo)
        if found is None:
            return None
        revision, _, name = rest.partition("/")
        files = found.files(revision)
        if files is None or name not in files:
            return self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        digest = self._entry(name, files[name])
        headers = {"X-Repo-Commit": found.sha_of(revision), "ETag": f'"{digest.get("lfs", digest)["oid"]}"'}
        return self._answer(200, files[name], headers)

    # ---- how it is said ----

    def _split(self, path: str) -> tuple[str, str, str]:
        owner, name, *rest = path.split("/", 2)
        return f"{owner}/{name}", "/", "".join(rest)

    def _url(self, repo: str) -> str:
        return f"{self.server.address}/{repo}"

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": oid}
        if any(fnmatch.fnmatch(name, pattern) for pattern in LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def environment(hub: Hub, home: Any, token: str | None = "hf_owner") -> dict[str, str]:
    """Variables that send another process to this Hub and nowhere else."""
    found = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
    }
    return found | ({"HF_TOKEN": token} if token else {})


def point_here(hub: Hub, home: Any, patch: pytest.MonkeyPatch, token: str | None = "hf_owner") -> None:
    """Sends this process to the Hub: its variables are read when huggingface_hub is imported, which has happened."""
    from huggingface_hub import constants

    here = {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(home),
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(home / "token"),
    }
    for name, value in here.items():
        patch.setattr(constants, name, value)
    patch.setenv("HF_TOKEN", token) if token else patch.delenv("HF_TOKEN", raising=False)
