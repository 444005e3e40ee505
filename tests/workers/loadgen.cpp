// Load for tests: HTTP requests over many connections at a time, each of them accounted for.
//
//   loadgen ADDRESS [--connections=N] [--mode=new|keepalive] [--requests=N] [--rate=N]
//           [--timeout-ms=N] [--progress=FILE] [--failures=FILE]
//
// ADDRESS is 127.0.0.1:PORT, [::1]:PORT, unix:/path or unix:@name. `new` (default) opens a
// connection for every request, `keepalive` keeps them. --rate limits the requests a second (0:
// none). After --requests, or at SIGTERM, nothing new is begun, what is under way is finished, and
// one JSON object is printed: requests (= ok + failures), how many of them went over a kept
// connection, failed by kind, latencies, the longest time without any answer, answers by pid, and
// the first failures. --progress is rewritten with "OK FAILED" while it runs; --failures gets a
// line of JSON for every failed request: kind, errno, seconds from the start, when it began and
// failed (CLOCK_MONOTONIC), how far it had come, the connection's own address, bytes of an answer.
//
// Kinds of failure: refused, reset, timeout, eof (closed without an answer), bad_reply, other.
// Nothing is ever sent twice: a request that fails on a kept connection has failed.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string address;
  int connections = 16;
  bool keep_alive = false;
  long requests = -1;
  long rate = 2000;
  int timeout_ms = 10'000;
  std::string progress;
  std::string failures;
};

[[noreturn]] void refuse(std::string_view what) {
  std::fprintf(stderr, "loadgen: %.*s\n", static_cast<int>(what.size()), what.data());
  std::exit(64);
}

// The number at the beginning of the text.
int to_int(const std::string& text) {
  return static_cast<int>(std::strtol(text.c_str(), nullptr, 10));
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    auto equals = word.find('=');
    std::string key = word.substr(0, equals);
    std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (key == "--connections") {
      options.connections = to_int(value);
    } else if (key == "--mode") {
      options.keep_alive = value == "keepalive";
    } else if (key == "--requests") {
      options.requests = to_int(value);
    } else if (key == "--rate") {
      options.rate = to_int(value);
    } else if (key == "--timeout-ms") {
      options.timeout_ms = to_int(value);
    } else if (key == "--progress") {
      options.progress = value;
    } else if (key == "--failures") {
      options.failures = value;
    } else if (word.rfind("--", 0) == 0) {
      refuse("no such option: " + word);
    } else {
      options.address = word;
    }
  }
  if (options.address.empty()) refuse("an address is needed");
  return options;
}

struct Target {
  sockaddr_storage address = {};
  socklen_t size = 0;
  bool loopback4 = false;
};

Target parse_target(const std::string& text) {
  Target target;
  if (text.rfind("unix:", 0) == 0) {
    auto& unix_address = reinterpret_cast<sockaddr_un&>(target.address);
    std::string path = text.substr(5);
    unix_address.sun_family = AF_UNIX;
    path.copy(unix_address.sun_path, sizeof unix_address.sun_path - 1);
    bool abstract = !path.empty() && path[0] == '@';
    if (abstract) unix_address.sun_path[0] = '\0';
    target.size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
    return target;
  }
  auto colon = text.rfind(':');
  if (colon == std::string::npos) refuse("no port in " + text);
  auto port = htons(static_cast<std::uint16_t>(to_int(text.substr(colon + 1))));
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(target.address);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = port;
    if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6.sin6_addr) != 1) {
      refuse("no address: " + text);
    }
    target.size = sizeof v6;
    return target;
  }
  auto& v4 = reinterpret_cast<sockaddr_in&>(target.address);
  v4.sin_family = AF_INET;
  v4.sin_port = port;
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) != 1) refuse("no address: " + text);
  target.size = sizeof v4;
  target.loopback4 = host.rfind("127.", 0) == 0;
  return target;
}

struct Tally {
  long ok = 0;
  std::map<std::string, long> failed;
  std::map<std::string, long> by_pid;
  std::vector<std::string> first_failures;
  std::vector<double> latencies;
  long started = 0;
  long reused = 0;  // began on a kept connection
  std::chrono::duration<double, std::milli> longest_gap{};

  long failures() const {
    long sum = 0;
    for (const auto& [kind, count] : failed) sum += count;
    return sum;
  }
};

struct Connection {
  enum class Stage { kIdle, kConnecting, kWaiting };
  int fd = -1;
  Stage stage = Stage::kIdle;
  Clock::time_point begun;
  bool reused = false;
  std::string input;
};

class Load {
 public:
  explicit Load(const Options& options)
      : options_(options),
        target_(parse_target(options.address)),
        connections_(static_cast<std::size_t>(options.connections)),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    request_ = std::string("GET / HTTP/1.1\r\nHost: test\r\n") +
               (options.keep_alive ? "" : "Connection: close\r\n") + "\r\n";
    if (!options.failures.empty()) {
      failures_ = std::fopen(options.failures.c_str(), "we");
      if (failures_ == nullptr) refuse("can't write " + options.failures);
    }
  }

  void run() {
    open_signal_and_timer();
    while (!finished()) {
      begin_requests();
      epoll_event events[64];
      int count = epoll_wait(epoll_, events, 64, 1000);
      for (int i = 0; i < count; ++i) on_event(events[i]);
    }
    note_gap();
    write_progress();
    print();
    if (failures_ != nullptr) std::fclose(failures_);
  }

 private:
  static constexpr std::uint64_t kSignal = ~0ULL;
  static constexpr std::uint64_t kTimer = ~1ULL;

  void watch(int fd, std::uint64_t tag, std::uint32_t events, int operation = EPOLL_CTL_ADD) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = tag;
    epoll_ctl(epoll_, operation, fd, &event);
  }

  void open_signal_and_timer() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    watch(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), kSignal, EPOLLIN);
    timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    itimerspec every{};
    every.it_interval.tv_nsec = every.it_value.tv_nsec = 5'000'000;
    timerfd_settime(timer_, 0, &every, nullptr);
    watch(timer_, kTimer, EPOLLIN);
  }

  bool begin_allowed() const {
    if (stopping_ || (options_.requests >= 0 && tally_.started >= options_.requests)) return false;
    if (options_.rate == 0) return true;
    std::chrono::duration<double> run = Clock::now() - start_;
    return static_cast<double>(tally_.started) <= run.count() * static_cast<double>(options_.rate);
  }

  bool finished() const {
    bool ended = stopping_ || (options_.requests >= 0 && tally_.started >= options_.requests);
    return ended && std::all_of(connections_.begin(), connections_.end(),
                                [](const auto& c) { return c.stage == Connection::Stage::kIdle; });
  }

  void begin_requests() {
    // In turns, so that no kept connection is idle for long: a server that leaves closes those.
    for (std::size_t i = 0; i < connections_.size() && begin_allowed(); ++i) {
      next_ = (next_ + 1) % connections_.size();
      if (connections_[next_].stage == Connection::Stage::kIdle) begin(next_);
    }
  }

  void begin(std::size_t index) {
    auto& connection = connections_[index];
    ++tally_.started;
    connection.begun = Clock::now();
    connection.input.clear();
    connection.reused = connection.fd >= 0;
    if (connection.reused) {
      ++tally_.reused;
      send_request(index);
      return;
    }
    connection.fd =
        socket(target_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection.fd < 0) {
      fail(index, "other", errno);
      return;
    }
    if (target_.loopback4) spread_source(connection.fd);
    connection.stage = Connection::Stage::kConnecting;
    watch(connection.fd, index, EPOLLOUT);
    auto* address = reinterpret_cast<sockaddr*>(&target_.address);
    if (connect(connection.fd, address, target_.size) != 0 && errno != EINPROGRESS) {
      // A unix socket whose queue is full says EAGAIN: no failure of the server.
      errno == EAGAIN ? again(index) : fail(index, kind_of(errno), errno);
    }
  }

  // One source address has 28,000 ports and each rests a minute; loopback has many addresses.
  void spread_source(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    sockaddr_in source{};
    source.sin_family = AF_INET;
    source.sin_addr.s_addr = htonl(0x7f000002U + static_cast<std::uint32_t>(tally_.started % 200));
    if (bind(fd, reinterpret_cast<sockaddr*>(&source), sizeof source) != 0) {
      std::perror("loadgen: bind");
    }
  }

  void again(std::size_t index) {
    --tally_.started;
    drop(index);
  }

  void send_request(std::size_t index) {
    auto& connection = connections_[index];
    connection.stage = Connection::Stage::kWaiting;
    if (send(connection.fd, request_.data(), request_.size(), MSG_NOSIGNAL) < 0) {
      fail(index, kind_of(errno), errno);
      return;
    }
    watch(connection.fd, index, EPOLLIN, EPOLL_CTL_MOD);
  }

  void on_event(const epoll_event& event) {
    if (event.data.u64 == kSignal) {
      stopping_ = true;
    } else if (event.data.u64 == kTimer) {
      std::uint64_t count = 0;
      if (read(timer_, &count, sizeof count) > 0) on_tick();
    } else {
      on_connection(event.data.u64);
    }
  }

  void on_tick() {
    auto limit = Clock::now() - std::chrono::milliseconds(options_.timeout_ms);
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      const auto& connection = connections_[i];
      if (connection.stage != Connection::Stage::kIdle && connection.begun < limit) {
        fail(i, "timeout", ETIMEDOUT);
      }
    }
    if (++ticks_ % 10 == 0) write_progress();
  }

  void on_connection(std::size_t index) {
    auto& connection = connections_[index];
    switch (connection.stage) {
      case Connection::Stage::kIdle:
        if (connection.fd >= 0) drop(index);  // an idle kept connection that the server closed
        return;
      case Connection::Stage::kConnecting: {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &error, &size);
        error == 0 ? send_request(index) : fail(index, kind_of(error), error);
        return;
      }
      case Connection::Stage::kWaiting:
        receive(index);
        return;
    }
  }

  void receive(std::size_t index) {
    auto& connection = connections_[index];
    char buffer[4096];
    ssize_t got = recv(connection.fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) {
      fail(index, kind_of(errno), errno);
      return;
    }
    if (got == 0) {
      fail(index, connection.input.empty() ? "eof" : "bad_reply", 0);
      return;
    }
    connection.input.append(buffer, static_cast<std::size_t>(got));
    check_reply(index);
  }

  void check_reply(std::size_t index) {
    auto& connection = connections_[index];
    const std::string& input = connection.input;
    auto end = input.find("\r\n\r\n");
    if (end == std::string::npos) return;
    // Names of fields may be written in any case.
    std::string head = input.substr(0, end);
    std::transform(head.begin(), head.end(), head.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    auto field = head.find("\r\ncontent-length: ");
    if (head.rfind("http/1.1 200 ", 0) != 0 || field == std::string::npos) {
      fail(index, "bad_reply", 0);
      return;
    }
    auto length = static_cast<std::size_t>(to_int(head.substr(field + 18)));
    if (input.size() < end + 4 + length) return;
    auto pid = input.find("\"pid\":", end);
    if (pid == std::string::npos) {
      fail(index, "bad_reply", 0);
      return;
    }
    ++tally_.ok;
    note_gap();
    ++tally_.by_pid[std::to_string(to_int(input.substr(pid + 6)))];
    std::chrono::duration<double, std::milli> latency = Clock::now() - connection.begun;
    tally_.latencies.push_back(latency.count());
    bool closing = head.find("\r\nconnection: close") != std::string::npos;
    connection.stage = Connection::Stage::kIdle;
    if (!options_.keep_alive || closing) drop(index);
  }

  static std::string kind_of(int error) {
    if (error == ECONNREFUSED) return "refused";
    if (error == ECONNRESET || error == EPIPE) return "reset";
    if (error == ETIMEDOUT) return "timeout";
    return "other";
  }

  void fail(std::size_t index, const std::string& kind, int error) {
    ++tally_.failed[kind];
    std::string text = describe_failure(connections_[index], kind, error);
    if (tally_.first_failures.size() < 50) tally_.first_failures.push_back(text);
    if (failures_ != nullptr) std::fprintf(failures_, "%s\n", text.c_str());
    drop(index);
  }

  std::string describe_failure(const Connection& connection, const std::string& kind, int error) {
    using Seconds = std::chrono::duration<double>;
    auto now = Clock::now();
    bool connecting = connection.stage == Connection::Stage::kConnecting;
    char text[400];
    std::snprintf(text, sizeof text,
                  "{\"kind\":\"%s\",\"errno\":%d,\"at\":%.3f,\"connecting\":%s,\"begun\":%.6f,"
                  "\"ended\":%.6f,\"reused\":%s,\"received\":%zu,\"local\":\"%s\"}",
                  kind.c_str(), error, Seconds(now - start_).count(), connecting ? "true" : "false",
                  Seconds(connection.begun.time_since_epoch()).count(),
                  Seconds(now.time_since_epoch()).count(), connection.reused ? "true" : "false",
                  connection.input.size(), own_address(connection.fd).c_str());
    return text;
  }

  // "127.0.0.7:40000"; "" if it is not IPv4 or has none.
  static std::string own_address(int fd) {
    sockaddr_in own{};
    socklen_t size = sizeof own;
    if (fd < 0 || getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) != 0) return "";
    char text[INET_ADDRSTRLEN] = "";
    if (own.sin_family != AF_INET) return "";
    inet_ntop(AF_INET, &own.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(own.sin_port));
  }

  // An answer has come, or the end: how long has there been none?
  void note_gap() {
    auto now = Clock::now();
    tally_.longest_gap = std::max<decltype(tally_.longest_gap)>(tally_.longest_gap, now - last_ok_);
    last_ok_ = now;
  }

  void drop(std::size_t index) {
    auto& connection = connections_[index];
    if (connection.fd >= 0) close(connection.fd);
    connection.fd = -1;
    connection.stage = Connection::Stage::kIdle;
  }

  void write_progress() const {
    if (options_.progress.empty()) return;
    std::string unfinished = options_.progress + ".unfinished";
    FILE* file = std::fopen(unfinished.c_str(), "w");
    if (file == nullptr) return;
    std::fprintf(file, "%ld %ld\n", tally_.ok, tally_.failures());
    std::fclose(file);
    std::rename(unfinished.c_str(), options_.progress.c_str());
  }

  static std::string counts(const std::map<std::string, long>& table) {
    std::string out = "{";
    for (const auto& [name, count] : table) {
      if (out.size() > 1) out += ",";
      out += "\"" + name + "\":" + std::to_string(count);
    }
    return out + "}";
  }

  double latency(double part) {
    if (tally_.latencies.empty()) return 0;
    std::sort(tally_.latencies.begin(), tally_.latencies.end());
    auto last = static_cast<double>(tally_.latencies.size() - 1);
    return tally_.latencies[static_cast<std::size_t>(last * part)];
  }

  void print() {
    std::chrono::duration<double> run = Clock::now() - start_;
    std::string failures;
    for (const auto& failure : tally_.first_failures) {
      failures += (failures.empty() ? "" : ",") + failure;
    }
    std::printf(
        "{\"requests\":%ld,\"ok\":%ld,\"reused\":%ld,\"failed\":%s,\"failures\":%ld,"
        "\"seconds\":%.3f,\"longest_gap_ms\":%.3f,\"latency_ms\":{\"p50\":%.3f,\"p99\":%.3f,"
        "\"max\":%.3f},\"by_pid\":%s,"
        "\"first_failures\":[%s]}\n",
        tally_.started, tally_.ok, tally_.reused, counts(tally_.failed).c_str(), tally_.failures(),
        run.count(), tally_.longest_gap.count(), latency(0.5), latency(0.99), latency(1.0),
        counts(tally_.by_pid).c_str(), failures.c_str());
  }

  Options options_;
  Target target_;
  std::vector<Connection> connections_;
  int epoll_;
  int timer_ = -1;
  long ticks_ = 0;
  std::size_t next_ = 0;
  bool stopping_ = false;
  std::string request_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ok_ = start_;
  Tally tally_;
  FILE* failures_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  Load(parse_options(argc, argv)).run();
}
