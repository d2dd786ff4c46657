"""An instance metadata service for a peer that has none a strict client accepts: the paths and texts of a JSON file, IMDSv2 only.

usage: imds.py PORT TREE.json    (the tree: {"/latest/meta-data/mac": "02:...", ...})
"""

import http.server
import json
import secrets
import sys

TOKENS = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, headers=()):
        data = body.encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self):
        if self.path != "/latest/api/token":
            return self.answer(404, "")
        ttl = self.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        token = secrets.token_urlsafe(24)
        TOKENS[token] = ttl
        self.answer(200, token, [("x-aws-ec2-metadata-token-ttl-seconds", ttl)])

    def do_GET(self):
        if self.headers["x-aws-ec2-metadata-token"] not in TOKENS:
            return self.answer(401, "")
        text = TREE.get(self.path)
        self.answer(200 if text is not None else 404, text or "")

    def log_message(self, *_):
        pass


TREE = json.load(open(sys.argv[2]))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
