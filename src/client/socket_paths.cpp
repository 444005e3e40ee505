#include "client/socket_paths.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "os/unique_fd.h"

namespace einhorn::client {

namespace {

constexpr std::size_t kMostMasters = 64;
constexpr std::size_t kMostEntries = 100'000;
constexpr std::string_view kPrefix = "einhorn";
constexpr std::string_view kSuffix = ".sock";

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

// "einhorn.sock", "einhorn-NAME.sock", and whatever else of that kind `-d` may have made.
bool is_socket_name(std::string_view file) {
  return file.size() >= kPrefix.size() + kSuffix.size() && file.starts_with(kPrefix) &&
         file.ends_with(kSuffix);
}

std::optional<std::string> command_name(std::string_view file) {
  file.remove_prefix(kPrefix.size());
  file.remove_suffix(kSuffix.size());
  if (file.size() < 2 || file.front() != '-') {
    return std::nullopt;
  }
  return std::string(file.substr(1));
}

bool takes_connections(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return false;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const os::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return false;
  }
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  // A full backlog is a sign of life, too.
  return ::connect(fd.get(), name, sizeof address) == 0 || errno == EAGAIN;
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
  return make_error("find a directory for temporary files", "none is writable");
}

std::string socket_path_in(const std::string& directory, const std::optional<std::string>& name) {
  std::string path = directory;
  if (!path.ends_with('/')) {
    path += '/';
  }
  path += kPrefix;
  if (name.has_value()) {
    path += '-' + *name;
  }
  path += kSuffix;
  return path;
}

Result<std::string> default_socket_path(const std::optional<std::string>& name,
                                        const EnvironmentLookup& environment) {
  Result<std::string> directory = temporary_directory(environment);
  if (!directory) {
    return directory;
  }
  return socket_path_in(*directory, name);
}

std::vector<FoundMaster> list_masters(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code error;
  std::filesystem::directory_iterator entry(directory, error);
  for (std::size_t seen = 0;
       !error && entry != std::filesystem::directory_iterator() && seen < kMostEntries; ++seen) {
    std::string file = entry->path().filename().string();
    if (is_socket_name(file)) {
      files.push_back(std::move(file));
    }
    entry.increment(error);
  }
  std::sort(files.begin(), files.end());
  std::vector<FoundMaster> masters;
  for (const std::string& file : files) {
    std::string path = directory;
    path += directory.ends_with('/') ? "" : "/";
    path += file;
    if (takes_connections(path)) {
      masters.push_back({std::move(path), command_name(file)});
    }
    if (masters.size() == kMostMasters) {
      break;
    }
  }
  return masters;
}

}  // namespace einhorn::client
