#!/usr/bin/python3
"""Makes the .deb packages and the tarball; see scripts/package.

    package.py OUT BUILD [--version V]       four packages of what BUILD installs, into OUT
    package.py --tarball OUT BUILD           a tarball of the programs of BUILD, which are static
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAINTAINER = "The Einhorn authors <einhorn@localhost>"

PACKAGES = {
    "einhorn": "shared sockets, many workers, upgrades without a lost connection",
    "einhorn-agent": "dashboard, metrics and health checks of Einhorn pools",
    "libeinhorn-dev": "worker library of Einhorn for C and C++",
    "einhorn-doc": "documents and examples of Einhorn",
}
LONG = {
    "einhorn": "Opens server sockets, runs many copies of a program on them, replaces those that die, and\n"
    " upgrades them without a lost connection. Its master can be killed at any time.",
    "einhorn-agent": "Follows the events of running pools and shows them: as a page, as metrics for Prometheus\n"
    " and StatsD, as health checks for load balancers.",
    "libeinhorn-dev": "What a worker of Einhorn needs: its sockets, ACK, ping, graceful stop. A library with its\n"
    " header for C, a header for C++, pkg-config and CMake files.",
    "einhorn-doc": "Tutorial, reference and explanations, with examples for many servers and supervisors.",
}


def version():
    """The one place that has it."""
    return re.search(r"project\(einhorn VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


def epoch():
    """When this source is from, so that the same source gives the same bytes."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    done = subprocess.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else 1767225600


def run(*words, **kwargs):
    words = [str(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def owner_of(path):
    """Which package a file of the whole installation goes to."""
    text = str(path)
    if "einhorn-agent" in path.name:
        return "einhorn-agent"
    if "/include/" in text or re.search(r"\.(a|pc)$|/cmake/|lib/[^/]*/?libeinhorn-worker", text):
        return "libeinhorn-dev"
    if "/share/doc/einhorn/" in text and path.name not in ("LICENSE", "CHANGELOG.md"):
        return "einhorn-doc"
    return "einhorn"


def compress(path):
    """As Debian wants man pages and changelogs: gzip without a name and a time in it."""
    with open(path, "rb") as file, open(f"{path}.gz", "wb") as out:
        with gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
            shutil.copyfileobj(file, packed)
    path.unlink()


def finish(path):
    """Debug information goes, man pages are packed, modes are as they should be."""
    if path.is_symlink():
        return
    with open(path, "rb") as file:
        magic = file.read(4)
    executable = os.access(path, os.X_OK)
    if magic == b"\x7fELF":
        run("strip", "--strip-unneeded", "--remove-section=.comment", path)
    path.chmod(0o755 if executable and ".so" not in path.name else 0o644)
    if "/man/" in str(path):
        compress(path)


def stage(build, into):
    """The whole installation, as `cmake --install` makes it, and the C library's."""
    environment = {**os.environ, "DESTDIR": str(into)}
    run("cmake", "-DCMAKE_INSTALL_PREFIX=/usr", "-DCMAKE_INSTALL_DOCDIR=share/doc/einhorn", build)
    run("cmake", "--install", build, env=environment)
    # CMake's find_package() gets the archive, so that a worker needs no package where it runs. Of the shared one only the
    # library itself: a file of the same name and second is not installed over the other, so whose it is would be chance.
    for shared, only in (("OFF", []), ("ON", ["--component", "library"])):
        library = build / f"sdk-{shared}"
        run("cmake", "-S", ROOT / "sdk/c", "-B", library, "-DCMAKE_INSTALL_PREFIX=/usr", "-DCMAKE_BUILD_TYPE=Release",
            f"-DBUILD_SHARED_LIBS={shared}", f"-DCMAKE_C_FLAGS=-ffile-prefix-map={ROOT}/=", "-DCMAKE_SHARED_LINKER_FLAGS=-s")
        run("cmake", "--build", library)
        run("cmake", "--install", library, *only, env=environment)
    for path in sorted(into.rglob("*")):
        if path.is_file() and not path.is_symlink():
            finish(path)


def depends(root, package):
    """What the programs in there are linked with."""
    files = [p for p in root.rglob("*") if p.is_file() and not p.is_symlink() and p.read_bytes()[:4] == b"\x7fELF"]
    found = []
    if files:
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "debian").mkdir()
            (Path(scratch) / "debian/control").write_text("Source: einhorn\n\nPackage: x\nArchitecture: any\n")
            said = run("dpkg-shlibdeps", "-O", "--ignore-missing-info", *files, cwd=scratch)
            found = re.search(r"shlibs:Depends=(.*)", said)[1].split(", ")
    if package == "einhorn-agent":
        found.append("einhorn (>= 0.1)")
    return ", ".join(found)


def control(root, package, number):
    architecture = "all" if package == "einhorn-doc" else run("dpkg", "--print-architecture").strip()
    size = sum(p.lstat().st_size for p in root.rglob("*") if p.is_file()) // 1024 + 1
    fields = [
        ("Package", package),
        ("Source", "einhorn" if package != "einhorn" else None),
        ("Version", number),
        ("Architecture", architecture),
        ("Maintainer", MAINTAINER),
        ("Installed-Size", size),
        ("Depends", depends(root, package) or None),
        ("Suggests", "einhorn-agent, einhorn-doc, elfutils" if package == "einhorn" else None),  # elfutils: stacks
        ("Section", {"einhorn-doc": "doc", "libeinhorn-dev": "libdevel"}.get(package, "net")),
        ("Priority", "optional"),
        ("Description", f"{PACKAGES[package]}\n {LONG[package]}"),
    ]
    return "".join(f"{name}: {value}\n" for name, value in fields if value is not None)


def make_packages(out, build, number):
    when = epoch()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        stage(build, whole)
        for path in sorted(whole.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            inside = path.relative_to(whole)
            target = Path(scratch) / owner_of(Path("/") / inside) / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        made = []
        for package in PACKAGES:
            root = Path(scratch) / package
            if not root.exists():
                continue  # not built here
            papers = root / "usr/share/doc" / package
            papers.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "LICENSE", papers / "copyright")
            shutil.copy(ROOT / "CHANGELOG.md", papers / "changelog")
            for name in ("LICENSE", "CHANGELOG.md"):
                (root / "usr/share/doc/einhorn" / name).unlink(missing_ok=True)
            compress(papers / "changelog")
            debian = root / "DEBIAN"
            text = control(root, package, number)
            sums = "".join(
                f"{hashlib.md5(p.read_bytes()).hexdigest()}  {p.relative_to(root)}\n"
                for p in sorted(root.rglob("*"))
                if p.is_file() and not p.is_symlink()
            )
            debian.mkdir()
            (debian / "control").write_text(text)
            (debian / "md5sums").write_text(sums)
            for path in sorted(root.rglob("*")) + [root]:
                if not path.is_symlink():  # whatever the umask is
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
                os.utime(path, (when, when), follow_symlinks=False)
            run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, out,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(when)})
            made.append(package)
    for path in sorted(out.glob("*.deb")):
        print(path)
    return made


def make_tarball(out, build):
    """bin, man pages and completions below einhorn-VERSION/, in one order, with one time."""
    name = f"einhorn-{version()}-linux-{os.uname().machine}"
    when = epoch()
    with tempfile.TemporaryDirectory() as scratch:
        prefix = Path(scratch) / name
        run("cmake", "--install", build, "--prefix", prefix)
        for path in prefix.rglob("*"):
            if path.is_file() and not path.is_symlink():
                finish(path)
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in [prefix, *sorted(prefix.rglob("*"))]:
                info = archive.gettarinfo(path, str(path.relative_to(scratch)))
                info.uid = info.gid = 0
                info.uname = info.gname = "root"
                info.mtime = when
                info.mode = 0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644
                with open(path, "rb") if path.is_file() else io.BytesIO() as file:
                    archive.addfile(info, file if info.isreg() else None)
        target = out / f"{name}.tar.gz"
        with open(target, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            packed.write(raw.getvalue())
        print(target)


def main(arguments):
    if arguments[:1] == ["--tarball"]:
        out, build = map(Path, arguments[1:3])
        out.mkdir(parents=True, exist_ok=True)
        make_tarball(out, build.absolute())
        return
    out, build = map(Path, arguments[:2])
    number = arguments[3] if arguments[2:3] == ["--version"] else version()
    out.mkdir(parents=True, exist_ok=True)
    make_packages(out.absolute(), build.absolute(), number)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
