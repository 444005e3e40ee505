// The text of the help. The list of options is made from the table that the parser uses.
#include <algorithm>
#include <string>
#include <string_view>

#include "master/option_table.h"
#include "master/options.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kShort = R"(## Usage

Einhorn shares server sockets between many copies of a program, in any
language, and keeps these copies running. Run `einhorn -h` for more. In
short:

    einhorn [options] program

opens the sockets and starts the copies, the workers. While they serve
you can load new code, change their number and look after them, and no
connection is lost.
)";

constexpr std::string_view kLong = R"(
## Overview

Three copies of `sleep 5`, started again whenever one ends:

    $ einhorn -n 3 sleep 5

Options end at the first word that is none, or at `--`; what follows is
the program with its arguments. `einhornsh` talks to a running Einhorn:

    $ einhornsh -e status
    $ einhornsh
    > help

### Server sockets

Every `-b ADDR` opens a socket before the first worker starts:

    ADDR := HOST:PORT | PORT | unix:PATH | udp:HOST:PORT | fd:NAME
            followed by any number of ,OPT

    $ einhorn -n 4 -b 127.0.0.1:2345,r -b unix:/run/shop.sock ./server

HOST is an address, an [IPv6] one, a name or `*`; without it, or with
`*`, the socket is on all addresses. Port 0 lets the system choose.
`fd:` takes a socket that systemd or the caller has handed in.

Some of the OPTs:

    r, so_reuseaddr    set SO_REUSEADDR
    n, o_nonblock      set O_NONBLOCK
    reuseport          set SO_REUSEPORT
    backlog=N          connections that may wait, for this socket
    name=NAME          its name, for LISTEN_FDNAMES and {fd:NAME}
    stdin              workers have it as descriptor 0 as well

A worker finds the number of each descriptor in EINHORN_FD_0,
EINHORN_FD_1 and so on, in the order of `-b`, and accepts connections
on it. A program that wants it on the command line writes {fd} or
{fd:NAME} there.

### Programs that know nothing of this

    $ einhorn -n 4 --intercept -b 8080 -- any-server --port 8080

Workers bind their sockets themselves; one that is for an address of a
`-b` is replaced by the shared socket on the way. The program needs no
change, in no language. `--intercept 3000=8080` gives a program that
insists on port 3000 the `-b 8080`. Such workers are up when they listen,
and are stopped by TERM.

### Command socket

Einhorn listens on a UNIX socket for commands: one message a line, YAML
or JSON. `-d PATH` says where; without it, it is einhorn.sock, or
einhorn-CMD_NAME.sock with `-c CMD_NAME`, in the directory that TMPDIR
names, or /tmp. Only root, the user who started Einhorn and, for what
they say about themselves, workers are listened to.

### Upgrades

    $ einhornsh -e upgrade

(or SIGHUP) starts the program anew, as it now is on disk. As soon as a
new worker is up, an old one gets SIGUSR2, which asks it to finish what
it is doing and end; `--stop-signal` names another signal. There are
never fewer workers serving than before. When the new ones fail, Einhorn
stops them, goes on with the old ones, and says why: see --canary,
--upgrade-failures and --upgrade-timeout.

### ACKs

A worker counts as up once it is ACKed. `-m` says how that happens:

    -m FLOAT    it has lived for so many seconds; 0 will do. The default,
                with 1
    -m manual   it sends {"command":"worker:ack", "pid":PID} and a newline
                to the UNIX socket that EINHORN_SOCK_PATH names, or, with
                `-g`, to the descriptor EINHORN_SOCK_FD
    -m notify   it sends READY=1 to the socket that NOTIFY_SOCKET names

    -m listen   with --intercept, and the default there: it has called listen

Workers that die before their ACK are started again more and more slowly,
until one is ACKed. A worker that misses its ACK for --ack-timeout is
replaced.

### The environment of a worker

    EINHORN_MASTER_PID     the pid of Einhorn, which is its parent
    EINHORN_SOCK_PATH      the command socket
    EINHORN_SOCK_FD        a descriptor connected to it, with `-g`
    EINHORN_FD_COUNT       how many sockets there are
    EINHORN_FD_0, ...      their descriptors; EINHORN_FDS has all of them
    EINHORN_CHILD_INDEX    the lowest number no other worker has
    LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, NOTIFY_SOCKET
                           the same for programs made for systemd

### Signals

    INT, USR2      stop the workers gracefully, end when they are gone
    TERM           the same with SIGTERM
    QUIT           end at once
    HUP, ALRM      upgrade
    TTIN, TTOU     one worker more, one fewer
    USR1           open the log file anew

### Names in ps

`-c CMD_NAME` sets the name that Einhorn shows in ps. It is part of the
names of the default command socket, pid file and lock file too, so that
pools with different names do not get in each other's way.
)";

constexpr std::size_t kIndent = 4;
constexpr std::size_t kNameWidth = 32;
constexpr std::size_t kTextColumn = kIndent + kNameWidth + 1;
constexpr std::size_t kLineWidth = 100;

std::string synopsis(const OptionRule& rule) {
  std::string text = rule.letter != 0 ? std::string{'-', rule.letter, ',', ' '} : "    ";
  text += std::string("--") + rule.name;
  return rule.value != nullptr ? text + ' ' + rule.value : text;
}

// Ends the line and begins the next one where texts stand.
void next_line(std::string& out) { out += '\n' + std::string(kTextColumn, ' '); }

void append_option(std::string& out, const OptionRule& rule) {
  const std::string names = synopsis(rule);
  out += std::string(kIndent, ' ') + names;
  if (names.size() > kNameWidth) {
    next_line(out);
  } else {
    out += std::string(kTextColumn - kIndent - names.size(), ' ');
  }
  std::size_t column = kTextColumn;
  std::string_view text = rule.text;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (column > kTextColumn && column + 1 + word.size() > kLineWidth) {
      next_line(out);
      column = kTextColumn;
    } else if (column > kTextColumn) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  out += '\n';
}

}  // namespace

std::string usage(bool is_long) {
  std::string out(kShort);
  if (is_long) {
    out += kLong;
  }
  out += "\n### Options\n\n";
  for (const OptionRule& rule : option_table()) {
    append_option(out, rule);
  }
  return out;
}

}  // namespace einhorn::master
