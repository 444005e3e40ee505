// Unix sockets, with and without a file.
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>

#include "base/numbers.h"
#include "os/linux/listeners_internal.h"

namespace einhorn::os::listeners {
namespace {

// How often a dead socket's file is removed before we stop fighting over the path.
constexpr int kReplaceAttempts = 3;
constexpr std::size_t kMostDatabaseBytes = 1u << 20u;

// Who shall own the file; none where it stays as it is born.
struct Owner {
  std::optional<uid_t> user;
  std::optional<gid_t> group;
};

bool is_abstract(const BindSpec& spec) { return spec.host.front() == '@'; }

Address address_of(const BindSpec& spec) {
  Address address;
  auto& unix_address = reinterpret_cast<sockaddr_un&>(address.storage);
  unix_address.sun_family = AF_UNIX;
  CHECK(spec.host.size() <= sizeof unix_address.sun_path);
  std::memcpy(unix_address.sun_path, spec.host.data(), spec.host.size());
  std::size_t length = offsetof(sockaddr_un, sun_path) + spec.host.size();
  if (is_abstract(spec)) {
    unix_address.sun_path[0] = '\0';
  } else {
    ++length;  // the zero at its end
  }
  address.length = static_cast<socklen_t>(length);
  return address;
}

std::optional<std::uint32_t> parse_id(const std::string& text) {
  const auto id = whole_number<std::uint32_t>(text);
  // The last one means "leave it" to chown.
  return id != UINT32_MAX ? id : std::nullopt;
}

// The shape of getpwnam_r and getgrnam_r: the buffer grows until the entry fits.
template <typename Entry, typename Lookup>
int look_up_entry(Lookup lookup, const std::string& name, Entry& entry, bool& found) {
  std::vector<char> buffer(1024);
  while (true) {
    Entry* result = nullptr;
    const int error = lookup(name.c_str(), &entry, buffer.data(), buffer.size(), &result);
    found = result != nullptr;
    if (error != ERANGE || buffer.size() >= kMostDatabaseBytes) {
      return error;
    }
    buffer.resize(buffer.size() * 2);
  }
}

Result<Owner> look_up_owner(const BindSpec& spec) {
  Owner owner;
  bool found = true;
  if (!spec.user.empty()) {
    passwd entry{};
    owner.user = parse_id(spec.user);
    const int error = owner.user ? 0 : look_up_entry<passwd>(getpwnam_r, spec.user, entry, found);
    if (!found) {
      return bind_error(spec, "user=" + spec.user, error, "no such user");
    }
    owner.user = owner.user.value_or(entry.pw_uid);
  }
  if (!spec.group.empty()) {
    group entry{};
    owner.group = parse_id(spec.group);
    const int error = owner.group ? 0 : look_up_entry<group>(getgrnam_r, spec.group, entry, found);
    if (!found) {
      return bind_error(spec, "group=" + spec.group, error, "no such group");
    }
    owner.group = owner.group.value_or(entry.gr_gid);
  }
  return owner;
}

// Success: the path is free again. A socket is dead when nobody accepts connections on it.
Status clear_path(const BindSpec& spec, const Address& address) {
  const std::string what = "bind unix:" + spec.host;
  const char* path = spec.host.c_str();
  struct stat before {};
  if (lstat(path, &before) != 0) {
    return errno == ENOENT ? Status(Ok{}) : bind_error(spec, what, errno);
  }
  if (!S_ISSOCK(before.st_mode)) {
    return bind_error(spec, what, EADDRINUSE, "there is a file that is no socket");
  }
  // Non-blocking, as a living one with a full backlog would keep us waiting.
  const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) {
    return bind_error(spec, what, errno);
  }
  if (connect(probe.get(), address.get(), address.length) == 0 || errno == EAGAIN ||
      errno == EPROTOTYPE) {
    return bind_error(spec, what, EADDRINUSE, "a living socket is there");
  }
  if (errno == ENOENT) {
    return Ok{};
  }
  if (errno != ECONNREFUSED) {
    return bind_error(spec, what, errno, "can't tell whether the socket there is alive");
  }
  struct stat after {};
  if (lstat(path, &after) == 0 && after.st_dev == before.st_dev && after.st_ino == before.st_ino &&
      unlink(path) != 0 && errno != ENOENT) {
    return bind_error(spec, what, errno, "can't remove the dead socket there");
  }
  return Ok{};
}

// Binds with the wanted mode from the file's first instant; gives the errno, 0 for success.
int bind_with_mode(int fd, const Address& address, std::optional<std::uint32_t> mode) {
  std::optional<mode_t> saved;
  if (mode) {
    saved = umask(static_cast<mode_t>(~*mode & 0777u));
  }
  const int error = bind(fd, address.get(), address.length) == 0 ? 0 : errno;
  if (saved) {
    umask(*saved);
  }
  return error;
}

Status bind_path(const BindSpec& spec, const Address& address, int fd) {
  for (int attempt = 0;; ++attempt) {
    const int error = bind_with_mode(fd, address, spec.mode);
    if (error == 0) {
      return Ok{};
    }
    if (error != EADDRINUSE || is_abstract(spec) || attempt == kReplaceAttempts) {
      return bind_error(spec, "bind unix:" + spec.host, error);
    }
    if (Status cleared = clear_path(spec, address); !cleared) {
      return cleared;
    }
  }
}

bool is_socket_file(const std::string& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

// Through a descriptor of the very file we made, so that nobody can put another in its place.
Status change_owner(const Listener& listener, const Owner& owner) {
  const BindSpec& spec = listener.spec;
  const std::string what = "change the owner of " + spec.host;
  const UniqueFd file(open(spec.host.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!file || fstat(file.get(), &status) != 0) {
    return bind_error(spec, what, errno);
  }
  if (status.st_dev != listener.device || status.st_ino != listener.inode) {
    return bind_error(spec, what, 0, "somebody else replaced the file");
  }
  constexpr auto kLeave = static_cast<std::uint32_t>(-1);
  if (fchownat(file.get(), "", owner.user.value_or(kLeave), owner.group.value_or(kLeave),
               AT_EMPTY_PATH) != 0) {
    return bind_error(spec, what, errno);
  }
  return Ok{};
}

// From bind to listen nobody can connect, so the owner is right before anybody could use it.
Status finish_file(Listener& listener, const Owner& owner) {
  struct stat status {};
  if (lstat(listener.spec.host.c_str(), &status) != 0) {
    return bind_error(listener.spec, "bind unix:" + listener.spec.host, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return bind_error(listener.spec, "bind unix:" + listener.spec.host, 0,
                      "somebody else replaced the file");
  }
  listener.device = status.st_dev;
  listener.inode = status.st_ino;
  return owner.user || owner.group ? change_owner(listener, owner) : Status(Ok{});
}

// Two masters that start at once may each take the other's socket, not listening yet, for a dead
// one; the one whose file was replaced must not go on unseen by its clients.
Status check_still_ours(const Listener& listener) {
  struct stat status {};
  if (lstat(listener.spec.host.c_str(), &status) != 0 || status.st_dev != listener.device ||
      status.st_ino != listener.inode) {
    return bind_error(listener.spec, "bind unix:" + listener.spec.host, EADDRINUSE,
                      "somebody else took the path at the same time");
  }
  return Ok{};
}

Status listen_on(Listener& listener, const Owner& owner, int backlog) {
  const bool has_file = !is_abstract(listener.spec);
  Status status = has_file ? finish_file(listener, owner) : Status(Ok{});
  if (status && listen(listener.fd.get(), backlog) != 0) {
    status = bind_error(listener.spec, "listen on unix:" + listener.spec.host, errno);
  }
  if (status && has_file) {
    status = check_still_ours(listener);
  }
  if (status) {
    status = read_bound_address(listener, false);
  }
  return status;
}

}  // namespace

Result<std::vector<Listener>> open_unix(const BindSpec& spec, int backlog,
                                        const InheritedSockets& stored) {
  const Result<Owner> owner = look_up_owner(spec);
  if (!owner) {
    return owner.error();
  }
  Listener listener;
  listener.spec = spec;
  const Address address = address_of(spec);
  if (is_abstract(spec) || is_socket_file(spec.host)) {
    listener.fd.reset(take_stored(stored, address, spec));
  }
  if (!listener.fd) {
    listener.fd.reset(
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (spec.nonblock ? SOCK_NONBLOCK : 0), 0));
    if (!listener.fd) {
      return bind_error(spec, "socket for unix:" + spec.host, errno);
    }
    if (Status status = bind_path(spec, address, listener.fd.get()); !status) {
      return std::move(status).error();
    }
  }
  if (Status status = listen_on(listener, *owner, backlog); !status) {
    remove_socket_file(listener);
    return std::move(status).error();
  }
  std::vector<Listener> all;
  all.push_back(std::move(listener));
  return all;
}

}  // namespace einhorn::os::listeners
