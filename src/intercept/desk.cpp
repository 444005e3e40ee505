#include "intercept/desk.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "intercept/processes.h"

namespace einhorn::intercept {
namespace {

constexpr std::size_t kMostTold = 10'000;

using Kind = SocketAddress::Kind;

SocketAddress bound_address(int socket) {
  std::array<std::uint8_t, kMaxAddressBytes> bytes{};
  socklen_t length = bytes.size();
  if (getsockname(socket, reinterpret_cast<sockaddr*>(bytes.data()), &length) != 0) {
    return {};
  }
  return decode_address({bytes.data(), std::min<std::size_t>(length, bytes.size())});
}

int number_option(int socket, int level, int name) {
  int value = 0;
  socklen_t length = sizeof(value);
  return getsockopt(socket, level, name, &value, &length) == 0 ? value : 0;
}

bool same_domain(int domain, const SocketAddress& address) {
  switch (address.kind) {
    case Kind::kInet:
      return domain == AF_INET;
    case Kind::kInet6:
      return domain == AF_INET6;
    case Kind::kPath:
    case Kind::kAbstract:
      return domain == AF_UNIX;
    case Kind::kOther:
      return false;
  }
  return false;
}

std::string who(const Asker& asker, const Ask& ask) {
  return "Worker " + std::to_string(asker.slot) + " (process " + std::to_string(ask.pid) + ")";
}

Form form_of(int socket) {
  Form form;
  form.address = bound_address(socket);
  form.inet6 = form.address.kind == Kind::kInet6;
  form.v6_only = form.inet6 && number_option(socket, IPPROTO_IPV6, IPV6_V6ONLY) != 0;
  return form;
}

}  // namespace

Desk::Desk(Reports& reports) : reports_(reports), news_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void Desk::set_rules(std::vector<os::InterceptRule> rules, bool tell_all) {
  const std::lock_guard lock(mutex_);
  rules_ = std::move(rules);
  tell_all_ = tell_all;
}

void Desk::add(std::uint32_t index, std::string name, int backlog, std::string backup, bool used,
               os::UniqueFd socket) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_.emplace_back();
  entry.shared.index = index;
  entry.shared.name = std::move(name);
  entry.shared.datagram = number_option(socket.get(), SOL_SOCKET, SO_TYPE) == SOCK_DGRAM;
  entry.backlog = backlog;
  entry.backup = std::move(backup);
  Socket& own = entry.sockets.emplace_back();
  own.form = form_of(socket.get());
  own.identity = identity_of(socket.get());
  own.listening = number_option(socket.get(), SOL_SOCKET, SO_ACCEPTCONN) != 0;
  own.used = used && (own.listening || entry.shared.datagram);
  own.fd = std::move(socket);
  entry.shared.address = own.form.address;
  entry.shared.v6_only = own.form.v6_only;
  shared_.push_back(entry.shared);
}

void Desk::add_form(std::uint32_t index, std::uint32_t number, os::UniqueFd socket) {
  const std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.shared.index == index) {
      Socket& form = entry.sockets.emplace_back();
      form.form = form_of(socket.get());
      form.identity = identity_of(socket.get());
      form.listening = number_option(socket.get(), SOL_SOCKET, SO_ACCEPTCONN) != 0;
      form.number = number;
      form.used = form.listening || entry.shared.datagram;
      form.fd = std::move(socket);
      return;
    }
  }
}

Desk::Found Desk::find(const Identity& identity) {
  for (Entry& entry : entries_) {
    for (Socket& socket : entry.sockets) {
      if (socket.identity == identity) {
        return {&entry, &socket};
      }
    }
  }
  return {};
}

// The shared socket in that form, made now if nobody has asked for it before.
Desk::Found Desk::find_form(const Decision& decision, int* error) {
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& each) {
    return each.shared.index == decision.index;
  });
  if (entry == entries_.end()) {
    return {};
  }
  Form wanted = decision.form;
  for (Socket& socket : entry->sockets) {
    if (socket.form == wanted) {
      return {&*entry, &socket};
    }
  }
  const int own = entry->sockets.front().fd.get();
  const int type = entry->shared.datagram ? SOCK_DGRAM : SOCK_STREAM;
  os::UniqueFd fd(::socket(wanted.inet6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0));
  const int yes = 1;
  const int v6_only = wanted.v6_only ? 1 : 0;
  const std::string address = encode_address(wanted.address);
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      (wanted.inet6 &&
       setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only)) != 0) ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(address.data()),
           static_cast<socklen_t>(address.size())) != 0) {
    *error = errno;
    return {};
  }
  for (const SetOption& option : options_set(own)) {
    carry_over(option, fd.get());
  }
  const auto number = static_cast<std::uint32_t>(entry->sockets.size());
  Socket& made = entry->sockets.emplace_back();
  made.form = wanted;
  made.identity = identity_of(fd.get());
  made.number = number;
  made.fd = std::move(fd);
  // On its way to the guard before the program can have it.
  reports_.form(entry->shared.index, number, made.fd.get());
  return {&*entry, &made};
}

// The shared socket becomes as the program wants its own.
void Desk::prepare(const Asker& asker, const Ask& ask, const std::vector<SetOption>& options,
                   Found found) {
  Socket& socket = *found.socket;
  const std::string shown = format(socket.form.address);
  const auto tell_once = [&](const std::string& text) {
    if (told_.size() < kMostTold && told_.insert(text).second) {
      reports_.error("intercept_option", text);
    }
  };
  for (const SetOption& option : options) {
    if (option.refused) {
      tell_once(who(asker, ask) + " has set " + option.text + " on its socket for " + shown +
                "; a shared socket can't have that, so it is left out");
    } else if (!carry_over(option, socket.fd.get())) {
      tell_once(std::string(option.text) + ", which a worker has set, can't be set on " + shown +
                ": " + strerrordesc_np(errno));
    }
  }
  const int flags = fcntl(socket.fd.get(), F_GETFL);
  if (!socket.used) {
    socket.used = true;
    socket.nonblocking = ask.nonblocking;
    fcntl(socket.fd.get(), F_SETFL, ask.nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
  }
  // One that has it set may have been bound without: many programs set it later. So whoever binds
  // without does not disagree with those from before our time.
  const bool opposite = socket.nonblocking ? *socket.nonblocking != ask.nonblocking
                                           : ask.nonblocking && (flags & O_NONBLOCK) == 0;
  socket.nonblocking = socket.nonblocking.value_or(ask.nonblocking);
  if (opposite) {
    tell_once(who(asker, ask) + " wants " + shown +
              (ask.nonblocking ? " with O_NONBLOCK" : " without O_NONBLOCK") +
              ", but another worker wants the opposite, and it is one flag for all: it stays as "
              "the first one wanted it");
  }
}

Answer Desk::on_bind(const Asker& asker, const Ask& ask) {
  const bool inet = ask.domain == AF_INET || ask.domain == AF_INET6;
  {
    const std::lock_guard lock(mutex_);
    if (find(ask.identity).socket != nullptr) {
      // Already given: the call was interrupted by a signal on its way back, and made again.
      return {Answer::Kind::kDone};
    }
  }
  if ((ask.type != SOCK_STREAM && ask.type != SOCK_DGRAM) ||
      !same_domain(ask.domain, ask.address)) {
    return {};
  }
  const Wanted wanted{ask.type == SOCK_DGRAM, ask.domain == AF_INET6, ask.v6_only, ask.address};
  // Looked at without the lock: it is the program's socket, and may make us wait.
  const std::vector<SetOption> options = options_set(ask.socket.get());
  const std::lock_guard lock(mutex_);
  const Decision decision = decide(wanted, shared_, rules_);
  int error = EADDRNOTAVAIL;
  std::string reason = decision.reason;
  switch (decision.kind) {
    case Decision::Kind::kUnmanaged:
      if (tell_all_) {
        tell_unmanaged(asker, ask);
      }
      return {};
    case Decision::Kind::kShared:
      if (const Found found = find_form(decision, &error); found.socket != nullptr) {
        prepare(asker, ask, options, found);
        restore_file(*found.entry);
        if (tell_all_) {
          reports_.info("intercepted", who(asker, ask) + " binds " +
                                           (inet && wanted.datagram ? "udp:" : "") +
                                           format(ask.address) + ": it gets the shared " +
                                           format(found.socket->form.address));
        }
        return {Answer::Kind::kShare, 0, found.socket->fd.get()};
      }
      reason = strerrordesc_np(error);
      break;
    case Decision::Kind::kImpossible:
      break;
  }
  reports_.error("intercept_failed",
                 who(asker, ask) + " can't have " + format(ask.address) + ": " + reason);
  return {Answer::Kind::kError, error};
}

void Desk::handed(const Asker& asker, const Ask& ask, int fd) {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    const auto socket = std::find_if(entry.sockets.begin(), entry.sockets.end(),
                                     [fd](const Socket& each) { return each.fd.get() == fd; });
    if (socket == entry.sockets.end()) {
      continue;
    }
    const std::uint32_t index = entry.shared.index;
    if (entry.shared.datagram) {
      // Datagrams come from now on; there is no listen to wait for.
      tell_listening(asker, entry);
    } else if (socket->listening && !listening_.contains({asker.worker, index}) &&
               std::none_of(silent_.begin(), silent_.end(), [&](const Silent& each) {
                 return each.asker.worker == asker.worker && each.index == index;
               })) {
      silent_.push_back({asker, index, ask.pid, socket->identity.second});
      eventfd_write(news_.get(), 1);
    }
    return;
  }
}

void Desk::listen_again() {
  const std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    for (Socket& socket : entry.sockets) {
      if (can_listen_again(socket) &&
          number_option(socket.fd.get(), SOL_SOCKET, SO_ACCEPTCONN) == 0) {
        // A port that the kernel chose is given back by it; another one is bound still.
        const std::string address = encode_address(socket.form.address);
        static_cast<void>(bind(socket.fd.get(), reinterpret_cast<const sockaddr*>(address.data()),
                               static_cast<socklen_t>(address.size())));
        socket.listening = listen(socket.fd.get(), entry.backlog) == 0;
        reports_.error("intercept_shut",
                       "A program has shut " + format(socket.form.address) + " down for all; " +
                           (socket.listening ? "it listens again" : "it is lost"));
      }
    }
  }
}

// A unix socket that was shut down is so for ever.
bool Desk::can_listen_again(const Socket& socket) {
  return socket.listening &&
         (socket.form.address.kind == Kind::kInet || socket.form.address.kind == Kind::kInet6);
}

std::vector<int> Desk::listening_fds() {
  eventfd_t ignored = 0;
  eventfd_read(news_.get(), &ignored);
  const std::lock_guard lock(mutex_);
  std::vector<int> fds;
  for (const Entry& entry : entries_) {
    for (const Socket& socket : entry.sockets) {
      if (can_listen_again(socket)) {
        fds.push_back(socket.fd.get());
      }
    }
  }
  return fds;
}

bool Desk::look_for_silent() {
  std::vector<Silent> silent;
  {
    const std::lock_guard lock(mutex_);
    silent = silent_;
  }
  for (const Silent& each : silent) {
    const std::vector<pid_t> processes = processes_of(each.pid);
    const bool gone = kill(each.pid, 0) != 0 && errno == ESRCH;
    // Whoever can't be looked at counts as up.
    const bool waits =
        !gone && (holdings_of(each.pid, {}).sockets.empty() ||
                  std::any_of(processes.begin(), processes.end(),
                              [&](pid_t process) { return waits_for(process, each.inode); }));
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      if (waits && entry.shared.index == each.index) {
        tell_listening(each.asker, entry);
      }
    }
    if (gone) {
      no_longer_silent(each.asker.worker, each.index);
    }
  }
  const std::lock_guard lock(mutex_);
  return !silent_.empty();
}

void Desk::no_longer_silent(Epoch worker, std::uint32_t index) {
  std::erase_if(silent_, [&](const Silent& each) {
    return each.asker.worker == worker && each.index == index;
  });
}

Answer Desk::on_listen(const Asker& asker, const Ask& ask) {
  const std::lock_guard lock(mutex_);
  const Found found = find(ask.identity);
  if (found.socket == nullptr) {
    return {};
  }
  if (!found.socket->listening ||
      number_option(found.socket->fd.get(), SOL_SOCKET, SO_ACCEPTCONN) == 0) {
    if (listen(found.socket->fd.get(), found.entry->backlog) != 0) {
      const int error = errno;
      reports_.error("intercept_failed",
                     who(asker, ask) + " can't listen on " + format(found.socket->form.address) +
                         ": " + strerrordesc_np(error) +
                         (error == EADDRINUSE
                              ? " (another worker listens there for another family of addresses)"
                              : ""));
      return {Answer::Kind::kError, error};
    }
    found.socket->listening = true;
    eventfd_write(news_.get(), 1);
  }
  tell_listening(asker, *found.entry);
  return {Answer::Kind::kDone};
}

void Desk::tell_listening(const Asker& asker, const Entry& entry) {
  no_longer_silent(asker.worker, entry.shared.index);
  if (listening_.insert({asker.worker, entry.shared.index}).second) {
    reports_.listening(asker.worker, entry.shared.index);
  }
}

void Desk::tell_unmanaged(const Asker& asker, const Ask& ask) {
  const std::string shown =
      (ask.type == SOCK_DGRAM && ask.domain != AF_UNIX ? "udp:" : "") + format(ask.address);
  if (told_.size() < kMostTold && told_.insert("bind " + shown).second) {
    reports_.info("bind_seen", who(asker, ask) + " binds " + shown + ", which is not managed (-b " +
                                   shown + " would share it)");
  }
}

void Desk::tell_again() {
  const std::lock_guard lock(mutex_);
  for (const auto& [worker, shared] : listening_) {
    reports_.listening(worker, shared);
  }
}

std::vector<DrainSocket> Desk::sockets() {
  const std::lock_guard lock(mutex_);
  std::vector<DrainSocket> all;
  for (const Entry& entry : entries_) {
    for (const Socket& socket : entry.sockets) {
      DrainSocket& each = all.emplace_back();
      each.fd.reset(fcntl(socket.fd.get(), F_DUPFD_CLOEXEC, 3));
      each.identity = socket.identity;
      each.shared = entry.shared;
      each.shared.address = socket.form.address;
    }
  }
  return all;
}

void Desk::forget(Epoch worker) {
  const std::lock_guard lock(mutex_);
  listening_.erase(listening_.lower_bound({worker, 0}),
                   listening_.lower_bound({Epoch{worker.value + 1}, 0}));
  std::erase_if(silent_, [worker](const Silent& each) { return each.asker.worker == worker; });
}

// Programs remove a unix socket's file before they bind, and when they end.
void Desk::restore_file(const Entry& entry) {
  if (entry.backup.empty()) {
    return;
  }
  struct stat kept {};
  struct stat there {};
  const std::string& path = entry.shared.address.path;
  if (lstat(entry.backup.c_str(), &kept) != 0 ||
      (lstat(path.c_str(), &there) == 0 && there.st_ino == kept.st_ino)) {
    return;
  }
  if (link(entry.backup.c_str(), path.c_str()) != 0 && errno != EEXIST) {
    reports_.error("intercept_file",
                   "Can't put " + path + " back: " + std::string(strerrordesc_np(errno)));
  }
}

void Desk::restore_files() {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    restore_file(entry);
  }
}

std::vector<std::string> Desk::watched_files() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> files;
  for (const Entry& entry : entries_) {
    if (!entry.backup.empty()) {
      files.push_back(entry.shared.address.path);
    }
  }
  return files;
}

}  // namespace einhorn::intercept
