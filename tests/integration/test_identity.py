"""As whom, where and with which rights workers and master run. Real users and capabilities, as root."""

import grp
import json
import os
import pwd
import re
import socket
import subprocess
from pathlib import Path

import pytest
from harness import einhorn_command, http_get, wait_until
from harness.processes import is_alive

pytestmark = pytest.mark.root

NOBODY = pwd.getpwnam("nobody")
NET_BIND = 1 << 10

# Says who it is in a file, ACKs on the command socket, then serves what it got.
WORKER = r"""
import json, os, socket, sys, time
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
said = {name: status[name].split() for name in
        ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs")}
mask = os.umask(0)
said.update(umask=mask, cpus=sorted(os.sched_getaffinity(0)), nice=os.nice(0), cwd=os.getcwd(),
            oom=int(open("/proc/self/oom_score_adj").read()),
            env={n: os.environ.get(n) for n in ("HOME", "USER", "LOGNAME")},
            fds=os.environ.get("EINHORN_FD_COUNT"))
try:
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0 if len(sys.argv) < 3 else int(sys.argv[2])))
    said["bound"] = True
except OSError as error:
    said["bound"] = error.strerror
path = f"{sys.argv[1]}/{os.getpid()}"
with open(path + ".tmp", "w") as file:
    json.dump(said, file)
os.rename(path + ".tmp", path)
client = socket.socket(socket.AF_UNIX)
client.connect(os.environ["EINHORN_SOCK_PATH"])
client.sendall(json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\n")
while True:
    time.sleep(60)
"""


@pytest.fixture
def pool_as(make_pool, shared_directory, tmp_path):
    """Starts a pool whose workers tell who they are; gives what each worker said."""

    def start(*args, number=1, more=(), **kwargs):
        reports = shared_directory / "reports"
        reports.mkdir()
        reports.chmod(0o1777)
        script = shared_directory / "worker.py"
        script.write_text(WORKER)
        script.chmod(0o644)
        words = ["/usr/bin/python3", str(script), str(reports), *map(str, more)]
        pool = make_pool(
            ["-m", "manual", "-n", str(number), *map(str, args)],
            worker_command=words,
            directory=shared_directory,
            **kwargs,
        )
        workers = pool.wait_ready(number)
        return pool, [json.loads((reports / str(w["pid"])).read_text()) for w in workers]

    return start


def test_user_with_its_groups(pool_as):
    pool, (said,) = pool_as("--user", "nobody")
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    assert said["Uid"] == [uid] * 4 and said["Gid"] == [gid] * 4
    expected = {str(g) for g in os.getgrouplist("nobody", NOBODY.pw_gid)}
    assert set(said["Groups"]) == expected
    assert int(said["CapEff"][0], 16) == int(said["CapPrm"][0], 16) == 0
    assert said["env"] == {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
    # The socket is ours, and the workers' group may write to it.
    status = os.lstat(pool.socket_path)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, NOBODY.pw_gid, 0o660)


def test_groups_by_name_and_number(pool_as):
    _, (said,) = pool_as("--user", "nobody", "--group", "daemon,54322", "--group", "bin")
    daemon, binary = grp.getgrnam("daemon").gr_gid, grp.getgrnam("bin").gr_gid
    assert said["Gid"] == [str(daemon)] * 4
    assert {str(daemon), str(binary), "54322"} <= set(said["Groups"])


def test_a_number_that_no_user_has(pool_as):
    _, (said,) = pool_as("--user", "54321", "--group", "54322")
    assert said["Uid"] == ["54321"] * 4 and said["Groups"] == ["54322"]


def test_upgrades_keep_the_user(pool_as):
    pool, _ = pool_as("--user", "nobody")
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    pid = pool.wait_ready(1)[0]["pid"]
    assert os.stat(f"/proc/{pid}").st_uid == NOBODY.pw_uid
    pool.kill_master()
    os.kill(pid, 9)
    new = pool.wait_state(lambda s: s["ready"] == 1 and s["workers"][0]["pid"] != pid)
    assert os.stat(f"/proc/{new['workers'][0]['pid']}").st_uid == NOBODY.pw_uid


def test_umask_oom_nice_and_cpus(pool_as):
    cpu = min(os.sched_getaffinity(0))
    _, (said,) = pool_as(
        "--umask", "027", "--oom-score-adj", "321", "--cpu-affinity", str(cpu), "--no-new-privs",
        "--ionice", "idle", "--nice", "0:5",
    )  # fmt: skip
    assert said["umask"] == 0o027 and said["oom"] == 321 and said["cpus"] == [cpu]
    assert said["NoNewPrivs"] == ["1"] and said["nice"] == 5


def test_io_priority(pool_as):
    pool, _ = pool_as("--ionice", "best-effort:6")
    pid = pool.workers()[0]["pid"]
    shown = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True).stdout
    assert shown.strip() == "best-effort: prio 6"


def test_each_worker_on_a_cpu_of_its_own(pool_as):
    cpus = os.sched_getaffinity(0)
    _, said = pool_as("--cpu-affinity", "each", number=2)
    assert all(len(entry["cpus"]) == 1 for entry in said)
    assert {entry["cpus"][0] for entry in said} <= cpus
    assert len(cpus) == 1 or said[0]["cpus"] != said[1]["cpus"]


def test_capabilities_that_are_kept(pool_as):
    low = 1023
    _, (said,) = pool_as("--user", "nobody", "--capabilities", "cap_net_bind_service", more=[low])
    for name in ("CapEff", "CapPrm", "CapAmb", "CapBnd"):
        assert int(said[name][0], 16) == NET_BIND, name
    assert said["bound"] is True


def test_no_capability_for_root(pool_as):
    _, (said,) = pool_as("--capabilities", "none")
    assert said["Uid"][0] == "0" and int(said["CapEff"][0], 16) == int(said["CapBnd"][0], 16) == 0


def test_another_directory_for_a_root(make_pool, shared_directory):
    """A static program in an otherwise empty root."""
    jail = shared_directory / "jail"
    (jail / "bin").mkdir(parents=True)
    (jail / "tmp").mkdir()
    (jail / "tmp").chmod(0o1777)
    source = shared_directory / "w.c"
    source.write_text(
        "#include <unistd.h>\n#include <fcntl.h>\n#include <sys/stat.h>\n"
        "int main(void) { int f = open(\"/tmp/here\", O_CREAT | O_WRONLY, 0666);\n"
        "  return f < 0 ? 1 : pause(); }\n"
    )
    subprocess.run(["cc", "-static", "-o", jail / "bin/w", source], check=True)
    pool = make_pool(
        ["-m", "0.05", "--chroot", jail, "--user", "nobody", "--chdir", "/tmp"],
        worker_command=["w"],
        directory=shared_directory,
        env={"PATH": "/bin"},
    )
    pid = pool.wait_ready(1)[0]["pid"]
    assert os.readlink(f"/proc/{pid}/root") == str(jail)
    wait_until((jail / "tmp/here").exists)
    assert os.stat(jail / "tmp/here").st_uid == NOBODY.pw_uid
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])


# --- the master -----------------------------------------------------------------------------------


def capabilities(pid, name="CapEff"):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s*([0-9a-f]+)$", text, re.M).group(1), 16)


def test_the_master_drops_too(pool_as):
    pool, (said,) = pool_as(
        "--master-user", "nobody", "--log-file", "@DIR@/pool.log", "-b", "127.0.0.1:0"
    )
    state = pool.state_json()
    assert os.stat(f"/proc/{state['master']}").st_uid == NOBODY.pw_uid
    assert said["Uid"] == [str(NOBODY.pw_uid)] * 4 and int(said["CapEff"][0], 16) == 0
    for pid in (state["guard"], state["master"]):
        assert not capabilities(pid) & (1 << 21), "CAP_SYS_ADMIN"
        assert not capabilities(pid, "CapPrm") & (1 << 19), "CAP_SYS_PTRACE"
    # All goes on: a killed master, an upgrade, a log that is opened anew, the end.
    pool.kill_master()
    again = pool.wait_state(lambda s: s["master"] != state["master"])
    assert os.stat(f"/proc/{again['master']}").st_uid == NOBODY.pw_uid
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    log = pool.dir / "pool.log"
    assert "Upgraded successfully" in log.read_text()
    assert pool.stop() == 0
    pool.wait_gone()
    assert not pool.path("sock").exists() and not pool.path("pid").exists()


def test_master_and_workers_as_different_users(pool_as):
    pool, (said,) = pool_as("--master-user", "daemon", "--user", "nobody")
    state = pool.state_json()
    assert os.stat(f"/proc/{state['master']}").st_uid == pwd.getpwnam("daemon").pw_uid
    assert said["Uid"] == [str(NOBODY.pw_uid)] * 4
    assert int(said["CapEff"][0], 16) == int(said["CapPrm"][0], 16) == 0
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    assert pool.stop() == 0
    pool.wait_gone()


# --- for each worker a socket of its own ----------------------------------------------------------


def free_ports(count):
    """The first of so many ports in a row that nobody listens at."""
    for first in range(21000, 29000, 20):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no ports")


def test_a_socket_for_each_worker(make_pool):
    first = free_ports(3)
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "-b", f"127.0.0.1:{first}+index,name=debug", "-b", "127.0.0.1:0"],
        worker_command="env_dump",
        env={"ENV_DUMP_FILE": "@"},
    )
    workers = pool.wait_ready(2)
    for entry in workers:
        environ = Path(f"/proc/{entry['pid']}/environ").read_bytes().split(b"\0")
        assert b"EINHORN_FD_COUNT=2" in environ and b"EINHORN_FDS=3 4" in environ
        with socket.create_connection(("127.0.0.1", first + entry["index"])):
            pass
    gone = workers[0]
    os.kill(gone["pid"], 9)
    pool.wait_state(
        lambda s: s["ready"] == 2 and gone["pid"] not in {w["pid"] for w in s["workers"]}
    )
    with socket.create_connection(("127.0.0.1", first + gone["index"])):
        pass


# --- what is refused ------------------------------------------------------------------------------


def refusal(*words, **kwargs):
    result = subprocess.run(
        [*einhorn_command(), *words, "/bin/true"], capture_output=True, text=True, timeout=30, **kwargs
    )
    assert result.returncode == 1 and result.stderr.count("\n") >= 1, result
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "words, why",
    [
        (["--user", "no such"], '--user: there is no user "no such"'),
        (["--user", "54321"], "--user 54321: no user has this number, so --group has to say the group"),
        (["--group", "no such"], '--group: there is no group "no such"'),
        (["--umask", "888"], '--umask: "888" is no umask (allowed: octal, 0 to 0777)'),
        (["--chroot", "tmp"], '--chroot: "tmp" is no absolute path'),
        (["--chroot", "/no/where"], "--chroot /no/where: No such file or directory"),
        (["--chroot", "/bin/true"], "--chroot /bin/true: it is no directory"),
        (
            ["--capabilities", "cap_fly"],
            '--capabilities: "cap_fly" is no capability (allowed: names such as '
            "cap_net_bind_service, or none)",
        ),
        (["--master-user", "no such"], '--master-user: there is no user "no such"'),
        (
            ["--cpu-affinity", "some"],
            '--cpu-affinity: "some" is no list of CPUs (allowed: each, node, or as 0-3,8)',
        ),
        (
            ["--cpu-affinity", "9999"],
            "--cpu-affinity 9999: there is no CPU 9999 for this process",
        ),
        (
            ["--ionice", "fast"],
            '--ionice: "fast" is no I/O priority (allowed: idle, best-effort[:0-7], realtime[:0-7])',
        ),
        (["-b", "localhost:80+index"], None),
        (["-b", "udp:53+index"], None),
        (["-b", "127.0.0.1:0+index"], None),
    ],
)
def test_wrong_values(words, why, tmp_path):
    line = refusal(*words, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert line.startswith("einhorn: ")
    assert why is None or line == f"einhorn: {why}"


def test_somebody_else_may_not(shared_directory):
    table = {
        ("--user", "nobody"): "only root can run workers as somebody else",
        ("--group", "daemon"): "only root can run workers as somebody else",
        ("--chroot", "/tmp"): "only root may do that",
        ("--master-user", "daemon"): "only root can run the master as somebody else",
        ("--capabilities", "cap_net_admin"): "Einhorn itself does not have all of them",
    }
    env = {**os.environ, "TMPDIR": str(shared_directory)}
    for words, why in table.items():
        assert why in refusal(*words, user=54321, group=54321, extra_groups=[], cwd="/", env=env)
