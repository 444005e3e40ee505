"""The programs of the table: how each is called, unmodified, and what it needs.

`{port}` stands for a port that the program believes to be its own; `{dir}` for a directory with the
files of FILES; `{index}` is replaced by Einhorn."""

from dataclasses import dataclass, field


@dataclass
class Program:
    name: str
    command: list
    packages: list
    ask: str = "http"
    signal: str = "TERM"  # what asks it to finish
    graceful: bool = False  # and whether it then finishes its requests
    note: str = ""
    binds: list = field(default_factory=lambda: ["{port}"])
    version: list = field(default_factory=list)
    files: dict = field(default_factory=dict)
    build: list = field(default_factory=list)
    short: bool = False  # part of the short form


WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
"""
FLASK = """
from flask import Flask
app = Flask(__name__)
@app.route("/")
def hello():
    return "hello"
"""
DJANGO = """
import sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x",
                   MIDDLEWARE=[])
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
NODE = """
const http = require("http");
http.createServer((request, response) => response.end("hello")).listen(Number(process.argv[2]));
"""
GO = """
package main

import (
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) })
	panic(http.ListenAndServe(":"+os.Args[1], nil))
}
"""
STATIC = """
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char** argv) {
  int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(s, (struct sockaddr*)&a, sizeof a) || listen(s, 10)) return 1;
  for (;;) {
    static const char answer[] =
        "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello";
    char request[4096];
    int c = accept(s, 0, 0);
    if (c < 0) continue;
    if (read(c, request, sizeof request) > 0) write(c, answer, strlen(answer));
    shutdown(c, SHUT_WR);
    while (read(c, request, sizeof request) > 0) {}
    close(c);
  }
}
"""
NGINX = """
daemon off; worker_processes 2; pid {dir}/nginx-$$.pid; error_log stderr error;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path {dir}/nginx; proxy_temp_path {dir}/nginx; fastcgi_temp_path {dir}/nginx;
  uwsgi_temp_path {dir}/nginx; scgi_temp_path {dir}/nginx;
  server { listen {port}; location / { return 200 "hello"; } }
}
"""
APACHE = """
ServerName test
Listen {port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
DirectoryIndex index.html
User nobody
Group nogroup
PidFile ${PIDFILE}
Mutex posixsem
ErrorLog /dev/null
DocumentRoot {dir}/www
<Directory {dir}/www>
  Require all granted
</Directory>
"""
LIGHTTPD = """
server.port = {port}
server.bind = "127.0.0.1"
server.document-root = "{dir}/www"
index-file.names = ("index.html")
mimetype.assign = (".html" => "text/html")
"""
HAPROXY = """
global
  maxconn 200
defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend web
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain string hello
"""
FPM = """
[global]
error_log = /dev/stderr
daemonize = no
[www]
user = nobody
group = nogroup
listen = 127.0.0.1:{port}
pm = static
pm.max_children = 2
"""
JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
public class Server {
  public static void main(String[] words) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(words[0])), 0);
    server.createContext("/", exchange -> {
      exchange.sendResponseHeaders(200, 5);
      exchange.getResponseBody().write("hello".getBytes());
      exchange.close();
    });
    server.start();
  }
}
"""

PYTHON = "/usr/bin/python3"
SHELL_PID = ["/bin/sh", "-c"]

PROGRAMS = [
    Program(
        "python3 -m http.server",
        [PYTHON, "-m", "http.server", "-b", "127.0.0.1", "-d", "{dir}/www", "{port}"],
        ["python3"],
        note="TERM ends it in the middle of a request",
        version=[PYTHON, "--version"],
        short=True,
    ),
    Program(
        "Flask's development server",
        [PYTHON, "-m", "flask", "--app", "{dir}/flask_app.py", "run", "-p", "{port}"],
        ["python3-flask"],
        note="TERM ends it in the middle of a request",
        files={"flask_app.py": FLASK},
    ),
    Program(
        "Django's development server",
        [PYTHON, "{dir}/django_app.py", "runserver", "--noreload", "127.0.0.1:{port}"],
        ["python3-django"],
        note="TERM ends it in the middle of a request",
        files={"django_app.py": DJANGO},
    ),
    Program(
        "gunicorn",
        ["/usr/bin/gunicorn", "-b", "127.0.0.1:{port}", "--chdir", "{dir}", "wsgi:app"],
        ["gunicorn"],
        graceful=True,
        files={"wsgi.py": WSGI},
    ),
    Program(
        "uvicorn",
        [PYTHON, "-m", "uvicorn", "--app-dir", "{dir}", "--port", "{port}", "asgi:app"],
        ["uvicorn"],
        graceful=True,
        files={"asgi.py": ASGI},
    ),
    Program(
        "Node http",
        ["node", "{dir}/server.js", "{port}"],
        ["nodejs"],
        note="TERM ends it in the middle of a request",
        version=["node", "--version"],
        files={"server.js": NODE},
    ),
    Program(
        "Go net/http, static",
        ["{dir}/goserver", "{port}"],
        ["golang-go"],
        note="TERM ends it in the middle of a request",
        version=["go", "version"],
        files={"server.go": GO},
        build=["env", "CGO_ENABLED=0", "go", "build", "-o", "{dir}/goserver", "{dir}/server.go"],
    ),
    Program(
        "C, static",
        ["{dir}/static", "{port}"],
        ["gcc"],
        note="TERM ends it in the middle of a request",
        version=["gcc", "-dumpfullversion"],
        files={"static.c": STATIC},
        build=["gcc", "-O1", "-w", "-static", "-o", "{dir}/static", "{dir}/static.c"],
        short=True,
    ),
    Program(
        "nginx",
        [*SHELL_PID, 'sed "s/[$][$]/$$/" {dir}/nginx.conf > {dir}/nginx-$$.conf; '
         "exec /usr/sbin/nginx -c {dir}/nginx-$$.conf -p {dir}"],
        ["nginx-light"],
        signal="QUIT",
        graceful=True,
        version=["/usr/sbin/nginx", "-v"],
        files={"nginx.conf": NGINX},
        short=True,
    ),
    Program(
        "Apache httpd",
        [*SHELL_PID, "PIDFILE={dir}/apache-$$.pid exec /usr/sbin/apache2 -DFOREGROUND "
         "-f {dir}/apache.conf"],
        ["apache2"],
        signal="WINCH",
        graceful=True,
        files={"apache.conf": APACHE},
    ),
    Program(
        "lighttpd",
        ["/usr/sbin/lighttpd", "-D", "-f", "{dir}/lighttpd.conf"],
        ["lighttpd"],
        signal="INT",
        graceful=True,
        files={"lighttpd.conf": LIGHTTPD},
    ),
    Program(
        "HAProxy",
        ["/usr/sbin/haproxy", "-db", "-f", "{dir}/haproxy.cfg"],
        ["haproxy"],
        signal="USR1",
        graceful=True,
        files={"haproxy.cfg": HAPROXY},
    ),
    Program(
        "Redis",
        ["/usr/bin/redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", ""],
        ["redis-server"],
        ask="redis",
        graceful=False,
        note="TERM closes connections without reading them",
        short=True,
    ),
    Program(
        "memcached",
        ["/usr/bin/memcached", "-l", "127.0.0.1", "-p", "{port}", "-U", "0", "-u", "nobody"],
        ["memcached"],
        ask="memcached",
        signal="USR1",
        note="USR1 ends it with the connections it has",
    ),
    Program(
        "php -S",
        ["/usr/bin/php", "-S", "127.0.0.1:{port}", "-t", "{dir}/www"],
        ["php-cli"],
        signal="INT",
        note="INT ends it after the request it is in, but not the ones it has accepted",
    ),
    Program(
        "php-fpm",
        ["/usr/sbin/php-fpm8.2", "-F", "-O", "-y", "{dir}/fpm.conf"],
        ["php-fpm"],
        ask="fastcgi",
        signal="QUIT",
        graceful=True,
        files={"fpm.conf": FPM},
    ),
    Program(
        "ruby -run -e httpd",
        ["/usr/bin/ruby", "-run", "-e", "httpd", "{dir}/www", "-b", "127.0.0.1", "-p", "{port}"],
        ["ruby", "ruby-webrick"],
        note="TERM shuts the shared socket down, with what waits in its queue; not so with `--drain`",
        version=["/usr/bin/ruby", "--version"],
    ),
    Program(
        "Puma",
        ["/usr/bin/puma", "-b", "tcp://127.0.0.1:{port}", "-t", "2:2", "{dir}/config.ru"],
        ["puma"],
        graceful=True,
        files={"config.ru": 'run ->(env) { [200, {"content-length" => "5"}, ["hello"]] }\n'},
    ),
    Program(
        "Java HttpServer",
        ["java", "-Xshare:auto", "-cp", "{dir}", "Server", "{port}"],
        ["default-jdk-headless"],
        note="TERM ends it in the middle of a request",
        version=["java", "-version"],
        files={"Server.java": JAVA},
        build=["javac", "-d", "{dir}", "{dir}/Server.java"],
    ),
    Program(
        "socat, a child each",
        ["/usr/bin/socat", "TCP4-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", "SYSTEM:read line; echo hello"],
        ["socat"],
        ask="greeting",
        signal="USR2",
        note="USR2 ends it, also with a connection that it has just accepted (TERM shuts the shared "
        "socket down)",
    ),
    Program(
        "dnsmasq, UDP",
        ["/usr/sbin/dnsmasq", "-k", "-p", "{port}", "-a", "127.0.0.1", "-z", "-R", "-h", "-C",
         "/dev/null", "-x", "", "--address=/who.test/10.0.0.{index}", "-u", "nobody"],
        ["dnsmasq-base"],
        ask="dns",
        note="TERM ends it with what it has just received",
        binds=["udp:{port}", "{port}"],
        short=True,
    ),
]
