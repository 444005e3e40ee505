#include "client/socket_paths.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "client/connection.h"
#include "os/descriptors.h"
#include "os/unique_fd.h"

namespace einhorn::client {

namespace {

constexpr std::size_t kMostMasters = 64;
constexpr std::size_t kMostEntries = 100'000;
constexpr std::string_view kPrefix = "einhorn";
constexpr std::string_view kSuffix = ".sock";

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
  if (::connect(fd.get(), name, sizeof address) == 0) {
    return commands(os::peer_of(fd.get()));
  }
  return errno == EAGAIN;
}

}  // namespace

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

std::string pool_name(const std::string& path) {
  std::string file = path.substr(path.rfind('/') + 1);
  if (file.ends_with(kSuffix)) {
    file.resize(file.size() - kSuffix.size());
  }
  constexpr std::string_view kNamed = "einhorn-";
  return file.starts_with(kNamed) && file.size() > kNamed.size() ? file.substr(kNamed.size())
                                                                 : file;
}

Result<std::string> default_socket_path(const std::optional<std::string>& name,
                                        const os::EnvironmentLookup& environment) {
  Result<std::string> directory = os::temporary_directory(environment);
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
