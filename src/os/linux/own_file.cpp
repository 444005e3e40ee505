#include "os/own_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {
namespace {

using Refusal = OpenedFile::Refusal;

// How often a file that comes and goes is tried.
constexpr int kAttempts = 8;
constexpr int kAlways = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

bool is_trusted(uid_t owner) { return owner == geteuid() || owner == 0; }

OpenedFile refused(Refusal why, uid_t owner) { return {-1, 0, why, owner}; }

// Without O_CREAT where something is already: what the kernel says about that depends on
// fs.protected_regular. A new file is made by us alone or not at all.
OpenedFile open_or_make(const char* path, int flags, mode_t mode) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    int fd = retry([&] { return ::open(path, flags | kAlways | O_NOFOLLOW); });
    if (fd < 0 && errno == ENOENT) {
      fd = retry([&] { return ::open(path, flags | kAlways | O_CREAT | O_EXCL, mode); });
      if (fd < 0 && errno == EEXIST) {
        continue;
      }
    }
    return {fd, fd < 0 ? errno : 0, Refusal::kNone, 0};
  }
  return {-1, EEXIST, Refusal::kNone, 0};
}

OpenedFile close_refused(int fd, Refusal why, uid_t owner) {
  close_descriptor(fd);
  return refused(why, owner);
}

// Whether everybody can put files into the directory that the path lies in.
bool in_open_directory(const char* path) {
  const char* const slash = std::strrchr(path, '/');
  std::array<char, PATH_MAX> directory{};
  std::size_t length = 1;
  directory[0] = slash != nullptr ? '/' : '.';
  if (slash != nullptr && slash != path) {
    length = static_cast<std::size_t>(slash - path);
    if (length >= directory.size()) {
      return true;  // can't be opened anyway
    }
    std::memcpy(directory.data(), path, length);
  }
  directory[length] = '\0';
  struct stat status {};
  return stat(directory.data(), &status) != 0 || (status.st_mode & S_IWOTH) != 0;
}

}  // namespace

OpenedFile open_own_file(const char* path, mode_t mode) {
  struct stat status {};
  // Looked at first, since merely opening somebody else's file can have an effect.
  if (lstat(path, &status) == 0) {
    if (S_ISLNK(status.st_mode)) {
      return refused(Refusal::kLink, status.st_uid);
    }
    if (status.st_uid != geteuid()) {
      return refused(Refusal::kForeign, status.st_uid);
    }
    if (!S_ISREG(status.st_mode)) {
      return refused(Refusal::kNotRegular, status.st_uid);
    }
  }
  const OpenedFile file = open_or_make(path, O_RDWR, mode);
  if (file.fd < 0) {
    return file.error == ELOOP ? refused(Refusal::kLink, 0) : file;
  }
  if (fstat(file.fd, &status) != 0) {
    const int error = errno;
    close_descriptor(file.fd);
    return {-1, error, Refusal::kNone, 0};
  }
  if (status.st_uid != geteuid()) {
    return close_refused(file.fd, Refusal::kForeign, status.st_uid);
  }
  if (!S_ISREG(status.st_mode)) {
    return close_refused(file.fd, Refusal::kNotRegular, status.st_uid);
  }
  if (status.st_nlink != 1) {
    return close_refused(file.fd, Refusal::kHardLinks, status.st_uid);
  }
  return file;
}

OpenedFile open_log_file(const char* path) {
  constexpr int kAppend = O_WRONLY | O_APPEND;
  constexpr mode_t kMode = 0640;
  const bool exposed = in_open_directory(path);
  struct stat status {};
  if (exposed && lstat(path, &status) == 0 && !is_trusted(status.st_uid)) {
    return refused(S_ISLNK(status.st_mode) ? Refusal::kLink : Refusal::kForeign, status.st_uid);
  }
  OpenedFile file = open_or_make(path, kAppend, kMode);
  if (file.fd < 0 && file.error == ELOOP) {
    // One of ours or root's, or one where nobody else can make any, may be followed: as long as it
    // is there, nobody else can put another in its place.
    if (exposed && (lstat(path, &status) != 0 || !is_trusted(status.st_uid))) {
      return refused(Refusal::kLink, 0);
    }
    const int fd = retry([&] { return ::open(path, kAppend | kAlways | O_CREAT, kMode); });
    return {fd, fd < 0 ? errno : 0, Refusal::kNone, 0};
  }
  if (file.fd < 0 || !exposed) {
    return file;
  }
  if (fstat(file.fd, &status) != 0 || !is_trusted(status.st_uid)) {
    return close_refused(file.fd, Refusal::kForeign, status.st_uid);
  }
  if (S_ISREG(status.st_mode) && status.st_nlink != 1) {
    return close_refused(file.fd, Refusal::kHardLinks, status.st_uid);
  }
  return file;
}

Status check_log_file(const std::string& path, const std::string& option) {
  const OpenedFile file = open_log_file(path.c_str());
  if (file.fd < 0) {
    return open_error(path, file, option);
  }
  close_descriptor(file.fd);
  return Ok{};
}

const char* reason_of(const OpenedFile& file) {
  switch (file.refusal) {
    case Refusal::kNone:
      return strerrordesc_np(file.error);
    case Refusal::kLink:
      return "it is a symbolic link";
    case Refusal::kNotRegular:
      return "it is no regular file";
    case Refusal::kForeign:
      return "it belongs to somebody else";
    case Refusal::kHardLinks:
      return "it has other names (hard links)";
  }
  return "";
}

Error open_error(const std::string& path, const OpenedFile& file, const std::string& option) {
  if (file.refusal == Refusal::kNone) {
    return Error{file.error, "open " + path, ""};
  }
  const std::string reason = file.refusal == Refusal::kForeign
                                 ? "it belongs to user " + std::to_string(file.owner)
                                 : reason_of(file);
  return make_error("open " + path, reason + "; remove it or name another path with " + option);
}

}  // namespace einhorn::os
