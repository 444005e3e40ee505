#include "intercept/probe.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <optional>
#include <vector>

#include "intercept/connections.h"
#include "intercept/processes.h"
#include "os/linux/retry.h"

namespace einhorn::intercept {
namespace {

using std::chrono::milliseconds;
using Kind = SocketAddress::Kind;

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr milliseconds kFirstPause{5};
constexpr milliseconds kMostPause{200};
constexpr milliseconds kLook{5};
constexpr int kLooks = 60;  // until a connection must have been accepted
constexpr int kAnswerPatienceMs = 5000;
constexpr std::size_t kStatusBytes = 13;  // "HTTP/1.1 200 "

// A connection to a shared socket; none if nobody listens.
os::UniqueFd connect_to(const SocketAddress& shared) {
  SocketAddress address = shared;
  if (is_wildcard(address)) {
    address.ip = {};
    if (address.kind == Kind::kInet) {
      address.ip[0] = 127;
      address.ip[3] = 1;
    } else {
      address.ip[15] = 1;
    }
  }
  const std::string bytes = encode_address(address);
  const int domain = address.kind == Kind::kInet    ? AF_INET
                     : address.kind == Kind::kInet6 ? AF_INET6
                                                    : AF_UNIX;
  os::UniqueFd stream(socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!stream || bytes.empty()) {
    return {};
  }
  if (connect(stream.get(), reinterpret_cast<const sockaddr*>(bytes.data()),
              static_cast<socklen_t>(bytes.size())) != 0 &&
      errno != EINPROGRESS) {
    return {};
  }
  return stream;
}

}  // namespace

bool is_good_answer(std::string_view text) {
  return text.size() >= kStatusBytes - 1 && text.starts_with("HTTP/1.") && text[8] == ' ' &&
         (text[9] == '2' || text[9] == '3') && text[10] >= '0' && text[10] <= '9' &&
         text[11] >= '0' && text[11] <= '9';
}

struct Probes::Probe {
  Asker worker;
  pid_t pid = 0;
  std::string kind;
  Desk* desk = nullptr;
  Reports* reports = nullptr;

  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;

  void run() {
    milliseconds interval = kFirstPause;
    while (!once()) {
      if (pause(interval)) {
        return;
      }
      interval = std::min(interval * 2, kMostPause);
    }
    reports->probed(worker.worker);
  }

  bool pause(milliseconds time) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, time, [this] { return ended; });
  }

  bool once() {
    for (const DrainSocket& each : desk->sockets()) {
      if (each.shared.datagram) {
        continue;
      }
      const os::UniqueFd stream = connect_to(each.shared.address);
      if (stream && is_ours(stream.get()) && answers(stream.get())) {
        return true;
      }
    }
    return false;
  }

  // Whether it is our worker that has accepted it.
  bool is_ours(int stream) {
    for (int i = 0; i < kLooks; ++i) {
      const std::optional<std::uint64_t> other = other_end(stream);
      if (!other) {
        return false;
      }
      if (*other != 0) {
        const std::vector<pid_t> processes = processes_of(pid);
        return std::any_of(processes.begin(), processes.end(), [&](pid_t process) {
          const Holdings holdings = holdings_of(process, {});
          return std::any_of(holdings.sockets.begin(), holdings.sockets.end(),
                             [&](const auto& held) { return held.second == *other; });
        });
      }
      if (pause(kLook)) {
        return false;
      }
    }
    return false;
  }

  [[nodiscard]] bool answers(int stream) const {
    if (!kind.starts_with("http:")) {
      return true;
    }
    const std::string request = "GET " + kind.substr(5) +
                                " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: einhorn\r\n"
                                "Connection: close\r\n\r\n";
    if (send(stream, request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
      return false;
    }
    std::string text;
    while (text.size() < kStatusBytes) {
      pollfd waiting{stream, POLLIN, 0};
      std::array<char, 512> buffer;
      if (os::retry([&] { return poll(&waiting, 1, kAnswerPatienceMs); }) <= 0) {
        return false;
      }
      const ssize_t count =
          os::retry([&] { return recv(stream, buffer.data(), buffer.size(), 0); });
      if (count <= 0) {
        return false;
      }
      text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return is_good_answer(text);
  }
};

void* Probes::thread(void* argument) {
  const std::unique_ptr<std::shared_ptr<Probe>> probe(
      static_cast<std::shared_ptr<Probe>*>(argument));
  (*probe)->run();
  return nullptr;
}

void Probes::begin(const Asker& worker, pid_t pid) {
  if (pid <= 0 || probes_.contains(worker.worker)) {
    return;
  }
  auto probe = std::make_shared<Probe>();
  probe->worker = worker;
  probe->pid = pid;
  probe->kind = kind_;
  probe->desk = &desk_;
  probe->reports = &reports_;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t id{};
  auto argument = std::make_unique<std::shared_ptr<Probe>>(probe);
  if (pthread_create(&id, &attributes, &Probes::thread, argument.get()) == 0) {
    static_cast<void>(argument.release());
    probes_[worker.worker] = probe;
  } else {
    reports_.error("probe_failed",
                   "There is no thread to be had to probe a worker; it counts as up");
    reports_.probed(worker.worker);
  }
  pthread_attr_destroy(&attributes);
}

void Probes::ended(Epoch worker) {
  if (const auto found = probes_.find(worker); found != probes_.end()) {
    {
      const std::lock_guard lock(found->second->mutex);
      found->second->ended = true;
      found->second->changed.notify_all();
    }
    probes_.erase(found);
  }
}

}  // namespace einhorn::intercept
