"""Clean roots of Debian, and what scripts that try things out in them share."""

import os
import subprocess
import time


def mirror(suite):
    """The server that debootstrap is told: $DEBIAN_MIRROR, or where apt itself gets its packages from."""
    if "DEBIAN_MIRROR" in os.environ:
        return os.environ["DEBIAN_MIRROR"]
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    for codename in (suite, ""):
        found = subprocess.run([*words, *([f"Codename: {codename}"] if codename else [])], capture_output=True, text=True)
        if found.stdout.split():
            return found.stdout.split()[0]
    raise SystemExit("apt knows no server of Debian's; name one by DEBIAN_MIRROR")


def run(*words, **kwargs):
    """What a command says; it has to succeed."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        raise SystemExit(f"FAILED: {' '.join(map(str, words))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def make_root(suite, root):
    """The least of a Debian, in an empty directory."""
    run("debootstrap", "--variant=minbase", suite, root, mirror(suite))


def check(holds, what):
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def wait(what, seconds=60, process=None):
    """What `what` says once it says something; `process` has to live until then."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        if process is not None and process.poll() is not None:
            raise SystemExit(f"FAILED: it ended with {process.returncode}")
        if time.monotonic() > end:
            raise SystemExit("FAILED: it did not come in time")
        time.sleep(0.05)
    return answer
