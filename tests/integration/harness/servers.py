"""Real servers that the agent is tried against, started by the test: PostgreSQL, collectd (StatsD),
Prometheus, HAProxy. Each lives in a directory of its own and is ended with the test."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from .waiting import wait_until


def free_port(kind=socket.SOCK_STREAM):
    """A port that was free a moment ago, for servers that can't choose one and say which."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, prefix):
        self.directory = Path(tempfile.mkdtemp(prefix=f"einhorn-{prefix}-"))
        self.process = None

    def popen(self, command, **kwargs):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kwargs
            )

    def log(self):
        return (self.directory / "log").read_text(errors="replace")

    def wait_port(self, port, deadline=60):
        def connected():
            assert self.process.poll() is None, self.log()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False

        wait_until(connected, deadline, self.log)

    def stop(self, number=signal.SIGTERM, deadline=30):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(deadline)

    def destroy(self):
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


class PostgreSQL(Server):
    """A cluster of its own; it does not run as root, so root's runs as `postgres`."""

    BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]

    def __init__(self):
        super().__init__("pg")
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.port = free_port()
        self.data = self.directory / "data"
        self.directory.chmod(0o755)
        self.data.mkdir()
        self.as_user = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            os.chown(self.data, entry.pw_uid, entry.pw_gid)
            self.as_user = {"user": self.user, "group": entry.pw_gid, "extra_groups": []}
        subprocess.run(
            [self.BIN / "initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "--no-sync"],
            check=True, capture_output=True, cwd="/", **self.as_user,
        )
        self.start()

    @property
    def url(self):
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self):
        self.popen(
            [self.BIN / "postgres", "-D", self.data, "-p", str(self.port), "-F",
             "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="],
            cwd="/", **self.as_user,
        )
        wait_until(lambda: self.sql("SELECT 1", check=False) == "1", 60, self.log)

    def stop_now(self):
        """As a crash or a fast shutdown: whoever is connected is thrown out."""
        self.stop(signal.SIGQUIT)

    def sql(self, text, check=True):
        done = subprocess.run(
            ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-c", text],
            capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()


class Collectd(Server):
    """Debian's collectd with its statsd plugin: a StatsD server that can be asked."""

    def __init__(self):
        super().__init__("collectd")
        self.port = free_port(socket.SOCK_DGRAM)
        config = self.directory / "collectd.conf"
        config.write_text(
            f'Hostname "test"\nFQDNLookup false\nInterval 1\nBaseDir "{self.directory}"\n'
            f'PIDFile "{self.directory}/pid"\nTypesDB "/usr/share/collectd/types.db"\n'
            "LoadPlugin statsd\nLoadPlugin csv\n"
            f'<Plugin statsd>\nHost "127.0.0.1"\nPort "{self.port}"\nCounterSum true\n'
            "TimerCount true\nTimerUpper true\nTimerSum true\n</Plugin>\n"
            f'<Plugin csv>\nDataDir "{self.directory}/csv"\nStoreRates false\n</Plugin>\n'
        )
        self.popen(["/usr/sbin/collectd", "-f", "-C", str(config)])
        wait_until(lambda: f":{self.port:04X} " in Path("/proc/net/udp").read_text(), 60, self.log)

    def values(self):
        """What was received so far, by name. Counts are summed up, as collectd gives them by
        interval; of the rest it is the last number: {"count-einhorn.shop.worker.spawned": 2.0}"""
        found = {}
        for path in (self.directory / "csv").glob("test/statsd/*"):
            name = path.name[: -len("-2026-11-29")]
            numbers = [float(line.split(",")[1]) for line in path.read_text().split("\n")[1:-1]]
            numbers = [number for number in numbers if number == number]
            if numbers:
                found[name] = sum(numbers) if name.startswith("count-") else numbers[-1]
        return found


class Prometheus(Server):
    def __init__(self, targets, accept=None):
        super().__init__("prometheus")
        self.port = free_port()
        config = self.directory / "prometheus.yml"
        config.write_text(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 400ms\n"
            "scrape_configs:\n  - job_name: einhorn\n    static_configs:\n"
            f"      - targets: {list(targets)!r}\n"
        )
        self.popen(
            ["/usr/bin/prometheus", f"--config.file={config}",
             f"--storage.tsdb.path={self.directory}/data",
             f"--web.listen-address=127.0.0.1:{self.port}"],
        )
        self.wait_port(self.port)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """Values by their labels: [({"pool": "shop"}, 2.0)]."""
        try:
            data = self.get("/api/v1/query?query=" + urllib.parse.quote(expression))
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is still starting
                return []
            raise
        return [(r["metric"], float(r["value"][1])) for r in data["result"]]


class HAProxy(Server):
    def __init__(self, backends):
        """backends: {name: (address, agent-check port)}"""
        super().__init__("haproxy")
        self.port = free_port()
        self.socket_path = self.directory / "admin"
        servers = "".join(
            f"  server {name} {address} check inter 100ms weight 100 agent-check agent-port {agent} "
            f"agent-addr 127.0.0.1 agent-inter 50ms\n"
            for name, (address, agent) in backends.items()
        )
        config = self.directory / "haproxy.cfg"
        config.write_text(
            f"global\n  stats socket {self.socket_path} mode 600 level admin\n"
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n"
            "  timeout server 30s\n  retries 3\n"
            f"frontend in\n  bind 127.0.0.1:{self.port}\n  default_backend pools\n"
            f"backend pools\n  balance roundrobin\n{servers}"
        )
        self.popen(["/usr/sbin/haproxy", "-db", "-f", str(config)])
        self.wait_port(self.port)
        wait_until(self.socket_path.exists, 60, self.log)  # it gets its name a moment later

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def servers(self):
        """By name, what HAProxy's own statistics say: status, weight, scur..."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.socket_path))
            connection.sendall(b"show stat\n")
            text = b""
            while chunk := connection.recv(65536):
                text += chunk
        lines = [line.split(",") for line in text.decode().splitlines() if line]
        names = [lines[0][0].lstrip("# "), *lines[0][1:]]
        rows = [dict(zip(names, line)) for line in lines[1:]]
        return {r["svname"]: r for r in rows if r["pxname"] == "pools" and r["svname"] != "BACKEND"}
