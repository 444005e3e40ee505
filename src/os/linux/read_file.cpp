#include "os/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "os/linux/retry.h"
#include "os/unique_fd.h"

namespace einhorn::os {

Result<std::string> read_file(const std::string& path, std::size_t most) {
  const std::string operation = "read " + path;
  const UniqueFd fd(
      retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); }));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    return Error{errno, operation, ""};
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error(operation, "it is no regular file");
  }
  if (::geteuid() == 0 && (status.st_mode & S_IWOTH) != 0) {
    return make_error(operation, "everybody may write to it (chmod o-w)");
  }
  std::string text;
  std::array<char, 16 * 1024> piece{};
  for (;;) {
    const ssize_t got = retry([&] { return ::read(fd.get(), piece.data(), piece.size()); });
    if (got < 0) {
      return Error{errno, operation, ""};
    }
    if (got == 0) {
      return text;
    }
    text.append(piece.data(), static_cast<std::size_t>(got));
    if (text.size() > most) {
      return make_error(operation, "it is too large (allowed: " + std::to_string(most) + " bytes)");
    }
  }
}

}  // namespace einhorn::os
