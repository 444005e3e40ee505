#!/usr/bin/python3
"""Builds a Containerfile's stages into directories and runs the last one; see scripts/image-test."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from debian import check, make_root, wait

PROXIES = {k: v for k, v in os.environ.items() if k.lower() in ("http_proxy", "https_proxy", "no_proxy")}


def say(text):
    print(f"==> {text}", flush=True)


def instructions(path):
    """(word, rest) of each instruction; comments and continued lines are dealt with."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


class Stage:
    def __init__(self, root):
        self.root = root
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.user = "root"
        self.stop_signal = signal.SIGTERM
        self.entrypoint, self.command, self.ports = [], [], []


class Builder:
    def __init__(self, source, work):
        self.source, self.work = source, work
        self.stages, self.names = [], {}

    def build(self, path):
        for word, rest in instructions(path):
            say(f"{word} {rest[:90]}")
            getattr(self, word.lower(), self.unknown)(rest)
        return self.stages[-1]

    @staticmethod
    def unknown(rest):
        raise SystemExit(f"an instruction that this script does not know: {rest}")

    @property
    def stage(self):
        return self.stages[-1]

    def bare(self, image):
        """The root of debian:12, made once and copied."""
        name, _, tag = image.rpartition("/")[2].partition(":")
        if name != "debian" or tag.split("-")[0] not in ("12", "bookworm"):
            raise SystemExit(f"no way to make the base {image} here")
        base = self.work / "base"
        if not base.exists():
            make_root("bookworm", base)
        return base

    def from_(self, rest):
        words = rest.split()
        root = self.work / f"stage{len(self.stages)}"
        subprocess.run(["cp", "-a", str(self.bare(words[0])), str(root)], check=True)
        self.stages.append(Stage(root))
        if len(words) == 3 and words[1].upper() == "AS":
            self.names[words[2]] = self.stage

    def run(self, rest):
        resolv = self.stage.root / "etc/resolv.conf"
        shutil.copy("/etc/resolv.conf", resolv)
        inside = f'mount -t proc proc "{self.stage.root}/proc"; exec chroot "{self.stage.root}" /bin/sh -c "$0"'
        environment = {**self.stage.environment, **PROXIES, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", inside, rest]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"RUN {rest}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def copy(self, rest):
        words = rest.split()
        origin = self.source
        if words[0].startswith("--from="):
            origin = self.names[words.pop(0).partition("=")[2]].root
        *names, target = words
        into = self.stage.root / target.lstrip("/")
        if len(names) > 1 or target.endswith("/"):
            into.mkdir(parents=True, exist_ok=True)
        into.parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = origin / name.lstrip("/")
            if path == self.source:  # what git knows of: no build directory
                archive = subprocess.run(
                    f"git -C {shlex.quote(str(path))} ls-files -z | tar -C {shlex.quote(str(path))} --null -T - -c"
                    f" | (mkdir -p {shlex.quote(str(into))} && tar -x -C {shlex.quote(str(into))})",
                    shell=True,
                    check=False,
                )
                if archive.returncode != 0:
                    raise SystemExit(f"COPY {rest}")
            elif path.is_dir():
                shutil.copytree(path, into, dirs_exist_ok=True, symlinks=True)
            else:
                shutil.copy(path, into)

    def env(self, rest):
        self.stage.environment.update(word.split("=", 1) for word in shlex.split(rest))

    def user_(self, rest):
        self.stage.user = rest

    def expose(self, rest):
        self.stage.ports += [int(word) for word in rest.split()]

    def stopsignal(self, rest):
        self.stage.stop_signal = signal.Signals[rest]

    def entrypoint_(self, rest):
        self.stage.entrypoint = json.loads(rest)

    def cmd(self, rest):
        self.stage.command = json.loads(rest)


# Words that Python would not let be names as they are, or that a stage has as a value.
setattr(Builder, "from", Builder.from_)
Builder.user = Builder.user_
Builder.entrypoint = Builder.entrypoint_


class Container:
    """The image as PID 1 of its own pid, mount and network namespace; the root can't be written to."""

    def __init__(self, stage, log):
        root = shlex.quote(str(stage.root))
        script = (
            f"mount --bind {root} {root} && mount -o remount,ro,bind {root} && ip link set lo up && "
            f"mount -t proc proc {root}/proc && mount -t tmpfs tmpfs {root}/run && "
            f"mkdir {root}/run/shop && chown --reference={root}/srv {root}/run/shop && chmod 1777 {root}/run/shop && "
            f'exec chroot --userspec={shlex.quote(stage.user)} {root} "$@"'
        )
        self.stage = stage
        self.log = open(log, "w", encoding="utf-8")
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "sh", "-c", script, "sh"]
            + stage.entrypoint
            + stage.command,
            env=stage.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    @property
    def pid(self):
        """PID 1 of the namespace, as it is called out here; None before it is there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def execute(self, *words):
        """Runs a command in the container; its standard output."""
        command = ["nsenter", "--target", str(self.pid), "--pid", "--net", "--mount", "--root", "--wd", "--", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.stage.environment, timeout=60)

    def get(self):
        code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:%d').read().decode())"
        return self.execute("python3", "-c", code % self.stage.ports[0])

    def end(self, number):
        os.kill(self.pid, number)
        return self.process.wait(60)


def try_out(stage, log):
    container = Container(stage, log)
    try:
        wait(lambda: container.pid and container.get().returncode == 0)
        first = container.get().stdout
        check(first.startswith("hello from "), f"it serves: {first.strip()}")
        state = json.loads(container.execute("einhornsh", "-e", "state json").stdout.splitlines()[-1])
        check(state["guard"] == 1, "Einhorn is PID 1")
        upgraded = container.execute("einhornsh", "-e", "upgrade")
        check(upgraded.returncode == 0, "an upgrade by `exec einhornsh`")
        container.execute("sh", "-c", f"kill -9 {json.loads(container.execute('einhornsh', '-e', 'state json').stdout.splitlines()[-1])['master']}")
        wait(lambda: container.execute("einhornsh", "-e", "state json").returncode == 0)
        check(container.get().returncode == 0, "the master is killed, and it serves on")
        check(container.end(stage.stop_signal) == 0, f"{stage.stop_signal.name} ends it with status 0")
    finally:
        if container.process.poll() is None:
            container.process.kill()
            container.process.wait()
        container.log.close()


def main(root, *arguments):
    keep = Path(arguments[1]).absolute() if arguments[:1] == ("--keep",) else None
    work = Path(tempfile.mkdtemp(prefix="einhorn-image-"))
    try:
        builder = Builder(Path(root), work)
        stage = builder.build(Path(root) / "examples/container/Containerfile")
        size = subprocess.run(["du", "-sm", str(stage.root)], capture_output=True, text=True).stdout.split()[0]
        say(f"built, {size} MB")
        try:
            try_out(stage, work / "log")
        except BaseException:
            print((work / "log").read_text() if (work / "log").exists() else "")
            raise
        if keep:
            shutil.move(str(stage.root), str(keep))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("image-test: all ok")


main(*sys.argv[1:])
