// What a worker of Einhorn needs, in C++17: a header over the C library (link with einhorn-worker).
//
//   einhorn::on_stop();                                   // SIGUSR2 means: finish and leave
//   einhorn::Listener listener = einhorn::listener("web");
//   einhorn::ack();
//   while (auto connection = listener.accept()) serve(connection->fd());
//
// Outside Einhorn is_worker() is false, and ack(), ping(), status() and notify() return false and
// tell nobody, so that a program can be started by hand. What fails throws einhorn::Error with a
// reason. See worker.h for the details; every function here is one of its functions.
#pragma once

#include <unistd.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <einhorn/worker.h>

namespace einhorn {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {
inline int checked(int result) {
  if (result < 0) throw Error(einhorn_error());
  return result;
}
}  // namespace detail

enum class Via {
  kAuto = EINHORN_AUTO,      // the command socket: by its path, else by descriptor
  kPath = EINHORN_PATH,      // EINHORN_SOCK_PATH
  kFd = EINHORN_FD,          // EINHORN_SOCK_FD (einhorn -g): good for one message
  kNotify = EINHORN_NOTIFY,  // NOTIFY_SOCKET (einhorn -m notify)
};

// Does Einhorn run this process?
inline bool is_worker() noexcept { return einhorn_is_worker() == 1; }

// Throws, with the reason, if it does not.
inline void require_worker() { detail::checked(einhorn_require_worker()); }

// This worker's index, unique among living workers; nothing outside Einhorn.
inline std::optional<int> index() noexcept {
  const int index = einhorn_index();
  return index < 0 ? std::nullopt : std::optional<int>(index);
}

// How many sockets were handed in.
inline int socket_count() noexcept { return einhorn_socket_count(); }

// An open descriptor that is closed with its owner.
class Connection {
 public:
  explicit Connection(int fd) noexcept : fd_(fd) {}
  Connection(Connection&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Connection& operator=(Connection&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// A socket that was handed in.
class Listener {
 public:
  explicit Listener(int fd) noexcept : socket_(fd) {}
  [[nodiscard]] int fd() const noexcept { return socket_.fd(); }

  // The next connection; nothing once a stop was asked for. The socket becomes non-blocking, for
  // all its users.
  [[nodiscard]] std::optional<Connection> accept() const {
    const int fd = einhorn_accept(socket_.fd());
    if (fd < 0 && einhorn_stopping() == 0) throw Error(einhorn_error());
    return fd < 0 ? std::nullopt : std::optional<Connection>(Connection(fd));
  }

 private:
  Connection socket_;
};

// The socket with this number, from 0 in the order of -b, or with this name.
inline Listener listener(int number = 0) {
  return Listener(detail::checked(einhorn_socket(number)));
}
inline Listener listener(const std::string& name) {
  return Listener(detail::checked(einhorn_socket_named(name.c_str())));
}
inline Listener listener(const char* name) { return listener(std::string(name)); }

// "I am ready." False if this is no worker.
inline bool ack(Via via = Via::kAuto) {
  return detail::checked(einhorn_ack(static_cast<einhorn_via>(via))) == 1;
}

// What a ping tells; everything may be left out.
struct Ping {
  std::optional<std::string> request_id;
  std::optional<bool> busy;
  std::optional<std::string> status;
};

// "I am alive", and what this worker is at. False if this is no worker.
inline bool ping(const Ping& what = {}) {
  const einhorn_load load = !what.busy   ? EINHORN_LOAD_UNKNOWN
                            : *what.busy ? EINHORN_BUSY
                                         : EINHORN_IDLE;
  return detail::checked(einhorn_ping(what.request_id ? what.request_id->c_str() : nullptr, load,
                                      what.status ? what.status->c_str() : nullptr)) == 1;
}

// A line about this worker for `einhornsh -e status`. False if there is no NOTIFY_SOCKET.
inline bool status(const std::string& text) {
  return detail::checked(einhorn_status(text.c_str())) == 1;
}

// sd_notify(3)'s assignments. False if there is no NOTIFY_SOCKET.
inline bool notify(const std::string& assignments) {
  return detail::checked(einhorn_notify(assignments.c_str())) == 1;
}

// This signal (0: SIGUSR2) asks for a graceful stop. The descriptor becomes readable when it has
// come: for poll().
inline int on_stop(int signal = 0) { return detail::checked(einhorn_on_stop(signal)); }

inline bool stopping() noexcept { return einhorn_stopping() == 1; }

}  // namespace einhorn
