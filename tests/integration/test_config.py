"""The config file: a pool that comes from one, its mistakes, what is shown of it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import einhorn_command, http_get, stranger, worker
from harness.processes import descendants, is_alive

ROOT = Path(__file__).resolve().parents[2]


def einhorn(*words, **kwargs):
    return subprocess.run(
        [*einhorn_command(), *map(str, words)], capture_output=True, text=True, timeout=60, **kwargs
    )


@pytest.fixture
def config(tmp_path):
    def write(text, name="einhorn.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refusal(*words, **kwargs):
    result = einhorn(*words, **kwargs)
    assert result.returncode == 1 and result.stdout == "", result
    lines = result.stderr.splitlines()
    assert all(line.startswith("einhorn: ") for line in lines), lines
    return [line.removeprefix("einhorn: ") for line in lines]


# --- a pool out of a file -------------------------------------------------------------------------


def test_a_pool_comes_from_the_file(make_pool, config):
    secrets = config("PASSWORD='hush hush'\nA=file\n", "secrets.env")
    path = config(
        f"""
command: ["{worker('http_worker')}"]
bind: [127.0.0.1:0]
number: 1+1
ack-mode: 0.05
env-file: {secrets}
env: {{A: env, GREETING: "two words"}}
"""
    )
    pool = make_pool(["--config", path], worker_command=())
    workers = pool.wait_ready(2)
    assert http_get(pool.address)["pid"] in {entry["pid"] for entry in workers}
    variables = Path(f"/proc/{workers[0]['pid']}/environ").read_bytes().split(b"\0")
    assert {b"A=env", b"GREETING=two words", b"PASSWORD=hush hush"} <= set(variables)
    assert "hush" not in pool.log()
    # An upgrade has them too.
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    new = pool.wait_ready(2)[0]["pid"]
    assert b"PASSWORD=hush hush" in Path(f"/proc/{new}/environ").read_bytes().split(b"\0")


def test_the_command_line_comes_first(make_pool, config):
    path = config("command: /nowhere/at/all\nnumber: 5\nbind: 127.0.0.1:1\nack-mode: manual\n")
    pool = make_pool(["--config", path, "-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    assert len(pool.wait_ready(2)) == 2
    assert len(pool.state_json()["sockets"]) == 1


# --- checking, printing ---------------------------------------------------------------------------


def test_check_config(config):
    good = config("command: /bin/true\nnumber: auto\n")
    for words in (["--config", good, "--check-config"], ["--check-config", good]):
        result = einhorn(*words)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"{good}: OK\n", "")
    bad = config("command: /bin/true\n\n\nwokers: 3\nnumber: many\nbind: [80, 'x y']\n")
    complaints = refusal("--check-config", bad)
    assert complaints[:2] == [
        f"{bad}:4:1: unknown key 'wokers', did you mean 'workers'?",
        f'{bad}:5:9: number: "many" is not a whole number (allowed: 1 to 100000)',
    ]
    assert len(complaints) == 3 and complaints[2].startswith(f"{bad}:6:12: bind: ")
    assert refusal("--config", bad) == complaints


def test_print_config_is_a_config(config):
    secrets = config("TOKEN=hush\n", "secrets.env")
    path = config(
        f"command: [/bin/sleep, '60']\nnumber: 2*2\nbind: [8080, 'unix:/x']\nenv-file: {secrets}\n"
        "env: {PASSWORD: hush}\n"
    )
    result = einhorn("--config", path, "--print-config", "-l", "7")
    assert result.returncode == 0 and "hush" not in result.stdout + result.stderr
    assert re.search(rf"^number: 4 +# {re.escape(str(path))}:2:9 \(2\*2\)$", result.stdout, re.M)
    assert re.search(r"^backlog: 7 +# command line$", result.stdout, re.M)
    assert re.search(r"^canary: 1 +# default$", result.stdout, re.M)
    assert re.search(r"^  PASSWORD: '\*\*\*' +# .*:5:7, not shown$", result.stdout, re.M)
    again = config(result.stdout, "again.yaml")
    assert einhorn("--check-config", again).returncode == 0


def test_the_schema_in_the_documents_is_this_one():
    printed = json.loads(einhorn("--config-schema").stdout)
    assert printed == json.loads((ROOT / "docs/einhorn.schema.json").read_text())


# --- numbers --------------------------------------------------------------------------------------


def number_of(*words, **kwargs):
    result = einhorn(*words, "--print-config", "x", **kwargs)
    return int(re.search(r"^number: (\d+)", result.stdout, re.M).group(1))


def test_auto_is_the_number_of_cpus_that_may_be_used():
    one = {min(os.sched_getaffinity(0))}
    assert number_of("-n", "3*cpus+1", preexec_fn=lambda: os.sched_setaffinity(0, one)) == 4


@pytest.mark.root
def test_auto_knows_the_quota_of_the_cgroup():
    """In a cgroup of whichever version has the CPU controller here."""
    first = Path("/sys/fs/cgroup/cpu,cpuacct"), Path("/sys/fs/cgroup/cpu")
    mount = next((path for path in first if (path / "cpu.cfs_quota_us").exists()), None)
    own = "/sys/fs/cgroup" if mount is None else mount
    group = Path(own) / f"einhorn-test-{os.getpid()}"
    group.mkdir()
    try:
        if mount is None:
            (group / "cpu.max").write_text("50000 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("50000")

        def enter():
            (group / "cgroup.procs").write_text(str(os.getpid()))

        assert number_of("-n", "auto", preexec_fn=enter) == 1
    finally:
        group.rmdir()


# --- files that are no good -----------------------------------------------------------------------


def test_files_that_can_not_be_read(tmp_path, config):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(3 << 20)
    (tmp_path / "loop").symlink_to("loop")
    table = {
        "gone": "No such file or directory",
        "folder": "it is no regular file",
        "pipe": "it is no regular file",
        "loop": "Too many levels of symbolic links",
        "huge": "it is too large (allowed: 1048576 bytes)",
        "x/" * 2000 + "y": "No such file or directory",
    }
    for name, why in table.items():
        for option in ("--config", "--env-file"):
            path = tmp_path / name
            assert refusal(option, path, "-n", "1", "true") == [f"{option}: read {path}: {why}"]
    assert refusal("--config", "/dev/zero", "true") == [
        "--config: read /dev/zero: it is no regular file"
    ]


@pytest.mark.root
def test_a_file_without_the_right_to_read_it(shared_directory):
    path = shared_directory / "einhorn.yaml"
    path.write_text("command: true\n")
    path.chmod(0o600)
    result = einhorn("--check-config", path, user=stranger.UID, group=stranger.UID, cwd="/")
    assert result.returncode == 1
    assert result.stderr == f"einhorn: --config: read {path}: Permission denied\n"


@pytest.mark.root
def test_root_takes_no_file_that_everybody_may_write(config):
    path = config("command: true\n")
    path.chmod(0o666)
    assert refusal("--config", path) == [
        f"--config: read {path}: everybody may write to it (chmod o-w)"
    ]


def bomb(levels, width):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "name, text, why",
    [
        ("bomb", bomb(9, 9), "anchors (&NAME) are not allowed here"),
        ("deep", "a: " + "[" * 5000, "nested too deeply (allowed: 16 levels)"),
        ("wide", "bind: [" + "1," * 100_000 + "]", "the document is too large"),
        ("long", "chdir: " + "x" * 500_000, None),
        ("binary", "\x00\x01\x02", "not YAML: control characters are not allowed"),
        ("tabs", "bind:\n\t- 80\n", "not YAML: "),
        ("half", "bind: [80, ", "not YAML: "),
    ],
    ids=lambda value: value if value and len(value) < 10 and value.isalpha() else "",
)
def test_hostile_files(config, name, text, why):
    path = config(text)
    complaints = refusal("--config", path)
    assert len(complaints) == 1
    if why:
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+: ", complaints[0]) and why in complaints[0]


def test_a_mistake_starts_nothing(config, tmp_path):
    path = config("command: /bin/sleep 60\nnumbr: 3\nsocket-path: %s/sock\n" % tmp_path)
    before = {stat.pid for stat in descendants()}
    refusal("--config", path)
    assert {stat.pid for stat in descendants() if is_alive(stat.pid)} <= before
    assert not (tmp_path / "sock").exists()
