"""What is made of the programs' -h: man pages, completions. And what `cmake --install` installs."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from harness import wait_until
from harness.programs import ROOT, bin_dir, program

sys.path.insert(0, str(ROOT / "scripts"))
from help_table import is_internal, options_of  # noqa: E402

PROGRAMS = [name for name in ("einhorn", "einhornsh", "einhorn-agent") if os.path.exists(program(name))]


def run(*words, **kwargs):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=120, **kwargs)


def shown(page, width=100):
    """A page as man shows it, without a warning."""
    environment = {**os.environ, "MANWIDTH": str(width), "LC_ALL": "C.UTF-8"}
    done = run("man", "--warnings", "-E", "UTF-8", "-l", page, env=environment)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout


PAGES = ("einhorn.1", "einhornsh.1", "einhorn-agent.1", "einhorn.yaml.5", "einhorn-protocol.7", "einhorn-preload.7")


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("page", PAGES)
def test_man_shows_them_without_a_warning(page, width):
    text = shown(ROOT / "docs/man" / page, width)
    assert all(heading in text for heading in ("NAME", "DESCRIPTION", "SEE ALSO"))
    assert not re.search(r"\{\{|\]\(|\*\*[a-z-]+\*\*|^\.[A-Z]|\\f[BIR]", text, re.MULTILINE), "something was not translated"


def test_there_are_no_others():
    assert sorted(p.name for p in (ROOT / "docs/man").glob("*.[1-9]")) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES[:3])
def test_man_pages_have_the_words_of_the_help(page):
    """Each option with its text, to the letter but for the full stop."""
    text = " ".join(shown(ROOT / "docs/man" / page, 10000).split()).lower()
    for option in options_of(program(page.removesuffix(".1"))):
        assert f"--{option.name}" in text
        assert is_internal(option) or " ".join(option.text.replace("`", "").split()).lower() in text, option


def test_man_page_of_the_shell_has_the_commands_of_the_master(make_pool):
    pool = make_pool(["-m", "0"])
    pool.wait_ready(1)
    help_text = run(program("einhornsh"), "-d", pool.socket_path, "-e", "help").stdout
    commands = re.findall(r"^ *([a-z_:]+): (.+)$", help_text, re.MULTILINE)
    assert len(commands) > 10
    text = " ".join(shown(ROOT / "docs/man/einhornsh.1", 10000).split())
    for name, said in commands:
        assert f" {name} " in text and said.partition(" (args")[0].rstrip(".") in text, name


def test_stale_man_pages_are_noticed(tmp_path):
    """One option more in -h: the page is not what it would be."""
    for name in PROGRAMS:
        (tmp_path / name).symlink_to(program(name))
    (tmp_path / "einhorn").unlink()
    (tmp_path / "einhorn").write_text(
        f'#!/bin/sh\n{program("einhorn")} "$@"\n[ "$1" != -h ] || echo "        --brand-new N              Something new"\n'
    )
    (tmp_path / "einhorn").chmod(0o755)
    done = run("/usr/bin/python3", "-B", ROOT / "scripts/man.py", "--check", f"--bin-dir={tmp_path}")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "einhorn.1" in line and "run scripts/man" in line], done.stderr
    assert run("/usr/bin/python3", "-B", ROOT / "scripts/man.py", "--check", f"--bin-dir={bin_dir()}").returncode == 0


@pytest.fixture(scope="module")
def completions(tmp_path_factory):
    out = tmp_path_factory.mktemp("completions")
    done = run("/usr/bin/python3", "-B", ROOT / "scripts/completions.py", bin_dir(), out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", PROGRAMS)
def test_options_are_found(name):
    """As many as there are lines that begin with one."""
    done = run(program(name), "-h")
    text = done.stdout + done.stderr
    lines = re.findall(r"^ {4}(?:-\w, |    )?--[a-z]", text, re.MULTILINE)
    assert len(options_of(program(name))) == len(lines) > 3
    assert all(option.text for option in options_of(program(name)))


def complete_in_bash(completions, name, *words):
    script = f"""
source {completions}/bash/{name}
COMP_WORDS=({' '.join(f"'{word}'" for word in (name, *words))})
COMP_CWORD={len(words)}
_{name.replace("-", "_")}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = run("bash", "-c", script)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout.split()


@pytest.mark.parametrize("name", PROGRAMS)
def test_bash(completions, name):
    wanted = {f"--{o.name}" for o in options_of(program(name)) if not is_internal(o)}
    assert wanted <= set(complete_in_bash(completions, name, "--"))
    assert not any("with-state-fd" in word for word in complete_in_bash(completions, name, "--w"))


def test_bash_values(completions):
    assert complete_in_bash(completions, "einhorn", "-m", "m") == ["manual"]
    assert "TERM" in complete_in_bash(completions, "einhorn", "--stop-signal", "T")
    assert complete_in_bash(completions, "einhorn", "--log-format", "j") == ["json"]
    assert complete_in_bash(completions, "einhorn", "--chdir", "/us") == ["/usr"]
    assert complete_in_bash(completions, "einhornsh", "-e", "upg") == ["upgrade", "upgrade_fleet"]
    commands = complete_in_bash(completions, "einhornsh", "-e", "")
    assert {"subscribe", "rollback", "state"} <= set(commands) and "worker:ack" not in commands
    assert "systemd-analyze" in complete_in_bash(completions, "einhorn", "systemd-ana")


@pytest.mark.parametrize("name", PROGRAMS)
def test_zsh(completions, name):
    """zsh reads it, and _arguments takes every specification."""
    script = f"""
autoload -Uz compinit && compinit -u -d {completions}/zcompdump
_comps[{name}]=x
_arguments() {{ print -l -- "$@" >{completions}/specs; builtin return 0 }}
source {completions}/zsh/_{name}
"""
    done = run("zsh", "-f", "-c", script, env={**os.environ, "HOME": str(completions)})
    assert done.returncode == 0 and done.stderr == "", done
    specs = (completions / "specs").read_text().splitlines()
    wanted = [o for o in options_of(program(name)) if not is_internal(o)]
    assert sum(1 for spec in specs if re.match(r"\*?--", spec) and "[" in spec) == len(wanted)


@pytest.mark.parametrize("name", PROGRAMS)
def test_fish(completions, name):
    """fish itself completes."""
    path = completions / "fish" / f"{name}.fish"
    environment = {**os.environ, "HOME": str(completions)}
    done = run("fish", "--no-config", "-c", f"source {path}; complete -C '{name} --'", env=environment)
    assert done.returncode == 0 and done.stderr == "", done
    found = {line.split("\t")[0].split("=")[0] for line in done.stdout.splitlines()}
    assert {f"--{o.name}" for o in options_of(program(name)) if not is_internal(o)} <= found


def test_cmake_install(tmp_path):
    """Into a prefix; what is there runs from there."""
    build = bin_dir().parent
    if not (build / "CMakeCache.txt").exists():
        build = ROOT / "build" / "release"
    done = run("cmake", "--install", build, "--prefix", tmp_path / "usr")
    assert done.returncode == 0, done.stderr
    usr = tmp_path / "usr"
    for path in (
        "bin/einhorn",
        "bin/einhornsh",
        "bin/einhorn-preload",
        "lib/einhorn/libeinhorn-intercept.so",
        "share/einhorn/preload/preload.py",
        *(f"share/man/man{page[-1]}/{page}" for page in PAGES),
        "share/bash-completion/completions/einhorn",
        "share/zsh/site-functions/_einhornsh",
        "share/fish/vendor_completions.d/einhorn.fish",
        "share/doc/einhorn/docs/tutorial.md",
        "share/doc/einhorn/examples/hello/hello.py",
    ):
        assert (usr / path).exists(), path
    assert not (usr / "share/doc/einhorn/docs/man").exists()  # they are where man looks
    assert run(usr / "bin/einhorn", "--version").stdout == run(program("einhorn"), "--version").stdout
    run_from(usr, tmp_path)
    shutil.rmtree(usr)


def run_from(prefix, directory):
    """A pool of what was installed, upgraded: with the installed library in its workers."""
    socket, log = directory / "sock", directory / "log"
    command = [prefix / "bin/einhorn", "-n", "2", "-m", "0", "-d", socket, "--log-file", log, "--intercept=preload",
               "-b", "127.0.0.1:0", "--", "sleep", "1000"]
    guard = subprocess.Popen(list(map(str, command)), env={**os.environ, "TMPDIR": str(directory)})
    try:
        wait_until(lambda: run(prefix / "bin/einhornsh", "-d", socket, "-e", "status").returncode == 0)
        done = run(prefix / "bin/einhornsh", "-d", socket, "-e", "upgrade")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{prefix}/lib/einhorn/libeinhorn-intercept.so" in log.read_text()
        assert run(prefix / "bin/einhornsh", "-d", socket, "-e", "die").returncode == 0
        assert guard.wait(30) == 0
    finally:
        if guard.poll() is None:
            guard.terminate()
            guard.wait(30)


def test_what_is_loaded_into_other_programs_asks_little_of_their_c_library():
    """The tarball's is this one: it has to be loaded by programs of systems that are years old."""
    library = bin_dir().parent / "lib/einhorn/libeinhorn-intercept.so"
    said = run("readelf", "--dynamic", "--dyn-syms", "--wide", library).stdout
    assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", said)) <= {"libc.so.6", "libdl.so.2"}
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"@GLIBC_([\d.]+)", said)}
    assert versions and max(versions) <= ((2, 14) if os.uname().machine == "x86_64" else (2, 34))


def test_release_knows_its_version(tmp_path):
    """scripts/release --version sets every place, in a copy of what has it, and refuses what was not written down."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    shutil.copytree(ROOT / "sdk", copy / "sdk", ignore=shutil.ignore_patterns("build"))
    shutil.copytree(ROOT / "docs/man", copy / "docs/man")
    for name in ("CMakeLists.txt", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy / name)
    refused = run(copy / "scripts/release", "--version", "7.8.9")
    assert refused.returncode == 1 and 'has no heading "## 7.8.9"' in refused.stderr
    assert "is no version" in run(copy / "scripts/release", "--version", "7.8").stderr
    text = (copy / "CHANGELOG.md").read_text()
    (copy / "CHANGELOG.md").write_text(text.replace("## 0.", "## 7.8.9\n\nMore.\n\n## 0.", 1))
    done = run(copy / "scripts/release", "--version", "7.8.9")
    assert done.returncode == 0, done.stderr
    old = re.search(r"project\(einhorn VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    places = [p for p in copy.rglob("*") if p.is_file() and "7.8.9" in p.read_text(errors="replace")]
    assert len(places) >= 12 + len(PAGES)
    assert f"VERSION {old}" not in (copy / "CMakeLists.txt").read_text()
