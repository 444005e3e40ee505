"""The conformance programs: the same program in each language, sdk/LANGUAGE/tests or, in Go,
sdk/go/conformance. The tests know nothing of the languages; they know this:

PROGRAM               serves HTTP/1.1, one request a connection: on the socket SDK_SOCKET (a number,
                      or a name; 0 by default) or, if none was handed in, on a port of its own, which
                      it prints: "listening on PORT". Unless SDK_ACK_AT is "request", it ACKs as soon
                      as it listens. SIGUSR2: it takes no more, answers what it took, exits with 0.
PROGRAM tell          prints one JSON object: worker, why (it is none), index (-1: none), count (of
                      sockets), fd (the socket SDK_SOCKET; -1: none), error (why there is none), ack,
                      ping, status (were they sent?)

GET /                 {"pid", "index", "worker", "sent": false}
GET /ack              ACKs by SDK_ACK: path, fd, notify, or auto, the default
GET /ping             pings with the request id 100%25 "sure" NEWLINE ü, busy, status "serving"
GET /status           the status is "warming up"
GET /fork             (C, Ruby, Python) forks a child that sends itself SIGUSR2; `sent`: it was told so
GET /slow?FILE        makes FILE.begun, and answers when there is FILE

`sent` is what the library answered: true, false (there is nobody to tell), "error" (it failed).
"""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

from harness.load import connect
from harness.programs import ROOT

SDK = ROOT / "sdk"
BUILD = ROOT / "build" / "sdk"
PING_ID = '100%25 "sure"\nü'


@dataclasses.dataclass(frozen=True)
class Library:
    """A library in one language: how its conformance program is started."""

    name: str
    command: tuple
    env: dict = dataclasses.field(default_factory=dict)

    def environment(self, extra=None):
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **self.env, **(extra or {})}

    def tell(self, extra=None, **kwargs):
        """What `PROGRAM tell` says, run outside any pool."""
        result = subprocess.run(
            [*self.command, "tell"],
            env=self.environment(extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            **kwargs,
        )
        assert result.returncode == 0 and result.stderr == "", result
        return json.loads(result.stdout)


def run(*words, cwd=ROOT, env=None):
    """A step of a build; its output is the failure."""
    result = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout}"
    return result.stdout


GO_ENV = {
    "GOCACHE": str(ROOT / "build" / "go-cache"),
    "GOPATH": str(BUILD / "go-path"),
    "GOPROXY": "off",
    "GOFLAGS": "-mod=mod",
    "GOTOOLCHAIN": "local",
}


@functools.cache
def install_c():
    """The C library and the C++ header, installed; returns pkg-config's words."""
    prefix = BUILD / "prefix"
    run("cmake", "-S", SDK / "c", "-B", BUILD / "c", f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_INSTALL_LIBDIR=lib", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")  # fmt: skip
    run("cmake", "--build", BUILD / "c")
    run("cmake", "--install", BUILD / "c")
    found = run("pkg-config", "--cflags", "--libs", "einhorn-worker",
                env={"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")})  # fmt: skip
    return found.split()


def compile_c(compiler, source, out, flags):
    standard = "-std=gnu11" if compiler == "gcc" else "-std=c++17"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    run(compiler, standard, "-O1", *warnings, source, "-o", out, *flags, "-pthread")


def install_gem():
    """The gem, built and installed as by a user; returns where."""
    home = BUILD / "gems"
    gem = BUILD / "einhorn-worker.gem"
    run("gem", "build", "einhorn-worker.gemspec", "-o", gem, cwd=SDK / "ruby")
    run("gem", "install", "--local", "--no-document", "--force", "-i", home, gem)
    return home


def install_node():
    """What package.json says belongs to the package, under node_modules; returns where."""
    directory = BUILD / "node_modules" / "einhorn-worker"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    package = json.loads((SDK / "node" / "package.json").read_text())
    for name in ["package.json", *package["files"]]:
        shutil.copy(SDK / "node" / name, directory)
    return directory.parent


def build_libraries():
    """Builds and installs every library below build/sdk; returns them by name."""
    BUILD.mkdir(parents=True, exist_ok=True)
    flags = install_c()
    compile_c("gcc", SDK / "c/tests/conformance.c", BUILD / "conformance-c", flags)
    compile_c("g++", SDK / "cpp/tests/conformance.cpp", BUILD / "conformance-cpp", flags)
    run("go", "build", "-o", BUILD / "conformance-go", "./conformance", cwd=SDK / "go", env=GO_ENV)
    gems, modules = install_gem(), install_node()
    shared = {"LD_LIBRARY_PATH": str(BUILD / "prefix" / "lib")}
    libraries = [
        Library("c", (str(BUILD / "conformance-c"),), shared),
        Library("cpp", (str(BUILD / "conformance-cpp"),), shared),
        Library(
            "python",
            ("/usr/bin/python3", "-W", "error", str(SDK / "python/tests/conformance.py")),
            {"PYTHONPATH": str(SDK / "python"), "PYTHONDONTWRITEBYTECODE": "1"},
        ),
        Library(
            "ruby",
            ("/usr/bin/ruby", "-W", str(SDK / "ruby/tests/conformance.rb")),
            {"GEM_PATH": str(gems), "GEM_HOME": str(gems)},
        ),
        Library(
            "node",
            ("/usr/bin/node", str(SDK / "node/tests/conformance.js")),
            {"NODE_PATH": str(modules)},
        ),
        Library("go", (str(BUILD / "conformance-go"),)),
        Library(
            "php",
            ("/usr/bin/php", "-d", "display_errors=stderr", str(SDK / "php/tests/conformance.php")),
            {"SDK_PHP": str(SDK / "php/src")},
        ),
        Library(
            "perl",
            ("/usr/bin/perl", "-w", str(SDK / "perl/tests/conformance.pl")),
            {"PERL5LIB": str(SDK / "perl/lib")},
        ),
    ]
    return {library.name: library for library in libraries}


LANGUAGES = ("c", "cpp", "python", "ruby", "node", "go", "php", "perl")


def request(address, path="/", timeout=20.0):
    """One request; the answer's body."""
    with connect(address, timeout) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while got := stream.recv(65536):
            data += got
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), data
    return body.decode()


def ask(address, path="/"):
    """One request to a conformance program."""
    return json.loads(request(address, path))


def readme_example(language):
    """The first code block of the library's README."""
    text = (SDK / language / "README.md").read_text()
    _, _, rest = text.partition("```" + {"node": "js", "perl": "perl"}.get(language, language) + "\n")
    code, _, _ = rest.partition("\n```")
    assert code, f"sdk/{language}/README.md begins with an example"
    return code + "\n"


def example_command(language, directory, libraries):
    """Makes a program of the README's example; returns its command."""
    library = libraries[language]
    code = readme_example(language)
    suffix = {"c": "c", "cpp": "cpp", "python": "py", "ruby": "rb", "node": "js", "go": "go",
              "php": "php", "perl": "pl"}[language]  # fmt: skip
    source = Path(directory) / f"server.{suffix}"
    source.write_text(code)
    program = Path(directory) / "server"
    if language in ("c", "cpp"):
        compile_c("gcc" if language == "c" else "g++", source, program, install_c())
        return [program]
    if language == "go":
        (source.parent / "go.mod").write_text(
            f"module server\n\ngo 1.19\n\nrequire einhorn v0.1.0\nreplace einhorn => {SDK / 'go'}\n"
        )
        run("go", "build", "-o", program, ".", cwd=source.parent, env=GO_ENV)
        return [program]
    if language == "php":
        (source.parent / "vendor").mkdir()
        (source.parent / "vendor" / "autoload.php").write_text(
            f"<?php require '{SDK}/php/src/EinhornException.php'; require '{SDK}/php/src/Worker.php';\n"
        )
    return [library.command[0], source]
