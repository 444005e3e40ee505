#include "os/temporary_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

namespace einhorn::os {
namespace {

std::optional<std::string> usable_directory(const char* text) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(text, error);
  if (error) {
    return std::nullopt;
  }
  path = path.lexically_normal();
  if (!path.has_filename() && path.has_relative_path()) {
    path = path.parent_path();
  }
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) ||
      ::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) {
    return std::nullopt;
  }
  const bool open_to_all = (info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0;
  return open_to_all ? std::nullopt : std::optional<std::string>(path.string());
}

}  // namespace

Result<std::string> temporary_directory(const EnvironmentLookup& environment) {
  const std::array<const char*, 5> candidates = {environment("TMPDIR"), environment("TMP"),
                                                 environment("TEMP"), "/tmp", "."};
  for (const char* candidate : candidates) {
    if (candidate == nullptr) {
      continue;
    }
    if (std::optional<std::string> directory =
            usable_directory(*candidate == '\0' ? "." : candidate)) {
      return *std::move(directory);
    }
  }
  return make_error("find a directory for temporary files", "none is usable");
}

}  // namespace einhorn::os
