#include "master/option_identity.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>
#include <vector>

#include "base/numbers.h"
#include "master/option_values.h"
#include "os/identity.h"

namespace einhorn::master {
namespace {

// Names that Einhorn itself gives to every worker.
bool is_reserved(std::string_view name) {
  return name.starts_with("EINHORN_") || name == "LISTEN_FDS" || name == "LISTEN_PID" ||
         name == "LISTEN_FDNAMES" || name == "NOTIFY_SOCKET";
}

}  // namespace

Status apply_umask(Options& options, const std::string& value) {
  constexpr std::uint32_t kMostMask = 0777;
  const std::optional<std::uint32_t> mask = whole_number<std::uint32_t>(value, 8);
  if (!mask || *mask > kMostMask) {
    return wrong(value, "is no umask (allowed: octal, 0 to 0777)");
  }
  options.settings.privileges.umask = *mask;
  return Ok{};
}

// NAME[,NAME...]; an option that is repeated adds up.
Status apply_group(Options& options, const std::string& value) {
  for (const std::string& name : split_list(value)) {
    if (name.empty()) {
      return wrong(value, "names an empty group (allowed: GROUP[,GROUP...])");
    }
    options.groups.push_back(name);
  }
  return Ok{};
}

Status apply_capabilities(Options& options, const std::string& value) {
  std::uint64_t kept = options.settings.privileges.capabilities.value_or(0);
  for (const std::string& name : split_list(value)) {
    const std::optional<std::uint64_t> bit =
        name == "none" ? std::optional<std::uint64_t>(0) : os::capability_bit(name);
    if (!bit) {
      return wrong(name, "is no capability (allowed: names such as cap_net_bind_service, or none)");
    }
    kept |= *bit;
  }
  options.settings.privileges.capabilities = kept;
  return Ok{};
}

Status apply_chroot(Options& options, const std::string& value) {
  if (!value.starts_with('/')) {
    return wrong(value, "is no absolute path");
  }
  options.settings.privileges.root = value;
  return Ok{};
}

Status apply_cpu_affinity(Options& options, const std::string& value) {
  if (value != "each" && value != "node") {
    if (Result<std::vector<std::uint32_t>> cpus = os::parse_cpu_list(value); !cpus) {
      return wrong(value, "is no list of CPUs (allowed: each, node, or as 0-3,8)");
    }
  }
  options.cpu_affinity = value;
  return Ok{};
}

// The value may be a secret: no error shows it.
Status apply_env(Options& options, const std::string& value) {
  const std::string name = value.substr(0, value.find('='));
  const bool is_named = !name.empty() && std::isdigit(static_cast<unsigned char>(name[0])) == 0 &&
                        std::all_of(name.begin(), name.end(), [](unsigned char c) {
                          return std::isalnum(c) != 0 || c == '_';
                        });
  if (name.size() == value.size() || !is_named) {
    return make_error("", "it is no variable (allowed: NAME=VALUE; letters, digits and _ in NAME)");
  }
  if (is_reserved(name)) {
    return wrong(name, "is set by Einhorn itself");
  }
  options.env.push_back(value);
  return Ok{};
}

Status apply_env_file(Options& options, const std::string& value) {
  options.env_files.push_back(value);
  return Ok{};
}

}  // namespace einhorn::master
