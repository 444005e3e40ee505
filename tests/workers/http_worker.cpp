// A worker for tests: serves HTTP/1.1 on the sockets it was given and misbehaves as it is told.
//
// Every socket is served by a few threads that accept, read one request, answer with one JSON
// object (pid, index, the socket's number, --label) and close. On a stop signal nothing more is
// accepted, what was accepted is answered, and the process exits with 0: no accepted connection is
// lost. A datagram socket answers each datagram with the same object.
//
// Options (each may also stand on a line of --options-file=PATH, read at start, so that a test can
// change what the next workers do):
//   --adopt=einhorn|listen|none|N[,N...]  EINHORN_FD_n (default), LISTEN_FDS from 3 on, or numbers
//   --adopt=bind:PORT       a socket that it makes and binds itself, as a program that knows nobody
//   --threads=N             threads a socket (4)
//   --label=TEXT            shown in every answer
//   --request-delay-ms=N    between request and answer
//   --ack=path|fd|notify    how to say "ready" (default: not at all)
//   --ack-delay-ms=N        when to say it
//   --ack-pid=N             the pid named in the ACK (default: the own one)
//   --ack-from=child        a child sends the ACK
//   --ping=ID               a worker:ping with that request id, right after the ACK
//   --status=TEXT           STATUS= to NOTIFY_SOCKET, after READY=1
//   --watchdog-ms=N         WATCHDOG=1 to NOTIFY_SOCKET at that interval
//   --exit-at-start=CODE    before anything else
//   --exit-after-ms=N --exit-code=C   later
//   --only-index=N          the exit options apply to the worker with that index only
//   --on=SIG:drain|kill|note|exit   what a signal does (USR2:drain): drain and exit 0; drain and
//                           die by SIGKILL; nothing but a line in --events; exit 0 at once
//   --drain-delay-ms=N      stay that long after the last answer
//   --children=N            processes that only wait, in the worker's process group
//   --leak-kb=N             memory lost with every request
//   --linger-ms=N           when draining, a kept connection is served until it has been silent so
//                           long; its next answer says "Connection: close"
//   --ledger=DIR            a file there says which connections are in its hands (ledger.h); for
//                           IPv4 sockets with O_NONBLOCK
//   --events=FILE           "start PID INDEX", "signal NAME PID", "exit PID" are appended
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ledger.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

enum class SignalAction { kDrain, kKill, kNote, kExit };

struct Options {
  std::string adopt = "einhorn";
  int threads = 4;
  std::string label;
  int request_delay_ms = 0;
  std::string ack;
  int ack_delay_ms = 0;
  int ack_pid = 0;
  bool ack_from_child = false;
  std::string ping;
  std::string status;
  int watchdog_ms = 0;
  int exit_at_start = -1;
  int exit_after_ms = -1;
  int exit_code = 1;
  int only_index = -1;
  std::map<int, SignalAction> on{{SIGUSR2, SignalAction::kDrain}};
  int drain_delay_ms = 0;
  int children = 0;
  int leak_kb = 0;
  int linger_ms = 0;
  std::string ledger;
  std::string events;
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

int to_int(const std::string& text) {
  return static_cast<int>(std::strtol(text.c_str(), nullptr, 10));
}

[[noreturn]] void refuse(std::string_view what) {
  std::fprintf(stderr, "http_worker: %.*s\n", static_cast<int>(what.size()), what.data());
  std::exit(64);
}

int signal_number(const std::string& name) {
  static const std::map<std::string, int> kKnown{
      {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"TERM", SIGTERM},  {"INT", SIGINT},
      {"HUP", SIGHUP},   {"QUIT", SIGQUIT}, {"WINCH", SIGWINCH}};
  auto found = kKnown.find(name);
  if (found == kKnown.end()) refuse("no such signal: " + name);
  return found->second;
}

std::string signal_name(int number) {
  const char* name = sigabbrev_np(number);
  return name == nullptr ? std::to_string(number) : name;
}

void parse_on(const std::string& value, Options& options) {
  static const std::map<std::string, SignalAction> kKnown{{"drain", SignalAction::kDrain},
                                                          {"kill", SignalAction::kKill},
                                                          {"note", SignalAction::kNote},
                                                          {"exit", SignalAction::kExit}};
  auto colon = value.find(':');
  if (colon == std::string::npos) refuse("--on=SIG:ACTION, not " + value);
  auto action = kKnown.find(value.substr(colon + 1));
  if (action == kKnown.end()) refuse("no such action: " + value);
  options.on[signal_number(value.substr(0, colon))] = action->second;
}

void parse_option(const std::string& word, Options& options);

void parse_file(const std::string& path, Options& options) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) parse_option(line, options);
  }
}

void parse_option(const std::string& word, Options& options) {
  auto equals = word.find('=');
  std::string key = word.substr(0, equals);
  std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
  const std::map<std::string, int*> numbers{{"--threads", &options.threads},
                                            {"--request-delay-ms", &options.request_delay_ms},
                                            {"--ack-delay-ms", &options.ack_delay_ms},
                                            {"--ack-pid", &options.ack_pid},
                                            {"--watchdog-ms", &options.watchdog_ms},
                                            {"--exit-at-start", &options.exit_at_start},
                                            {"--exit-after-ms", &options.exit_after_ms},
                                            {"--exit-code", &options.exit_code},
                                            {"--only-index", &options.only_index},
                                            {"--drain-delay-ms", &options.drain_delay_ms},
                                            {"--children", &options.children},
                                            {"--leak-kb", &options.leak_kb},
                                            {"--linger-ms", &options.linger_ms}};
  const std::map<std::string, std::string*> texts{
      {"--adopt", &options.adopt},  {"--label", &options.label},   {"--ack", &options.ack},
      {"--ping", &options.ping},    {"--status", &options.status}, {"--events", &options.events},
      {"--ledger", &options.ledger}};
  if (auto number = numbers.find(key); number != numbers.end()) {
    *number->second = to_int(value);
  } else if (auto text = texts.find(key); text != texts.end()) {
    *text->second = value;
  } else if (key == "--on") {
    parse_on(value, options);
  } else if (key == "--ack-from") {
    options.ack_from_child = value == "child";
  } else if (key == "--options-file") {
    parse_file(value, options);
  } else {
    refuse("no such option: " + word);
  }
}

void note(const Options& options, const std::string& line) {
  if (options.events.empty()) return;
  int fd = open(options.events.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  std::string text = line + "\n";
  if (write(fd, text.data(), text.size()) < 0) std::perror("http_worker: events");
  close(fd);
}

int own_socket(const std::string& port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(to_int(port)));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, SOMAXCONN) != 0) {
    refuse("can't listen on port " + port);
  }
  return fd;
}

std::vector<int> adopted_sockets(const Options& options) {
  std::vector<int> sockets;
  if (options.adopt == "einhorn") {
    int count = to_int(environment("EINHORN_FD_COUNT"));
    for (int i = 0; i < count; ++i) {
      sockets.push_back(to_int(environment(("EINHORN_FD_" + std::to_string(i)).c_str())));
    }
  } else if (options.adopt == "listen") {
    int count = to_int(environment("LISTEN_FDS"));
    if (environment("LISTEN_PID") != std::to_string(getpid())) refuse("LISTEN_PID is not mine");
    for (int i = 0; i < count; ++i) sockets.push_back(3 + i);
  } else if (options.adopt.starts_with("bind:")) {
    sockets.push_back(own_socket(options.adopt.substr(5)));
  } else if (options.adopt != "none") {
    std::string rest = options.adopt;
    for (std::size_t comma = 0; comma != std::string::npos;) {
      comma = rest.find(',');
      sockets.push_back(to_int(rest.substr(0, comma)));
      if (comma != std::string::npos) rest = rest.substr(comma + 1);
    }
  }
  return sockets;
}

// Serves the sockets with threads; drain() returns when everything accepted has been answered.
class Server {
 public:
  explicit Server(const Options& options) : options_(options) {}

  void start(const std::vector<int>& sockets) {
    struct sigaction wake = {};
    wake.sa_handler = [](int) {};  // no SA_RESTART: it only interrupts accept()
    sigaction(kWakeSignal, &wake, nullptr);
    ledger_.open(options_.ledger, sockets.size() * static_cast<std::size_t>(options_.threads));
    std::size_t index = 0;
    for (int fd : sockets) {
      int type = 0;
      socklen_t size = sizeof type;
      if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
        refuse("descriptor " + std::to_string(fd) + " is no socket: " + std::strerror(errno));
      }
      for (int i = 0; i < options_.threads; ++i) {
        running_.fetch_add(1);
        ledger::Slot* slot = ledger_.slot(index++);
        auto leave = [this, fd, type, slot] {
          if (type == SOCK_DGRAM) {
            serve_datagrams(fd);
          } else if (slot != nullptr) {
            serve_by_ledger(fd, slot);
          } else {
            serve_connections(fd);
          }
          running_.fetch_sub(1);
        };
        threads_.emplace_back(leave);
      }
    }
  }

  // A signal that comes just before accept() interrupts nothing, hence again and again.
  void drain() {
    stopped_ = Clock::now();
    stop_ = true;
    while (running_.load() > 0) {
      for (auto& thread : threads_) pthread_kill(thread.native_handle(), kWakeSignal);
      std::this_thread::sleep_for(milliseconds(2));
    }
    for (auto& thread : threads_) thread.join();
    threads_.clear();
    ledger_.remove();
  }

 private:
  static constexpr int kWakeSignal = SIGALRM;

  std::string body(int fd) const {
    std::string index = environment("EINHORN_CHILD_INDEX");
    return "{\"pid\":" + std::to_string(getpid()) + ",\"index\":" + (index.empty() ? "-1" : index) +
           ",\"fd\":" + std::to_string(fd) + ",\"label\":\"" + options_.label + "\"}";
  }

  void wait_request_delay() {
    auto until = Clock::now() + milliseconds(options_.request_delay_ms);
    if (options_.request_delay_ms > 0) std::this_thread::sleep_until(until);
    if (options_.leak_kb > 0) {
      auto size = static_cast<std::size_t>(options_.leak_kb) * 1024;
      const std::lock_guard<std::mutex> lock(leak_mutex_);
      leak_.emplace_back(size, 'x');
    }
  }

  void wait_readable(int fd) const {
    pollfd entry{fd, POLLIN, 0};
    poll(&entry, 1, 1000);
  }

  void serve_connections(int fd) {
    while (!stop_) {
      int connection = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) {
        serve(connection, fd);
        close(connection);
      } else if (errno == EAGAIN) {
        wait_readable(fd);
      } else if (errno != EINTR && errno != ECONNABORTED) {
        std::perror("http_worker: accept");
        return;
      }
    }
  }

  // One connection wakes one thread (EPOLLEXCLUSIVE). If that one dies before it accepts, the next
  // connection or the time limit wakes another.
  void serve_by_ledger(int fd, ledger::Slot* slot) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_event interest{};
    interest.events = EPOLLIN | EPOLLEXCLUSIVE;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest);
    while (!stop_) {
      epoll_event event{};
      if (epoll_wait(epoll, &event, 1, 100) < 0) continue;
      sockaddr_in client{};
      socklen_t size = sizeof client;
      slot->state = ledger::kAccepting;
      int connection = accept4(fd, reinterpret_cast<sockaddr*>(&client), &size, SOCK_CLOEXEC);
      if (connection < 0) {
        slot->state = ledger::kIdle;
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
          std::perror("http_worker: accept");
          break;
        }
        continue;
      }
      ledger::hold(slot, client);
      serve(connection, fd, slot);
      close(connection);
      slot->state = ledger::kIdle;
    }
    close(epoll);
  }

  // Nothing more is to be read from a connection that has been silent since we began to drain.
  bool silent(Clock::time_point last) const {
    auto since = std::max(last, stopped_.load());
    return stop_ && Clock::now() - since >= milliseconds(options_.linger_ms);
  }

  // Requests of one connection until it is closed, `Connection: close` is asked for, or we drain.
  void serve(int connection, int fd, ledger::Slot* slot = nullptr) {
    timeval limit{20, 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    std::string input;
    auto answered = Clock::now();
    for (bool first = true;; first = false) {
      std::size_t end = std::string::npos;
      while ((end = input.find("\r\n\r\n")) == std::string::npos) {
        if (!first && input.empty() && silent(answered)) return;
        char buffer[4096];
        ssize_t got = recv(connection, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        input.append(buffer, static_cast<std::size_t>(got));
      }
      bool closing = stop_ || input.find("Connection: close") < end;
      input.erase(0, end + 4);
      wait_request_delay();
      std::string text = body(fd);
      std::string reply = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " +
                          std::to_string(text.size()) + (closing ? "\r\nConnection: close" : "") +
                          "\r\n\r\n" + text;
      if (!send_all(connection, reply) || closing) return;
      answered = Clock::now();
      if (slot != nullptr) ++slot->requests;
    }
  }

  static bool send_all(int fd, std::string_view text) {
    while (!text.empty()) {
      ssize_t sent = send(fd, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  void serve_datagrams(int fd) {
    while (!stop_) {
      char buffer[2048];
      sockaddr_storage peer = {};
      socklen_t size = sizeof peer;
      auto* address = reinterpret_cast<sockaddr*>(&peer);
      ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, address, &size);
      if (got >= 0) {
        std::string text = body(fd);
        sendto(fd, text.data(), text.size(), 0, address, size);
      } else if (errno == EAGAIN) {
        wait_readable(fd);
      } else if (errno != EINTR) {
        return;
      }
    }
  }

  const Options& options_;
  ledger::Ledger ledger_;
  std::atomic<bool> stop_ = false;
  std::atomic<Clock::time_point> stopped_{};  // when `stop_` was set
  std::atomic<int> running_ = 0;
  std::vector<std::thread> threads_;
  std::mutex leak_mutex_;
  std::list<std::string> leak_;
};

// --- talking to the master
// ------------------------------------------------------------------------

int connect_command_socket() {
  std::string path = environment("EINHORN_SOCK_PATH");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    std::perror("http_worker: connect to EINHORN_SOCK_PATH");
    close(fd);
    return -1;
  }
  return fd;
}

void send_command(const Options& options, const std::string& line) {
  bool inherited = options.ack == "fd";
  int fd = inherited ? to_int(environment("EINHORN_SOCK_FD")) : connect_command_socket();
  if (fd < 0) return;
  if (write(fd, line.data(), line.size()) < 0) std::perror("http_worker: write a command");
  if (!inherited) {
    char byte = 0;
    while (read(fd, &byte, 1) < 0 && errno == EINTR) {  // until the master closes it
    }
    close(fd);
  }
}

void send_notification(const std::string& text) {
  std::string path = environment("NOTIFY_SOCKET");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (!path.empty() && path[0] == '@') address.sun_path[0] = '\0';
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sendto(fd, text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&address), size) < 0) {
    std::perror("http_worker: NOTIFY_SOCKET");
  }
  close(fd);
}

void say_ready(const Options& options) {
  if (options.ack_from_child) {
    pid_t worker = getpid();
    pid_t child = fork();
    if (child != 0) {
      waitpid(child, nullptr, 0);
      return;
    }
    send_command(options, "{\"command\":\"worker:ack\",\"pid\":" + std::to_string(worker) + "}\n");
    _exit(0);
  }
  if (options.ack == "notify") {
    send_notification("READY=1");
    if (!options.status.empty()) send_notification("STATUS=" + options.status);
  } else {
    int pid = options.ack_pid == 0 ? getpid() : options.ack_pid;
    send_command(options, "{\"command\":\"worker:ack\",\"pid\":" + std::to_string(pid) + "}\n");
  }
  if (!options.ping.empty()) {
    send_command(options, "{\"command\":\"worker:ping\",\"pid\":" + std::to_string(getpid()) +
                              ",\"request_id\":\"" + options.ping + "\"}\n");
  }
}

// --- the main thread: signals and deadlines
// ---------------------------------------------------------

class Main {
 public:
  Main(const Options& options, Server& server) : options_(options), server_(server) {}

  [[noreturn]] void run(const sigset_t& signals, bool may_exit) {
    if (!options_.ack.empty()) {
      at(options_.ack_delay_ms, [this] { say_ready(options_); });
    }
    if (options_.watchdog_ms > 0) schedule_watchdog();
    if (options_.exit_after_ms >= 0 && may_exit) {
      at(options_.exit_after_ms, [this] { _exit(options_.exit_code); });
    }
    while (true) {
      while (!timers_.empty() && timers_.begin()->first <= Clock::now()) {
        auto action = timers_.begin()->second;
        timers_.erase(timers_.begin());
        action();
      }
      int number = wait_signal(signals);
      if (number > 0) on_signal(number);
    }
  }

 private:
  void at(int delay_ms, std::function<void()> action) {
    timers_.emplace(Clock::now() + milliseconds(delay_ms), std::move(action));
  }

  void schedule_watchdog() {
    at(options_.watchdog_ms, [this] {
      send_notification("WATCHDOG=1");
      schedule_watchdog();
    });
  }

  int wait_signal(const sigset_t& signals) {
    if (timers_.empty()) return sigwaitinfo(&signals, nullptr);
    auto left =
        std::chrono::duration_cast<std::chrono::nanoseconds>(timers_.begin()->first - Clock::now());
    auto count = std::max<std::int64_t>(left.count(), 0);
    timespec limit{count / 1'000'000'000, count % 1'000'000'000};
    return sigtimedwait(&signals, nullptr, &limit);
  }

  void on_signal(int number) {
    note(options_, "signal " + signal_name(number) + " " + std::to_string(getpid()));
    switch (options_.on.at(number)) {
      case SignalAction::kNote:
        return;
      case SignalAction::kExit:
        _exit(0);
      case SignalAction::kKill:
        server_.drain();
        kill(getpid(), SIGKILL);
        pause();
        return;
      case SignalAction::kDrain:
        server_.drain();
        std::this_thread::sleep_for(milliseconds(options_.drain_delay_ms));
        note(options_, "exit " + std::to_string(getpid()));
        _exit(0);
    }
  }

  const Options& options_;
  Server& server_;
  std::multimap<Clock::time_point, std::function<void()>> timers_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) parse_option(argv[i], options);
  std::string index = environment("EINHORN_CHILD_INDEX");
  bool may_exit = options.only_index < 0 || index == std::to_string(options.only_index);
  note(options, "start " + std::to_string(getpid()) + " " + index);
  if (options.exit_at_start >= 0 && may_exit) return options.exit_at_start;

  for (int i = 0; i < options.children; ++i) {
    if (fork() == 0) {
      for (;;) pause();
    }
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const auto& [number, action] : options.on) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Server server(options);
  server.start(adopted_sockets(options));
  Main(options, server).run(signals, may_exit);
}
