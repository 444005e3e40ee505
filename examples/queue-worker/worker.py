#!/usr/bin/python3
"""Works off a queue, without any socket: files in JOBS/new, each of them a job.

Whoever renames a job to JOBS/taken has it, and nobody else; what is finished goes to JOBS/done. Asked
to leave, the worker finishes its job and takes no other."""

import os
import pathlib
import signal
import time

import einhorn_worker as einhorn

JOBS = pathlib.Path(os.environ.get("JOBS", "jobs"))


def take():
    """A job's new place; None if there is no job."""
    for job in sorted((JOBS / "new").iterdir()):
        mine = JOBS / "taken" / f"{job.name}.{os.getpid()}"
        try:
            return job.rename(mine)
        except FileNotFoundError:
            continue  # another worker was faster
    return None


def work(job):
    time.sleep(0.02)
    job.write_text(f"{job.read_text()} by {os.getpid()}\n")
    job.rename(JOBS / "done" / job.stem)


def main():
    einhorn.on_stop(None, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
    for name in ("new", "taken", "done"):
        (JOBS / name).mkdir(parents=True, exist_ok=True)
    einhorn.ack()
    while not einhorn.stopping():
        job = take()
        if job is None:
            einhorn.ping(busy=False)
            time.sleep(0.2)
            continue
        einhorn.ping(request_id=job.stem, busy=True)
        work(job)


main()
