"""gunicorn's application object and its threaded worker, without its master: Einhorn is that."""

import json
import os

import einhorn_worker as einhorn
from gunicorn.app.base import BaseApplication
from gunicorn.sock import create_sockets
from gunicorn.workers.gthread import ThreadWorker

LOADED_BY = os.getpid()


def app(environ, start_response):
    body = json.dumps({"pid": os.getpid(), "hello": "from gunicorn", "loaded_by": LOADED_BY}, separators=(",", ":"))
    body = body.encode() + b"\n"
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Application(BaseApplication):
    def load_config(self):
        self.cfg.set("threads", int(os.environ.get("THREADS", "4")))
        self.cfg.set("graceful_timeout", 30)
        self.cfg.set("post_worker_init", lambda worker: einhorn.ack())

    def load(self):
        return app


APPLICATION = Application()
APPLICATION.wsgi()  # now, and not in each worker


def einhorn_main():
    cfg = APPLICATION.cfg
    log = cfg.logger_class(cfg)
    listeners = create_sockets(cfg, log, fds=[int(os.environ["EINHORN_FD_0"])])
    ThreadWorker(0, os.getppid(), listeners, APPLICATION, cfg.timeout, cfg, log).init_process()
