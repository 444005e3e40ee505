"""The Node library's own: how a server of HTTP leaves."""

import http.client
import signal
import subprocess

import pytest
from harness.programs import ROOT

SERVER = """
const http = require('node:http');
const einhorn = require('./sdk/node');
const server = http.createServer((request, response) => {
  response.writeHead(200, { 'Content-Length': 2 });
  response.end('ok');
});
einhorn.onStop(() => {
  einhorn.drain(server, { idle: Number(process.argv[1]) });
  console.log('drains');
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


@pytest.fixture
def start():
    """Starts the server, with how long a kept connection may be idle; it, and a connection that has had
    its first answer."""
    processes = []

    def run(idle):
        process = subprocess.Popen(["node", "-e", SERVER, str(idle)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        connection = http.client.HTTPConnection("127.0.0.1", int(process.stdout.readline()), timeout=60)
        assert get(connection).getheader("Connection") == "keep-alive"
        return process, connection

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def get(connection):
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.read() == b"ok"
    return answer


def stop(process):
    process.send_signal(signal.SIGUSR2)
    assert process.stdout.readline() == "drains\n"


def test_a_kept_connection_has_its_last_request_answered(start):
    process, connection = start(3_600_000)
    other = http.client.HTTPConnection("127.0.0.1", connection.port, timeout=60)
    get(other)
    stop(process)
    for one in (connection, other):
        assert get(one).getheader("Connection") == "close"
    with pytest.raises(ConnectionRefusedError):
        get(http.client.HTTPConnection("127.0.0.1", connection.port, timeout=60))
    assert process.wait(60) == 0, "nothing is left to do"


def test_an_idle_connection_ends_in_its_time(start):
    process, connection = start(100)
    stop(process)
    assert connection.sock.recv(1) == b""
    assert process.wait(60) == 0
