"""A WSGI application."""

import json
import os


def application(environ, start_response):
    body = json.dumps({"pid": os.getpid(), "hello": "from uWSGI"}, separators=(",", ":")).encode() + b"\n"
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
