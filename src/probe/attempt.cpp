#include "probe/attempt.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/numbers.h"
#include "probe/answer.h"

namespace einhorn::probe {
namespace {

constexpr int kLeastGood = 200;
constexpr int kFirstBad = 400;

// A socket that begins to connect, or an errno.
struct Begun {
  os::UniqueFd fd;
  int error = 0;
  bool connected = false;
};

Begun connect_to(int family, const sockaddr* address, socklen_t length) {
  Begun begun;
  begun.fd = os::UniqueFd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (begun.fd && ::connect(begun.fd.get(), address, length) == 0) {
    begun.connected = true;
  } else if (!begun.fd || errno != EINPROGRESS) {
    begun.error = errno;
  }
  return begun;
}

Begun connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return {os::UniqueFd(), ENAMETOOLONG, false};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path.starts_with('@')) {
    address.sun_path[0] = '\0';
  }
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() +
                                             (path.starts_with('@') ? 0 : 1));
  return connect_to(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), length);
}

// Numbers only, but for names of /etc/hosts and the like: a resolver that hangs would hold up all
// other probes.
Begun connect_inet(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::string host = text.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty() || host == "localhost") {
    host = "127.0.0.1";
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return {os::UniqueFd(), EDESTADDRREQ, false};
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  return connect_to(found->ai_family, found->ai_addr, found->ai_addrlen);
}

}  // namespace

std::optional<Job> parse_job(const std::string& message) {
  Job job;
  std::size_t begin = 0;
  bool named = false;
  while (begin < message.size()) {
    const std::size_t end = std::min(message.find('\n', begin), message.size());
    const std::string line = message.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t equals = line.find('=');
    if (equals == std::string::npos) {
      continue;
    }
    const std::string key = line.substr(0, equals);
    const std::string value = line.substr(equals + 1);
    const auto number = [&value](auto& into) {
      std::string_view text = value;
      const auto found = take_number<std::remove_reference_t<decltype(into)>>(text);
      into = found.value_or(into);
      return found.has_value();
    };
    if (key == "PROBE") {
      named = number(job.id);
    } else if (key == "timeout_ms") {
      number(job.timeout_ms);
    } else if (key == "kind") {
      job.kind = value;
    } else if (key == "address") {
      job.address = value;
    } else if (key == "path") {
      job.path = value;
    } else if (key == "command") {
      job.command = value;
    } else if (key == "pid") {
      job.pid = value;
    } else if (key == "index") {
      job.index = value;
    }
  }
  return named ? std::optional(std::move(job)) : std::nullopt;
}

Attempt::Attempt(Job job)
    : job_(std::move(job)), deadline_(Clock::now() + std::chrono::milliseconds(job_.timeout_ms)) {
  if (job_.kind == "command") {
    begin_command();
  } else {
    begin_connection();
  }
}

// Nobody outlives the prober, or the time that it has.
Attempt::~Attempt() {
  if (child_ > 0 && fd_) {
    ::kill(-child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
}

short Attempt::events() const { return job_.kind != "command" && !connected_ ? POLLOUT : POLLIN; }

void Attempt::end(bool well, std::string detail) {
  verdict_ = Verdict{well, std::move(detail)};
  if (child_ == 0) {
    fd_.reset();
  }
}

void Attempt::fail(const std::string& operation, int error) {
  end(false, operation + ": " + std::strerror(error));
}

void Attempt::begin_connection() {
  Begun begun = job_.address.starts_with("unix:") ? connect_unix(job_.address.substr(5))
                                                  : connect_inet(job_.address);
  if (begun.error != 0) {
    fail("connect " + job_.address, begun.error);
    return;
  }
  fd_ = std::move(begun.fd);
  if (begun.connected) {
    send_request();
  }
}

void Attempt::begin_command() {
  std::vector<std::string> variables = {"EINHORN_WORKER_PID=" + job_.pid,
                                        "EINHORN_CHILD_INDEX=" + job_.index,
                                        "EINHORN_PROBE_ADDRESS=" + job_.address};
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  for (std::string& variable : variables) {
    environment.push_back(variable.data());
  }
  environment.push_back(nullptr);
  std::array<std::string, 3> words = {"sh", "-c", job_.command};
  std::array<char*, 4> arguments = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(
      &attributes,
      static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error =
      posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    fail("start the command", error);
    return;
  }
  child_ = child;
  fd_ = os::UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  if (!fd_) {
    const int why = errno;
    ::kill(-child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    child_ = 0;
    fail("watch the command", why);
  }
}

void Attempt::send_request() {
  connected_ = true;
  if (job_.kind == "tcp") {
    end(true, "");
    return;
  }
  const std::string host = job_.address.starts_with("unix:") ? "localhost" : job_.address;
  const std::string request = "GET " + job_.path + " HTTP/1.1\r\nHost: " + host +
                              "\r\nUser-Agent: einhorn-probe\r\nConnection: close\r\n\r\n";
  // A new connection has room for this.
  if (::send(fd_.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    fail("send to " + job_.address, errno);
  }
}

void Attempt::on_ready() {
  if (job_.kind == "command") {
    read_end();
  } else if (connected_) {
    read_answer();
  } else {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      fail("connect " + job_.address, error);
    } else {
      send_request();
    }
  }
}

void Attempt::read_answer() {
  std::array<char, 1024> buffer{};
  const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (count < 0) {
    if (errno != EAGAIN && errno != EINTR) {
      fail("read from " + job_.address, errno);
    }
    return;
  }
  answer_.append(buffer.data(), static_cast<std::size_t>(count));
  const Answer answer = probe::read_answer(answer_, count == 0);
  switch (answer.kind) {
    case Answer::Kind::kMore:
      return;
    case Answer::Kind::kNothing:
      end(false, job_.address + " closed the connection without an answer");
      return;
    case Answer::Kind::kOther:
      end(false, job_.address + " does not answer with HTTP: " + answer.line);
      return;
    case Answer::Kind::kStatus:
      if (answer.status >= kLeastGood && answer.status < kFirstBad) {
        end(true, "");
      } else {
        end(false, job_.address + job_.path + " answered " + std::to_string(answer.status));
      }
      return;
  }
}

void Attempt::read_end() {
  siginfo_t ended{};
  if (::waitid(P_PID, static_cast<id_t>(child_), &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      ended.si_pid != child_) {
    return;
  }
  ::kill(-child_, SIGKILL);  // what it left behind, before its number can be somebody else's
  int status = 0;
  ::waitpid(std::exchange(child_, 0), &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    end(true, "");
  } else if (WIFEXITED(status)) {
    end(false, "the command ended with status " + std::to_string(WEXITSTATUS(status)));
  } else {
    end(false, "the command was killed by signal " + std::to_string(WTERMSIG(status)));
  }
}

void Attempt::on_timeout() {
  end(false, (job_.kind == "command" ? std::string("the command") : job_.address) +
                 " did not answer within " + std::to_string(job_.timeout_ms) + " ms");
}

}  // namespace einhorn::probe
