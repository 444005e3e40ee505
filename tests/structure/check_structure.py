#!/usr/bin/env python3
"""Holds the sources against the shape of the house (docs/architecture.md).

  check_structure.py sources   --root DIR                      includes, names, sizes
  check_structure.py symbols   --root DIR --lib-dir DIR        what the pure archives call
  check_structure.py headers   --root DIR [--compiler CXX]     every header compiles alone, twice
  check_structure.py documents --root DIR                      links between documents, man pages
  check_structure.py options   --root DIR --bin-dir DIR        every option is in its documents

Prints one line for every violation, "path:line: what", and ends with 1 if there is any.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

# --- the table ---------------------------------------------------------------------------------
# A room may include itself and rooms of a lower floor.
FLOORS = {
    "base": 0,
    "os": 1,
    "interposed": 1,
    "pool": 1,
    "wire": 2,
    "master": 3,
    "guard": 3,
    "intercept": 3,
    "capture": 3,
    "probe": 3,
    "client": 3,
    "shell": 4,
    "agent": 4,
    "programs": 5,
}
# Rooms that make no system call and read no clock; they may include only each other.
PURE = {"base", "pool", "wire"}
# Rooms that may read a clock. The master's time comes from its Kernel, once a turn, so that all of
# it runs in simulation; guard, client and agent live in processes of their own and wait by
# themselves.
CLOCK_ROOMS = {"os", "guard", "client", "agent", "probe", "programs"}
MOST_LINES = 700

# Headers that a pure room has no business with.
IMPURE_HEADER = re.compile(
    r"^(sys/.*|linux/.*|asm/.*|net/.*|netinet/.*|arpa/.*|bits/.*|unistd\.h|fcntl\.h|time\.h|ctime"
    r"|signal\.h|poll\.h|netdb\.h|pthread\.h|sched\.h|spawn\.h|dirent\.h|pwd\.h|grp\.h"
    r"|syslog\.h|termios\.h|ucontext\.h|setjmp\.h|csetjmp|fstream|iostream|filesystem|thread"
    r"|mutex|shared_mutex|condition_variable|future|stop_token|semaphore|latch|barrier)$"
)
CLOCK_NAME = re.compile(
    r"\b(?:system_clock|steady_clock|high_resolution_clock|utc_clock|tai_clock|gps_clock"
    r"|file_clock|clock_gettime|gettimeofday|timespec_get|clock_nanosleep|nanosleep|usleep"
    r"|sleep_for|sleep_until|localtime|localtime_r|CLOCK_MONOTONIC|CLOCK_REALTIME"
    r"|CLOCK_BOOTTIME)\b|(?<![\w.>])(?:::|std::)(?:time|clock|sleep)\s*\("
)
SYSTEM_CALL_NAMES = (
    "accept accept4 access bind chdir chmod chown clone clone3 close connect dup dup2 dup3 "
    "epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd execv execve execvp execvpe exit _exit "
    "fchmod fchown fcntl flock fopen fork fread fstat fsync ftruncate fwrite getenv getpid getppid "
    "getpriority getrandom getrlimit getsockname getsockopt getuid ioctl kill killpg link listen "
    "lseek lstat memfd_create mkdir mmap mprotect munmap open openat opendir pidfd_open "
    "pidfd_send_signal pipe pipe2 poll posix_spawn ppoll prctl pread pselect putenv pwrite raise "
    "random read readdir readlink readv recv recvfrom recvmsg remove rename rmdir secure_getenv "
    "select send sendfile sendmsg sendto setenv setpgid setpriority setrlimit setsid setsockopt "
    "shutdown sigaction signal signalfd sigprocmask socket socketpair stat symlink syscall system "
    "tgkill timerfd_create timerfd_settime umask unlink unlinkat unsetenv vfork wait waitid "
    "waitpid write writev"
)
# Called as `::read(...)`; plain `read(...)` may be a function of ours, the archive's symbols tell.
SYSTEM_CALL = re.compile(
    r"(?<![\w>])::(?:" + "|".join(SYSTEM_CALL_NAMES.split()) + r")\s*\("
    r"|\b(?:std::getenv|std::random_device|std::this_thread|SYS_\w+|environ)\b"
)
PROMISE = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")

# C functions that a pure archive may call: they compute, and touch nothing but memory.
PURE_C = re.compile(
    r"^(?:_GLOBAL_OFFSET_TABLE_|_?_?errno_location|__stack_chk_fail|__dso_handle|__tls_get_addr"
    r"|__cxa_\w+|__gxx_personality_v0|_Unwind_Resume|__asan_\w+|__ubsan_\w+|__sanitizer_\w+"
    r"|__lsan_\w+|__gcov_\w+|abort|__assert_fail"
    r"|(?:__)?(?:bcmp|mem\w+|str\w+|stp\w+|wcs\w+|wmem\w+|rawmemchr)(?:_chk)?|__isoc\d+_(?:str\w+|v?sscanf)"
    r"|v?sn?printf|__v?sn?printf_chk|v?sscanf|is\w+|to(?:upper|lower)|__ctype_\w+"
    r"|ato[ifl]+|l?l?abs|l?l?div|qsort|bsearch|malloc|calloc|realloc|free"
    r"|f?(?:loor|ceil|abs|max|min|mod)[fl]?|(?:l?l?round|trunc|l?l?rint|nearbyint|pow|exp\w*|log\w*"
    r"|sqrt|cbrt|hypot|fma|ldexp|frexp|modf|scalbn|nextafter|copysign|lround|llround|remainder"
    r"|sin|cos|tan|isnan|isinf|finite|__fpclassify|__isnan|__isinf|__finite|__signbit)[fl]?"
    r"|__[a-z]+[dstx]i[234]|yaml_\w+|localeconv|timegm|gmtime_r)$"
)
# C++ symbols, mangled, that a pure archive must not call.
IMPURE_CXX = re.compile(
    r"_clock3nowEv|^_ZSt4cout|^_ZSt4cerr|^_ZSt4clog|^_ZSt3cin|basic_(?:i|o)?fstream|basic_filebuf"
    r"|^_ZNSt6thread|^_ZNSt13random_device|^_ZNSt10filesystem|^_ZNKSt10filesystem"
    r"|condition_variable|__sleep_for"
)
# What one file may do that its room may not: to say which check failed, and to die.
EXCEPTIONS = {"check.cpp": re.compile(r"^(?:stderr|__?fprintf(?:_chk)?|fputs|fputc|fwrite|fflush|fprintf)$")}


def strip_comments_and_strings(text):
    """The text with comments and the insides of literals blanked; line numbers stay."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"([^()\\ ]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
        re.DOTALL,
    )

    def blank(match):
        found = match.group(0)
        if found.startswith(("//", "/*")):
            return re.sub(r"[^\n]", " ", found)
        # A digit separator (1'000'000) is no literal.
        if found.startswith("'") and match.start() and text[match.start() - 1].isalnum():
            return found
        return found[0] + re.sub(r"[^\n]", " ", found[1:-1]) + found[-1]

    return pattern.sub(blank, text)


def source_files(root):
    directory = root / "src"
    return sorted(p for p in directory.rglob("*") if p.suffix in (".h", ".cpp", ".c", ".cc", ".hpp"))


def room_of(root, path):
    return path.relative_to(root / "src").parts[0]


def check_includes(where, room, text):
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        kind, target = match.groups()
        if kind == "<":
            if room in PURE and IMPURE_HEADER.match(target):
                yield f"{where}:{number}: {room} is pure and may not include <{target}>"
            continue
        other = target.split("/")[0]
        if "/" not in target or other not in FLOORS:
            yield f'{where}:{number}: "{target}" must be written as "room/file.h"'
        elif other == room:
            continue
        elif room in PURE and other not in PURE:
            yield f"{where}:{number}: {room} is pure and may not include {other}, which is not"
        elif FLOORS[other] >= FLOORS[room]:
            yield (
                f"{where}:{number}: {room} (floor {FLOORS[room]}) may not include {other} "
                f"(floor {FLOORS[other]}): an arrow only ever points down"
            )


def check_names(where, room, code):
    for number, line in enumerate(code.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        if room not in CLOCK_ROOMS and (match := CLOCK_NAME.search(line)):
            yield f"{where}:{number}: {room} may not read a clock or sleep ({match.group(0)})"
        if room in PURE and (match := SYSTEM_CALL.search(line)):
            yield f"{where}:{number}: {room} is pure and may not name {match.group(0)}"


def check_sources(root):
    files = source_files(root)
    if not files:
        yield f"{root}/src: no sources found"
    for path in files:
        where = path.relative_to(root)
        room = room_of(root, path)
        text = path.read_text(encoding="utf-8")
        if room not in FLOORS:
            yield f"{where}:1: src/{room} is no room; the table of floors stands in tests/structure"
            continue
        # Include names are literals, so they are read before the literals are blanked.
        without_comments = re.sub(r"//[^\n]*", "", text)
        yield from check_includes(where, room, without_comments)
        yield from check_names(where, room, strip_comments_and_strings(text))
        lines = text.splitlines()
        if len(lines) > MOST_LINES:
            yield f"{where}:{MOST_LINES + 1}: {len(lines)} lines; the most is {MOST_LINES}"
        if path.suffix == ".h" and "#pragma once" not in text:
            yield f"{where}:1: a header begins with #pragma once"
        for number, line in enumerate(lines, 1):
            if match := PROMISE.search(line):
                yield f"{where}:{number}: {match.group(0)}: what is not done is not written down here"


def undefined_symbols(nm, archive):
    """(object file, symbol) of every undefined symbol of an archive."""
    result = subprocess.run(
        [nm, "--undefined-only", "--print-file-name", str(archive)],
        check=True, capture_output=True, text=True,
    )
    for line in result.stdout.splitlines():
        place, _, rest = line.rpartition(":")
        words = rest.split()
        # "w" and "v" are weak references, as those to pthread functions in headers of the library.
        if len(words) == 2 and words[0] == "U":
            yield place.rsplit(":", 1)[-1], words[1]


def check_symbols(lib_dir, nm):
    for room in sorted(PURE):
        archive = lib_dir / f"libeinhorn_{room}.a"
        if not archive.exists():
            yield f"{archive}: not there"
            continue
        for member, symbol in sorted(set(undefined_symbols(nm, archive))):
            source = member.removesuffix(".o")
            exception = EXCEPTIONS.get(source) if room == "base" else None
            plain = symbol.split("@")[0]
            if plain.startswith("_Z"):
                if IMPURE_CXX.search(plain):
                    yield f"{archive.name}:{source}: calls {plain}"
            elif not PURE_C.match(plain) and not (exception and exception.match(plain)):
                yield (
                    f"{archive.name}:{source}: calls {plain}, which is not in the list of functions "
                    "that only compute"
                )


def check_headers(root, compiler):
    headers = [p for p in source_files(root) if p.suffix == ".h"]
    if not headers:
        yield f"{root}/src: no headers found"

    def compile_alone(path):
        name = path.relative_to(root / "src")
        # Twice, so that the guard against a second inclusion is tried as well.
        result = subprocess.run(
            [compiler, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
             '-DEINHORN_VERSION="0"', f"-I{root / 'src'}", "-x", "c++", "-"],
            input=f'#include "{name}"\n#include "{name}"\n', capture_output=True, text=True,
        )
        if result.returncode != 0:
            first = next((l for l in result.stderr.splitlines() if "error" in l), result.stderr[:300])
            return f"src/{name}:1: does not compile alone: {first}"
        return None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(compile_alone, headers))


def check_links(root):
    documents = [root / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    documents += sorted((root / "docs").rglob("*.md"))
    for path in documents:
        where = path.relative_to(root)
        if not path.exists():
            yield f"{where}: not there"
            continue
        # Examples in code blocks hold no links.
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            if not (path.parent / target.split("#")[0]).exists():
                yield f"{where}: the link to {target} leads nowhere"


def check_mentions(root):
    """Documents that a source names must be there."""
    for path in source_files(root):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for name in re.findall(r"\bdocs/[\w./-]+\.md\b", line):
                if not (root / name).exists():
                    yield f"{path.relative_to(root)}:{number}: there is no {name}"


def check_document_names(root):
    """Functions and files that those who carry on are sent to must be there."""
    sources = "".join(path.read_text(encoding="utf-8") for path in source_files(root))
    for path in sorted([*(root / "docs").glob("contributing/*.md"), *(root / "docs").glob("adr/*.md"), *(root / "docs").glob("architecture.md")]):
        for code in re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8")):
            for name in re.findall(r"\b[A-Z]\w+::(\w+)", code):
                if not name.startswith("my_") and not re.search(rf"\b{name}\b", sources):
                    yield f"{path.relative_to(root)}: {code}: nothing in src is called {name}"
            for name in re.findall(r"\b(?:src|tests|scripts|bench|examples|sdk|cmake)/[\w./-]*\w", code):
                if not re.search(r"[A-Z]{4}", name) and not (root / name).exists():
                    yield f"{path.relative_to(root)}: there is no {name}"


def check_man_pages(root):
    man = shutil.which("man")
    for page in sorted((root / "docs" / "man").glob("*.[1-8]")):
        where = page.relative_to(root)
        if man is None:
            print(f"{where}: not checked, there is no man (package man-db)")
            continue
        result = subprocess.run(
            [man, "--warnings", "--local-file", "--encoding=UTF-8", "--troff-device=utf8",
             "--ditroff", str(page)],
            capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        if result.returncode != 0 or result.stderr.strip():
            yield f"{where}: {result.stderr.strip() or 'man failed'}"


def check_documents(root):
    yield from check_links(root)
    yield from check_mentions(root)
    yield from check_document_names(root)
    yield from check_man_pages(root)


# Program: the documents that must name each of its options.
OPTION_DOCUMENTS = {
    "einhorn": ("docs/command-line.md", "docs/man/einhorn.1"),
    "einhornsh": ("docs/command-line.md", "docs/man/einhornsh.1"),
    "einhorn-agent": ("docs/agent.md", "docs/man/einhorn-agent.1"),
}


def check_options(root, bin_dir):
    for program, documents in OPTION_DOCUMENTS.items():
        # Both print their usage and end with 1: one to standard output, the other to standard error.
        result = subprocess.run([bin_dir / program, "-h"], capture_output=True, text=True, timeout=20)
        options = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", result.stdout + result.stderr, re.MULTILINE))
        if not options:
            yield f"{program} -h: no options found"
        for name in documents:
            path = root / name
            # In man pages a hyphen that is meant as one is written `\\-`, or by the macro `Fl`.
            text = path.read_text(encoding="utf-8").replace("\\-", "-") if path.exists() else ""
            for option in sorted(options):
                if not re.search(rf"(?:{option}|Fl -{option[2:]})(?![\w-])", text):
                    yield f"{name}: {program}'s option {option} is missing"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("check", choices=["sources", "symbols", "headers", "documents", "options"])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--lib-dir", type=pathlib.Path)
    parser.add_argument("--bin-dir", type=pathlib.Path)
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--compiler", default="g++")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if options.check == "sources":
        violations = check_sources(root)
    elif options.check == "symbols":
        if options.lib_dir is None:
            parser.error("symbols needs --lib-dir")
        violations = check_symbols(options.lib_dir, options.nm)
    elif options.check == "headers":
        violations = check_headers(root, options.compiler)
    elif options.check == "options":
        if options.bin_dir is None:
            parser.error("options needs --bin-dir")
        violations = check_options(root, options.bin_dir)
    else:
        violations = check_documents(root)
    count = 0
    for violation in violations:
        print(violation)
        count += 1
    print(f"{options.check}: {count} violations")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
