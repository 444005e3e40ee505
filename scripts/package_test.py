#!/usr/bin/python3
"""Packages in a clean root; see scripts/package-test."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from debian import check, make_root, run, wait

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from harness.load import Load, http_get  # noqa: E402

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def clean_root(suite, root):
    print(f"==> debootstrap {suite}", flush=True)
    make_root(suite, root)
    run("mount", "-t", "proc", "proc", Path(root) / "proc")


def inside(root, *words, check_it=True):
    done = subprocess.run(["chroot", str(root), *map(str, words)], env=ENV, capture_output=True, text=True)
    if check_it and done.returncode != 0:
        raise SystemExit(f"FAILED: {words}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def files_of(root):
    """Every path below a root but those of apt and dpkg's own books, and what is mounted."""
    skipped = re.compile(r"^/(proc|sys|dev|tmp|var/lib/dpkg|var/cache|var/lib/apt|var/log|root)(/|$)")
    found = set()
    for folder, folders, files in os.walk(root):
        here = "/" + os.path.relpath(folder, root).removeprefix(".")
        here = here.replace("//", "/")
        folders[:] = [name for name in folders if not skipped.match(f"{here.rstrip('/')}/{name}")]
        found |= {f"{here.rstrip('/')}/{name}" for name in files + folders}
    return found


def newer(debs, scratch):
    """The same packages as the next version: with programs whose bytes differ, as they would."""
    out = Path(scratch) / "next"
    out.mkdir()
    for deb in debs:
        tree = Path(scratch) / f"tree-{deb.name}"
        run("dpkg-deb", "-R", deb, tree)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(), flags=re.MULTILINE))
        for program in (tree / "usr/bin").glob("*") if (tree / "usr/bin").exists() else []:
            section = Path(scratch) / "section"
            section.write_text("next\n")
            run("objcopy", f"--add-section=.next={section}", program)
        shutil.rmtree(tree / "DEBIAN/md5sums", ignore_errors=True)
        run("dpkg-deb", "--root-owner-group", "-b", tree, out)
    return sorted(out.glob("*.deb"))


def contents(debs):
    """What is in them, without installing anything."""
    names = {}
    for deb in debs:
        package = run("dpkg-deb", "-f", deb, "Package").strip()
        names[package] = run("dpkg-deb", "-c", deb)
        check("Maintainer" in run("dpkg-deb", "-I", deb), f"{package} says what it is")
    wanted = {
        "einhorn": ["/usr/bin/einhorn\n", "/usr/bin/einhornsh\n", "/lib/einhorn/libeinhorn-intercept.so\n", "/man1/einhorn.1.gz", "/bash-completion/completions/einhorn\n",
                    "/site-functions/_einhorn\n", "/vendor_completions.d/einhorn.fish", "/doc/einhorn/copyright"],
        "libeinhorn-dev": ["/include/einhorn/worker.h", "/include/einhorn/worker.hpp", "einhorn-worker.pc", "libeinhorn-worker.a"],
        "einhorn-doc": ["/doc/einhorn/docs/index.md", "/doc/einhorn/README.md", "/doc/einhorn/examples/systemd/shop.service"],
    }
    if "einhorn-agent" in names:
        wanted["einhorn-agent"] = ["/usr/bin/einhorn-agent\n"]
    for package, pieces in wanted.items():
        for piece in pieces:
            check(piece in names[package], f"{package} has {piece.strip()}")
    everything = [line.split()[5] for text in names.values() for line in text.splitlines() if not line.startswith("d")]
    check(len(everything) == len(set(everything)), "no file is in two packages")
    modes = {line.split()[0] for text in names.values() for line in text.splitlines()}
    check(modes <= {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}, f"everybody may read everything: {' '.join(sorted(modes))}")


# What a program may need at most of the system's C library; none: nothing at all.
NEEDS = {"einhorn": None, "einhornsh": None, "einhorn-agent": None, "einhorn-preload": (2, 34), "libeinhorn-intercept.so": (2, 14)}


def tarball_contents(tarball, scratch):
    """Its programs need no other library, and what is loaded into others runs on C libraries of many years."""
    run("tar", "-xzf", tarball, "-C", scratch)
    (prefix,) = Path(scratch).iterdir()
    found = sorted([*prefix.glob("bin/*"), *prefix.glob("lib/einhorn/*")])
    check({path.name for path in found} == set(NEEDS), f"the tarball has {', '.join(sorted(NEEDS))}")
    for path in found:
        dynamic = run("readelf", "--dynamic", "--program-headers", "--dyn-syms", "--wide", path)
        libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        versions = [tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([\d.]+)", dynamic)]
        if NEEDS[path.name] is None:
            check(not libraries and not versions and "INTERP" not in dynamic, f"{path.name} needs no library")
        else:
            most = max(versions)
            check(most <= NEEDS[path.name], f"{path.name} needs GLIBC_{'.'.join(map(str, most))}")
    for page in sorted(prefix.glob("share/man/man?/*.gz")):
        check(page.stat().st_size > 500, f"the tarball has {page.stem}")


OWN_SOCKET = r"""use Socket; $| = 1;
socket(my $server, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($server, pack_sockaddr_in(9999, INADDR_LOOPBACK)) or die "bind: $!";
listen($server, 100) or die "listen: $!";
while (1) {
  accept(my $client, $server) or next;
  sysread($client, my $request, 4096);
  my $body = "{\"pid\": $$}";
  syswrite($client, "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body");
  close($client);
}
"""


def static_server(scratch):
    """The tests' server, for any system."""
    target = Path(scratch) / "server"
    run("g++", "-std=c++20", "-O1", "-static", "-I", ROOT / "src", "-o", target, ROOT / "tests/workers/http_worker.cpp")
    return target


POOLS = []


class Pool:
    """A pool in the root, started as its users would."""

    def __init__(self, root, server, program="/usr/bin/einhorn", options=("-m", "manual", "-b", "127.0.0.1:0")):
        self.root = root
        (Path(root) / "srv").mkdir(exist_ok=True)
        shutil.copy(server, Path(root) / "srv/server")
        self.log = open(Path(root) / "srv/log", "w", encoding="utf-8")
        behind = [] if "--" in options else ["--", "/srv/server", "--ack=path"]
        command = [program, "-n", "3", *options, *behind]
        self.process = subprocess.Popen(["chroot", str(root), *command], env=ENV, stdin=subprocess.DEVNULL, stderr=self.log)
        POOLS.append(self)
        self.shell_program = os.path.join(os.path.dirname(program), "einhornsh")
        wait(lambda: [w["state"] for w in (self.state() or {"workers": []})["workers"]] == ["ready"] * 3, process=self.process)

    def shell(self, command):
        return inside(self.root, self.shell_program, "-e", command, check_it=False)

    def state(self):
        done = self.shell("state json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def address(self):
        return self.state()["sockets"][0]["address"]

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.log.close()
        return code


def test_packages(debs, server, scratch):
    root = Path(scratch) / "root"
    clean_root("bookworm", root)
    before = files_of(root)
    (root / "tmp/debs").mkdir()
    needed = sorted({d.split()[0] for deb in debs for d in run("dpkg-deb", "-f", deb, "Depends").split(",") if d.strip()} - {"einhorn"})
    missing = [name for name in needed if inside(root, "dpkg", "-s", name, check_it=False).returncode]
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    if missing:
        inside(root, "apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
        before = files_of(root)
    for deb in debs:
        shutil.copy(deb, root / "tmp/debs")
    inside(root, "sh", "-c", "dpkg -i /tmp/debs/*.deb")
    check(inside(root, "einhorn", "--version").stdout.strip() != "", "installed, and it runs")
    pool = Pool(root, server)
    load = Load(pool.address(), scratch, connections=16, rate=500)
    load.wait_ok(100)
    old = pool.state()
    shutil.rmtree(root / "tmp/debs")
    (root / "tmp/debs").mkdir()
    for deb in newer(debs, scratch):
        shutil.copy(deb, root / "tmp/debs")
    inside(root, "sh", "-c", "dpkg -i /tmp/debs/*.deb")
    check([w["pid"] for w in pool.state()["workers"]] == [w["pid"] for w in old["workers"]], "packages upgraded: the pool did not notice")
    load.wait_more(100)
    check(pool.shell("upgrade").returncode == 0, "the pool upgraded with the new programs")
    guard = old["guard"]
    program = os.stat(root / "usr/bin/einhorn").st_ino
    wait(lambda: os.stat(f"/proc/{guard}/exe").st_ino == program and os.stat(f"/proc/{pool.state()['master']}/exe").st_ino == program)
    check(pool.state()["guard"] == guard, "guard and master run the new program, in the same pid")
    load.wait_more(100)
    result = load.stop()
    check(result["failures"] == 0, f"{result['ok']} requests answered, {result['failures']} lost")
    check(pool.end() == 0, "stopped")
    packages = [run("dpkg-deb", "-f", deb, "Package").strip() for deb in debs]
    inside(root, "dpkg", "--purge", *packages)
    shutil.rmtree(root / "srv")
    left = {path for path in files_of(root) - before if path != "/srv"}
    check(not left, f"purged without a trace {sorted(left)[:5] if left else ''}")


def test_tarball(tarball, server, scratch):
    root = Path(scratch) / "older"
    clean_root("bullseye", root)
    run("tar", "-xzf", tarball, "-C", root / "opt")
    (name,) = [path.name for path in (root / "opt").iterdir()]
    glibc = inside(root, "ldd", "--version").stdout.split("\n")[0].split()[-1]
    program = f"/opt/{name}/bin/einhorn"
    pool = Pool(root, server, program)
    check(http_get(pool.address())["pid"] > 0, f"the tarball's program serves on glibc {glibc}")
    check(pool.shell("upgrade").returncode == 0, "and upgrades")
    check(pool.end() == 0, "and stops")
    (root / "srv/own.pl").write_text(OWN_SOCKET)
    options = ["--intercept=preload", "--intercept", "9999=web", "-b", "127.0.0.1:0,name=web", "--", "perl", "/srv/own.pl"]
    pool = Pool(root, server, program, options)
    pids = {worker["pid"] for worker in pool.state()["workers"]}
    check(http_get(pool.address())["pid"] in pids, f"and its library is loaded into a program of glibc {glibc}, which shares the socket")
    check(pool.end() == 0, "and stops")
    done = inside(root, f"/opt/{name}/bin/einhorn-agent", "--history", "postgresql://nobody@127.0.0.1/x", "history", "events", check_it=False)
    check(done.returncode == 1 and "built without PostgreSQL" in done.stderr, "its agent says that it has no PostgreSQL")
    done = inside(root, program, "-b", "localhost:0", "--", "/nonexistent", check_it=False)
    check("there is no /nonexistent" in done.stderr, "and looks names up")


def main(dist, *arguments):
    dist = Path(dist)
    debs = sorted(dist.glob("*.deb"))
    contents(debs)
    tarball = next(dist.glob("*.tar.gz"))
    with tempfile.TemporaryDirectory(prefix="einhorn-tarball-") as scratch:
        tarball_contents(tarball, scratch)
    if "--short" not in arguments:
        with tempfile.TemporaryDirectory(prefix="einhorn-packages-") as scratch:
            try:
                server = static_server(scratch)
                if "--tarball" not in arguments:
                    test_packages(debs, server, scratch)
                if "--packages" not in arguments:
                    test_tarball(tarball, server, scratch)
            finally:
                for pool in POOLS:
                    if pool.process.poll() is None:
                        pool.end()
                for mounted in Path(scratch).glob("*/proc"):
                    subprocess.run(["umount", "--lazy", mounted], check=False)
    print("package-test: all ok")


main(*sys.argv[1:])
