#include "master/privileges.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace einhorn::master {
namespace {

constexpr std::uint64_t bit(int capability) {
  return std::uint64_t{1} << static_cast<unsigned>(capability);
}

bool is_root(std::uint64_t capabilities) {
  return (capabilities & bit(CAP_SETUID)) != 0 && (capabilities & bit(CAP_SETGID)) != 0;
}

Error named(const char* option, Error error) {
  error.operation = option;
  return error;
}

// "0-3" of one NUMA node, or what else one worker's CPUs are.
std::string list_of(const std::vector<std::uint32_t>& cpus) {
  std::string text;
  for (const std::uint32_t cpu : cpus) {
    text += (text.empty() ? "" : ",") + std::to_string(cpu);
  }
  return text;
}

// The first CPU of each node, then the second of each, and so on: the first workers are as far
// from each other as can be.
std::vector<std::string> each_cpu(const std::vector<std::vector<std::uint32_t>>& nodes) {
  std::vector<std::string> sets;
  for (std::size_t at = 0, before = sets.size() + 1; before != sets.size(); ++at) {
    before = sets.size();
    for (const std::vector<std::uint32_t>& node : nodes) {
      if (at < node.size()) {
        sets.push_back(std::to_string(node[at]));
      }
    }
  }
  return sets;
}

class Resolving {
 public:
  explicit Resolving(Options& options)
      : options_(options),
        privileges_(options.settings.privileges),
        capabilities_(os::own_capabilities()) {}

  Status run() {
    for (const auto step :
         {&Resolving::find_worker, &Resolving::check_root, &Resolving::check_capabilities,
          &Resolving::find_cpus, &Resolving::find_master, &Resolving::open_socket_to_workers}) {
      if (Status done = (this->*step)(); !done) {
        return done;
      }
    }
    return Ok{};
  }

 private:
  Status find_worker() {
    std::vector<std::uint32_t> more;
    for (const std::string& name : options_.groups) {
      Result<std::uint32_t> gid = os::find_group(name);
      if (!gid) {
        return named("--group", gid.error());
      }
      more.push_back(*gid);
    }
    os::User user{geteuid(), std::nullopt, "", ""};
    if (!options_.user.empty()) {
      Result<os::User> found = os::find_user(options_.user);
      if (!found) {
        return named("--user", found.error());
      }
      user = *found;
      if (more.empty() && !user.gid) {
        return make_error("--user " + options_.user,
                          "no user has this number, so --group has to say the group");
      }
    }
    if (options_.user.empty() && more.empty()) {
      return Ok{};
    }
    const std::uint32_t gid = more.empty() ? *user.gid : more.front();
    if (!is_root(capabilities_)) {
      if (user.uid == geteuid() && gid == getegid()) {
        return Ok{};  // who we are already
      }
      return make_error(options_.user.empty() ? "--group" : "--user " + options_.user,
                        "only root can run workers as somebody else, and this is user " +
                            std::to_string(geteuid()));
    }
    std::vector<std::uint32_t> groups =
        options_.user.empty() ? std::vector<std::uint32_t>{gid} : os::groups_of(user, gid);
    groups.insert(groups.end(), more.begin(), more.end());
    std::sort(groups.begin(), groups.end());
    groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
    privileges_.gid = gid;
    privileges_.groups = std::move(groups);
    if (!options_.user.empty()) {
      privileges_.uid = user.uid;
      privileges_.user_name = user.name;
      privileges_.user_home = user.home;
    }
    return Ok{};
  }

  Status check_root() {
    if (privileges_.root.empty()) {
      return Ok{};
    }
    struct stat status {};
    if (stat(privileges_.root.c_str(), &status) != 0) {
      return Error{errno, "--chroot " + privileges_.root, ""};
    }
    if (!S_ISDIR(status.st_mode)) {
      return make_error("--chroot " + privileges_.root, "it is no directory");
    }
    if ((capabilities_ & bit(CAP_SYS_CHROOT)) == 0) {
      return make_error("--chroot " + privileges_.root, "only root may do that");
    }
    return Ok{};
  }

  Status check_capabilities() {
    if (privileges_.capabilities && (*privileges_.capabilities & ~capabilities_) != 0) {
      return make_error("--capabilities", "Einhorn itself does not have all of them");
    }
    return Ok{};
  }

  Status find_cpus() {
    const std::string& wanted = options_.cpu_affinity;
    if (wanted.empty()) {
      return Ok{};
    }
    const std::vector<std::vector<std::uint32_t>> nodes = os::cpu_layout();
    if (wanted == "each") {
      privileges_.cpu_sets = each_cpu(nodes);
      return Ok{};
    }
    if (wanted == "node") {
      for (const std::vector<std::uint32_t>& node : nodes) {
        privileges_.cpu_sets.push_back(list_of(node));
      }
      return Ok{};
    }
    const Result<std::vector<std::uint32_t>> listed = os::parse_cpu_list(wanted);
    if (!listed) {
      return named("--cpu-affinity", listed.error());
    }
    for (const std::uint32_t cpu : *listed) {
      const bool here = std::any_of(nodes.begin(), nodes.end(), [cpu](const auto& node) {
        return std::find(node.begin(), node.end(), cpu) != node.end();
      });
      if (!here) {
        return make_error("--cpu-affinity " + wanted,
                          "there is no CPU " + std::to_string(cpu) + " for this process");
      }
    }
    privileges_.cpu_sets = {list_of(*listed)};
    return Ok{};
  }

  Status find_master() {
    if (options_.master_user.empty()) {
      return Ok{};
    }
    Result<os::User> user = os::find_user(options_.master_user);
    if (!user) {
      return named("--master-user", user.error());
    }
    if (!user->gid) {
      return make_error("--master-user " + options_.master_user, "no user has this number");
    }
    if (user->uid == geteuid()) {
      return Ok{};
    }
    if (!is_root(capabilities_)) {
      return make_error("--master-user " + options_.master_user,
                        "only root can run the master as somebody else");
    }
    privileges_.master_uid = user->uid;
    privileges_.master_gid = *user->gid;
    privileges_.master_groups = os::groups_of(*user, *user->gid);
    if (!privileges_.uid) {
      // Or they would go on as root.
      privileges_.uid = user->uid;
      privileges_.gid = *user->gid;
      privileges_.groups = privileges_.master_groups;
      privileges_.user_name = user->name;
      privileges_.user_home = user->home;
    }
    privileges_.master_capabilities = needed_by_master() & capabilities_;
    if (!privileges_.capabilities) {
      privileges_.capabilities = 0;  // those of the master are not for workers
    }
    return Ok{};
  }

  // What a master that is not root lacks.
  [[nodiscard]] std::uint64_t needed_by_master() const {
    std::uint64_t needed = privileges_.capabilities.value_or(0);
    if (privileges_.uid != privileges_.master_uid ||
        privileges_.groups != privileges_.master_groups) {
      needed |= bit(CAP_SETUID) | bit(CAP_SETGID) | bit(CAP_KILL);
    }
    needed |= bit(CAP_SETPCAP);  // workers lose what the master has for good
    const auto is_low = [](const os::BindSpec& spec) {
      return spec.family == os::BindSpec::Family::kInet && spec.port < 1024;
    };
    if (std::any_of(options_.binds.begin(), options_.binds.end(), is_low)) {
      needed |= bit(CAP_NET_BIND_SERVICE);  // for others that are added later
    }
    if (!privileges_.root.empty()) {
      needed |= bit(CAP_SYS_CHROOT);
    }
    const wire::Settings& settings = options_.settings;
    if (settings.nice_master || settings.nice_worker || privileges_.io_priority ||
        !privileges_.cpu_sets.empty()) {
      needed |= bit(CAP_SYS_NICE);
    }
    if (privileges_.oom_score_adj) {
      needed |= bit(CAP_SYS_RESOURCE);
    }
    if (settings.intercept != wire::Interception::kOff ||
        options_.intercept != Options::Intercept::kOff) {
      needed |= bit(CAP_SYS_PTRACE) | bit(CAP_SYS_ADMIN);
    }
    return needed;
  }

  // They have to ACK: by their group, so that the file stays ours. What they may say is decided by
  // who they are (Connection::privileged).
  Status open_socket_to_workers() {
    wire::Settings& settings = options_.settings;
    const bool others = privileges_.uid && *privileges_.uid != geteuid();
    if (others && !options_.socket_mode_given && settings.socket_group.empty()) {
      settings.socket_mode = 0660;
      settings.socket_group = std::to_string(privileges_.gid.value_or(getegid()));
    }
    return Ok{};
  }

  Options& options_;
  wire::Privileges& privileges_;
  std::uint64_t capabilities_;
};

}  // namespace

Status resolve_privileges(Options& options) { return Resolving(options).run(); }

os::Identity worker_identity(const wire::Privileges& privileges, Slot slot) {
  os::Identity identity;
  // A master that is this user already has no right to choose groups, and no need to.
  const bool is_ours = privileges.master_uid && privileges.uid == privileges.master_uid &&
                       privileges.gid == privileges.master_gid &&
                       privileges.groups == privileges.master_groups;
  if (!is_ours) {
    identity.uid = privileges.uid;
    identity.gid = privileges.gid;
    identity.groups = privileges.groups;
  }
  identity.umask = privileges.umask;
  identity.root = privileges.root;
  identity.no_new_privs = privileges.no_new_privs;
  identity.capabilities = privileges.capabilities;
  identity.oom_score_adj = privileges.oom_score_adj;
  identity.io_priority = privileges.io_priority;
  if (!privileges.cpu_sets.empty()) {
    const std::string& set = privileges.cpu_sets[slot.value % privileges.cpu_sets.size()];
    if (Result<std::vector<std::uint32_t>> cpus = os::parse_cpu_list(set)) {
      identity.cpus = std::move(*cpus);
    }
  }
  return identity;
}

os::Identity master_identity(const wire::Privileges& privileges) {
  os::Identity identity;
  if (privileges.master_uid) {
    identity.uid = privileges.master_uid;
    identity.gid = privileges.master_gid;
    identity.groups = privileges.master_groups;
    identity.capabilities = privileges.master_capabilities;
  }
  return identity;
}

std::optional<std::uint64_t> guard_capabilities(const wire::Privileges& privileges) {
  if (!privileges.master_uid) {
    return std::nullopt;  // masters need all that they can get from it
  }
  return privileges.master_capabilities | bit(CAP_SETUID) | bit(CAP_SETGID) | bit(CAP_SETPCAP) |
         bit(CAP_KILL) | bit(CAP_DAC_OVERRIDE);
}

std::vector<std::string> identity_variables(const wire::Privileges& privileges) {
  if (privileges.user_name.empty()) {
    return {};
  }
  return {"HOME=" + privileges.user_home, "USER=" + privileges.user_name,
          "LOGNAME=" + privileges.user_name};
}

}  // namespace einhorn::master
