#!/usr/bin/env python3
"""Shows that check_structure.py can fail: plants one violation at a time in a small, clean tree.

  self_test.py [--compiler CXX] [--nm NM] [--ar AR]
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

CHECKER = pathlib.Path(__file__).resolve().parent / "check_structure.py"

CLEAN = {
    "src/base/ids.h": "#pragma once\nnamespace e { using Id = int; }\n",
    "src/base/check.cpp": (
        '#include <cstdio>\n#include <cstdlib>\nnamespace e { void fail(const char* what) {\n'
        '  std::fprintf(stderr, "%s\\n", what);\n  std::abort();\n} }\n'
    ),
    "src/pool/pool.h": '#pragma once\n#include "base/ids.h"\nnamespace e { Id next(Id id); }\n',
    "src/pool/pool.cpp": (
        '#include "pool/pool.h"\n\n#include <cstring>\n#include <string>\nnamespace e {\n'
        "// A comment may say steady_clock and ::read(x), and so may a text.\n"
        'Id next(Id id) { return id + static_cast<Id>(std::string("::read(1)").size()) + 1\'000; }\n'
        "}  // namespace e\n"
    ),
    "src/wire/line.h": '#pragma once\n#include "base/ids.h"\n#include "pool/pool.h"\n',
    "src/wire/line.cpp": '#include "wire/line.h"\nnamespace e { Id line(Id id) { return next(id); } }\n',
    "src/os/clock.cpp": "#include <time.h>\nlong now() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec; }\n",
    "src/master/loop.cpp": '#include "wire/line.h"\n',
    "README.md": "[here](docs/index.md) `[not](a-link)`\n",
    "CHANGELOG.md": "x\n",
    "CONTRIBUTING.md": "x\n",
    "docs/index.md": "[up](../README.md#x)\n",
    "bin/einhorn": "#!/bin/sh\necho '    -n, --number N    how many'\n",
    "bin/einhornsh": "#!/bin/sh\necho '        --json    in JSON' >&2\n",
    "docs/command-line.md": "`--number`, `--json`\n",
    "docs/man/einhorn.1": ".TH X 1\n.SH NAME\nx \\- a page\n.SH OPTIONS\n.B \\-\\-number\n",
    "docs/man/einhornsh.1": ".TH X 1\n.SH NAME\nx \\- a page\n.SH OPTIONS\n.B \\-\\-json\n",
    "bin/einhorn-agent": "#!/bin/sh\necho '        --all    all'\n",
    "docs/agent.md": "`--all`\n",
    "docs/man/einhorn-agent.1": ".TH X 1\n.SH NAME\nx \\- a page\n.SH OPTIONS\n.B \\-\\-all\n",
    "docs/man/x.1": ".TH X 1\n.SH NAME\nx \\- a page\n",
}

# (name, check, file, text that is added to it, words that must be in the answer)
VIOLATIONS = [
    ("an include that points up", "sources", "src/wire/line.cpp",
     '#include "master/loop.h"\n', "an arrow only ever points down|is pure and may not include master"),
    ("an include on the same floor", "sources", "src/master/loop.cpp",
     '#include "guard/guard.h"\n', "an arrow only ever points down"),
    ("a pure room that includes the kernel's", "sources", "src/wire/line.cpp",
     '#include "os/clock.h"\n', "is pure and may not include os"),
    ("a header of system calls", "sources", "src/pool/pool.cpp",
     "#include <unistd.h>\n", "may not include <unistd.h>"),
    ("a header below sys/", "sources", "src/base/ids.h",
     "#include <sys/socket.h>\n", "may not include <sys/socket.h>"),
    ("a header named without its room", "sources", "src/pool/pool.cpp",
     '#include "pool.h"\n', "room/file.h"),
    ("a clock", "sources", "src/pool/pool.cpp",
     "inline auto late() { return std::chrono::steady_clock::now(); }\n", "may not read a clock"),
    ("a clock in the master", "sources", "src/master/loop.cpp",
     "inline long late() { timespec t; clock_gettime(0, &t); return t.tv_sec; }\n", "may not read a clock"),
    ("a system call by name", "sources", "src/wire/line.cpp",
     "inline void say(int fd) { ::write(fd, 0, 0); }\n", "may not name ::write("),
    ("a room that is not in the table", "sources", "src/attic/box.cpp", "int box;\n", "is no room"),
    ("a file that is too long", "sources", "src/os/clock.cpp", "\n" * 800, "the most is 700"),
    ("a promise", "sources", "src/os/clock.cpp", "// TO" + "DO: later\n", "TODO"),
    ("a header without its guard", "sources", "src/os/bare.h", "int bare;\n", "#pragma once"),
    ("a system call among the symbols", "symbols", "src/pool/pool.cpp",
     'extern "C" long read(int, void*, unsigned long);\n'
     "long peek(int fd, void* to) { return read(fd, to, 1); }\n", "pool.cpp: calls read"),
    ("a clock among the symbols", "symbols", "src/wire/line.cpp",
     "#include <chrono>\nlong late() { return std::chrono::steady_clock::now().time_since_epoch().count(); }\n",
     "calls _ZNSt6chrono"),
    ("printing from where nothing may be said", "symbols", "src/wire/line.cpp",
     '#include <cstdio>\nvoid say() { std::puts("x"); }\n', "line.cpp: calls puts"),
    ("a header that leans on another", "headers", "src/pool/pool.h",
     "inline std::string name() { return {}; }\n", "does not compile alone"),
    ("a link that leads nowhere", "documents", "docs/index.md", "[x](gone.md)\n", "leads nowhere"),
    ("a document that is named and missing", "documents", "src/os/clock.cpp",
     "// See docs/gone.md.\n", "there is no docs/gone.md"),
    ("a function that is gone", "documents", "docs/contributing/house.md",
     "`Gone::by_now` is in `src/os/clock.cpp`.\n", "nothing in src is called by_now"),
    ("a file that is gone", "documents", "docs/adr/0001-x.md", "See `src/os/gone.h`.\n", "there is no src/os/gone.h"),
    ("an option that no document names", "options", "bin/einhorn",
     "echo '        --secret    hm'\n", "docs/man/einhorn.1: einhorn's option --secret is missing"),
    ("a man page that groff does not like", "documents", "docs/man/x.1", ".NOSUCHMACRO x\n", "x.1"),
]


class Tree:
    def __init__(self, root, tools):
        self.root, self.tools = root, tools
        for name, text in CLEAN.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)

    def build_archives(self):
        lib = self.root / "lib"
        lib.mkdir(exist_ok=True)
        for room in ("base", "pool", "wire"):
            objects = []
            for source in sorted((self.root / "src" / room).glob("*.cpp")):
                target = lib / (source.name + ".o")
                subprocess.run(
                    [self.tools.compiler, "-std=c++20", "-O2", "-c", f"-I{self.root / 'src'}",
                     str(source), "-o", str(target)],
                    check=True,
                )
                objects.append(str(target))
            archive = lib / f"libeinhorn_{room}.a"
            archive.unlink(missing_ok=True)
            subprocess.run([self.tools.ar, "qc", str(archive), *objects], check=True)
        return lib

    def check(self, name):
        command = [sys.executable, str(CHECKER), name, "--root", str(self.root),
                   "--compiler", self.tools.compiler, "--nm", self.tools.nm]
        if name == "options":
            command += ["--bin-dir", str(self.root / "bin")]
        if name == "symbols":
            command += ["--lib-dir", str(self.build_archives())]
        return subprocess.run(command, capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--ar", default="ar")
    tools = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory(prefix="einhorn-structure-") as scratch:
        clean = Tree(pathlib.Path(scratch) / "clean", tools)
        for name in ("sources", "symbols", "headers", "documents", "options"):
            result = clean.check(name)
            if result.returncode != 0:
                wrong.append(f"{name} finds fault with a clean tree:\n{result.stdout}{result.stderr}")
        for number, (name, check, file, text, answer) in enumerate(VIOLATIONS):
            tree = Tree(pathlib.Path(scratch) / str(number), tools)
            path = tree.root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as out:
                out.write(text)
            result = tree.check(check)
            found = any(words in result.stdout for words in answer.split("|"))
            if result.returncode != 1 or not found:
                wrong.append(f"{name}: not found ({check}):\n{result.stdout}{result.stderr}")
    for line in wrong:
        print(line)
    print(f"{len(VIOLATIONS)} violations planted, {len(wrong)} surprises")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
