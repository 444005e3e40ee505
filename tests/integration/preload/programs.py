"""Code that is preloaded, as texts. Each worker writes what it sees to a file of its own, as JSON."""

import json
import subprocess
from pathlib import Path

from harness import processes, wait_until
from harness.programs import ROOT

PYTHON = '''
import json, os, random, signal, sys
LOADED = os.getpid()
random.seed(7)

def einhorn_main():
    seen = {{"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "loaded": LOADED,
             "script": sys.argv[0], "arguments": sys.argv[1:], "random": str(random.random()),
             "label": "{label}", "environment": dict(os.environ)}}
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))
    with open(f"{out}/{{os.getpid()}}.new", "w") as file:
        json.dump(seen, file)
    os.rename(f"{out}/{{os.getpid()}}.new", f"{out}/{{os.getpid()}}.json")
    while True:
        signal.pause()
'''

RUBY = '''
require "json"
LOADED = Process.pid
srand(7)

def einhorn_main
  seen = {{"pid" => Process.pid, "parent" => Process.ppid, "group" => Process.getpgid(0),
          "loaded" => LOADED, "script" => $0, "arguments" => ARGV, "random" => rand.to_s,
          "label" => "{label}", "environment" => ENV.to_h}}
  trap("USR2") {{ exit!(0) }}
  File.write("{out}/#{{Process.pid}}.new", JSON.generate(seen))
  File.rename("{out}/#{{Process.pid}}.new", "{out}/#{{Process.pid}}.json")
  sleep
end
'''

PERL = '''
use strict; use warnings; use JSON::PP; use POSIX ();
my $loaded = $$;
srand 7;

sub einhorn_main {{
    my $seen = {{pid => $$, parent => getppid, group => getpgrp, loaded => $loaded, script => $0,
        arguments => \\@ARGV, random => rand() . "", label => "{label}", environment => {{%ENV}}}};
    $SIG{{USR2}} = sub {{ POSIX::_exit(0) }};
    open my $file, ">", "{out}/$$.new" or die $!;
    print $file JSON::PP->new->encode($seen);
    close $file;
    rename "{out}/$$.new", "{out}/$$.json";
    sleep 1 while 1;
}}
1;
'''

PHP = '''<?php
$GLOBALS["loaded"] = getmypid();
mt_srand(7);

function einhorn_main(): int
{{
    global $argv;
    pcntl_async_signals(true);
    pcntl_signal(SIGUSR2, function () {{ posix_kill(getmypid(), SIGKILL); }});
    $seen = ["pid" => getmypid(), "parent" => posix_getppid(), "group" => posix_getpgrp(),
        "loaded" => $GLOBALS["loaded"], "script" => $argv[0], "arguments" => array_slice($argv, 1),
        "random" => (string) mt_rand(), "label" => "{label}", "environment" => getenv()];
    file_put_contents("{out}/" . getmypid() . ".new", json_encode($seen));
    rename("{out}/" . getmypid() . ".new", "{out}/" . getmypid() . ".json");
    while (true) {{
        sleep(1);
    }}
}}
'''

CPP = '''
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <unistd.h>

#include <einhorn/preload.h>

extern char **environ;
static const int loaded = getpid();  // a static constructor

static std::string quoted(std::string text) {{
  std::string out = "\\"";
  for (char c : text) {{
    if (c == '"' || c == '\\\\') out += '\\\\';
    if (static_cast<unsigned char>(c) >= 32) out += c;
  }}
  return out + "\\"";
}}

int einhorn_main(int argc, char **argv) {{
  signal(SIGUSR2, [](int) {{ _exit(0); }});
  const std::string path = std::string("{out}/") + std::to_string(getpid());
  {{
    std::ofstream file(path + ".new");
    file << "{{\\"pid\\": " << getpid() << ", \\"parent\\": " << getppid() << ", \\"group\\": " << getpgrp()
         << ", \\"loaded\\": " << loaded << ", \\"script\\": " << quoted(argv[0]) << ", \\"arguments\\": [";
    for (int i = 1; i < argc; ++i) file << (i > 1 ? ", " : "") << quoted(argv[i]);
    file << "], \\"random\\": \\"" << std::random_device()() << "\\", \\"label\\": \\"{label}\\", "
         << "\\"environment\\": {{\\"\\": \\"\\"";
    for (char **variable = environ; *variable != nullptr; ++variable) {{
      const std::string text = *variable;
      const auto equals = text.find('=');
      file << ", " << quoted(text.substr(0, equals)) << ": " << quoted(text.substr(equals + 1));
    }}
    file << "}}}}";
  }}
  std::rename((path + ".new").c_str(), (path + ".json").c_str());
  for (;;) pause();
}}
'''

# By language: code that ACKs by the descriptor of -g.
ACKS = {
    "python": """
import json, os, signal

def einhorn_main():
    line = json.dumps({"command": "worker:ack", "pid": os.getpid()}) + "\\n"
    os.write(int(os.environ["EINHORN_SOCK_FD"]), line.encode())
    signal.pause()
""",
    "ruby": """
def einhorn_main
  IO.for_fd(Integer(ENV["EINHORN_SOCK_FD"]), autoclose: false)
    .syswrite(%({"command":"worker:ack","pid":#{Process.pid}}\\n))
  sleep
end
""",
    "perl": """
sub einhorn_main {
    require POSIX;
    my $line = qq({"command":"worker:ack","pid":$$}\\n);
    POSIX::write($ENV{EINHORN_SOCK_FD}, $line, length $line);
    sleep 1 while 1;
}
1;
""",
    "php": """<?php
function einhorn_main()
{
    $socket = fopen("php://fd/" . getenv("EINHORN_SOCK_FD"), "r+");
    fwrite($socket, json_encode(["command" => "worker:ack", "pid" => getmypid()]) . "\\n");
    fclose($socket);
    while (true) {
        sleep(1);
    }
}
""",
    "c": """
#include <cstdlib>
#include <string>
#include <unistd.h>

#include <einhorn/preload.h>

int einhorn_main(int, char **) {
  const std::string line =
      "{\\"command\\":\\"worker:ack\\",\\"pid\\":" + std::to_string(getpid()) + "}\\n";
  if (write(std::atoi(std::getenv("EINHORN_SOCK_FD")), line.data(), line.size()) < 0) return 1;
  for (;;) pause();
}
""",
}

# By language: the code's file, its text, and the command whose words workers see.
LANGUAGES = {
    "python": ("app.py", PYTHON, ["/usr/bin/python3", "app.py", "one", "two words"]),
    "ruby": ("app.rb", RUBY, ["/usr/bin/ruby", "app.rb", "one", "two words"]),
    "perl": ("app.pl", PERL, ["/usr/bin/perl", "app.pl", "one", "two words"]),
    "php": ("app.php", PHP, ["/usr/bin/php", "app.php", "one", "two words"]),
    "c": ("libapp.so", CPP, ["app", "one", "two words"]),
}


class Code:
    """A release in a directory of the pool: what workers of it write comes to `out`."""

    def __init__(self, pool, language="python", label="first"):
        self.pool, self.language, self.out = pool, language, Path(pool.dir) / "out"
        self.out.mkdir(exist_ok=True)
        self.file, self.text, self.command = LANGUAGES[language]
        self.write(label)

    def write(self, label="first", text=None):
        """The release that the next version is."""
        path = Path(self.pool.dir) / self.file
        text = text if text is not None else self.text.format(label=label, out=self.out)
        if self.language != "c":
            path.write_text(text)
            return
        source = path.with_suffix(".cpp")
        source.write_text(text)
        subprocess.run(
            ["g++", "-std=c++17", "-O0", "-shared", "-fPIC", f"-I{ROOT / 'preload'}"]
            + ["-o", f"{path}.new", str(source), "-pthread"],
            check=True,
        )
        Path(f"{path}.new").rename(path)

    def seen(self, pids, deadline=20):
        """What these workers saw."""
        paths = [self.out / f"{pid}.json" for pid in pids]
        wait_until(lambda: all(path.exists() for path in paths), deadline, lambda: f"{paths}")
        return [json.loads(path.read_text(errors="replace")) for path in paths]


def zygotes(pool):
    return {z["version"]: z["pid"] for z in pool.state_json()["zygotes"] if z["loaded"]}


def wait_zygote(pool, version, other_than=None, deadline=30):
    pool.wait_state(
        lambda s: any(
            z["version"] == version and z["loaded"] and z["pid"] != other_than for z in s["zygotes"]
        ),
        deadline,
        f"a zygote of version {version}",
    )
    return zygotes(pool)[version]


def alive(pid):
    stat = processes.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


SERVER = '''
import json, os, select, signal, socket

LOADED = os.getpid()

def ack():
    with socket.socket(socket.AF_UNIX) as master:
        master.connect(os.environ["EINHORN_SOCK_PATH"])
        master.sendall(json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\\n")

def answer(connection):
    connection.settimeout(10)
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        got = connection.recv(65536)
        if not got:
            return
        data += got
    body = json.dumps({"pid": os.getpid(), "loaded": LOADED}, separators=(",", ":")).encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nConnection: close\\r\\n"
                       b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body))

def einhorn_main():
    stop, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGUSR2, lambda *_: None)
    listener = socket.socket(fileno=int(os.environ["EINHORN_FD_0"]))
    listener.setblocking(False)
    ack()
    while True:
        ready, _, _ = select.select([listener, stop], [], [])
        if stop in ready:
            return
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            answer(connection)
'''
