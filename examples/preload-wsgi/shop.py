"""A WSGI application: what takes long to load is loaded here, once per version."""

import json
import os

LOADED_BY = os.getpid()


def app(environ, start_response):
    body = json.dumps({"pid": os.getpid(), "hello": "from WSGI", "loaded_by": LOADED_BY}, separators=(",", ":"))
    body = body.encode() + b"\n"
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
