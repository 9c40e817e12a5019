"""A stand-in of the Hub: a real HTTP server with the part of its API that huggingface_hub calls, over repositories in
memory. Commits are kept, branches and tags name them; files that are not text go by LFS, as on the Hub.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret_of_the_test"
LARGE = (".onnx", ".npz")


class Hub:
    """The repositories: commits by number, each a dictionary of files; names of commits; what was uploaded."""

    def __init__(self):
        self.commits, self.names, self.objects, self.requests = {}, {}, {}, []
        self.answer = None
        self.private = {}

    def commit(self, repository, files, name="main"):
        number = hashlib.sha1(repr((repository, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[number] = dict(files)
        self.names[repository, name] = number
        return number

    def files(self, repository, revision):
        number = self.names.get((repository, revision), revision)
        return (number, self.commits[number]) if number in self.commits else None


def handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def reply(self, status, body=b"", **headers):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            signed = path.startswith("/lfs/")  # addresses that the Hub signs need no token
            authorised = signed or self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if hub.answer:  # a server that says what it was sent
                said = f"you sent {self.headers.get('Authorization')}"
                return self.reply(hub.answer, {"error": said}, X_Error_Message=said)
            if self.command in ("GET", "HEAD"):
                return self.read(path)
            return self.write(path, body) if authorised else self.reply(401, {"error": "no token"})

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

        def read(self, path):
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                found = hub.files(match[1], match[2] or "main")
                if not found:
                    return self.reply(404, {"error": "not found"}, X_Error_Code="RepoNotFound")
                listed = [{"rfilename": name, "size": len(data)} for name, data in found[1].items()]
                return self.reply(200, {"id": match[1], "sha": found[0], "siblings": listed})
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            found = hub.files(match[1], match[2]) if match else None
            if not found or match[3] not in found[1]:
                return self.reply(404, {"error": "not found"}, X_Error_Code="EntryNotFound")
            data = found[1][match[3]]
            return self.reply(200, data, X_Repo_Commit=found[0], ETag=f'"{hashlib.sha256(data).hexdigest()}"')

        def write(self, path, body):
            if path.startswith("/lfs/"):
                if hashlib.sha256(body).hexdigest() != path.removeprefix("/lfs/"):
                    return self.reply(400, {"error": "other content"})
                hub.objects[path.removeprefix("/lfs/")] = body
                return self.reply(200)
            if path.endswith("/commit/main"):
                return self.take_commit(path.split("/api/models/")[1].removesuffix("/commit/main"), body)
            asked = json.loads(body or "{}")
            if path == "/api/repos/create":
                name = f"{asked['organization']}/{asked['name']}"
                hub.private.setdefault(name, asked.get("private", asked.get("visibility") == "private"))
                if (name, "main") not in hub.names:
                    hub.commit(name, {".gitattributes": b"*.onnx filter=lfs\n"})
                return self.reply(200, {"url": f"http://{self.headers['Host']}/{name}"})
            if path == "/api/validate-yaml":
                return self.reply(200, {"errors": [], "warnings": []})
            if "/preupload/" in path:
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in asked["files"]
                ]
                return self.reply(200, {"files": modes})
            if path.endswith("/info/lfs/objects/batch"):
                there = f"http://{self.headers['Host']}/lfs/"
                objects = [
                    {**each, "actions": {"upload": {"href": there + each["oid"], "header": {}}}}
                    for each in asked["objects"]
                ]
                return self.reply(200, {"transfer": "basic", "objects": objects})
            return self.reply(404, {"error": path})

        def take_commit(self, repository, body):
            files = dict(hub.files(repository, "main")[1])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
                if line["key"] == "deletedFile":
                    del files[value["path"]]
            number = hub.commit(repository, files)
            url = f"http://{self.headers['Host']}/{repository}/commit/{number}"
            return self.reply(200, {"commitUrl": url, "commitOid": number})

    return Handler


def serve(hub):
    """Start the server of a Hub on this machine; return it and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"
