#include "master/config_change.h"

#include <algorithm>
#include <utility>

namespace einhorn::master {
namespace {

template <typename T>
void merge(T& current, const T& configured, const T& read, const char* name, ConfigChange& change) {
  if (read != configured && read != current) {
    current = read;
    change.live.emplace_back(name);
  }
}

// Of a version: taken over with an upgrade, else only named.
class AtUpgrade {
 public:
  AtUpgrade(bool upgrading, ConfigChange& change) : upgrading_(upgrading), change_(change) {}
  template <typename T>
  void operator()(T& current, const T& read, const char* name) {
    if (current == read) {
      return;
    }
    change_.at_upgrade.emplace_back(name);
    if (upgrading_) {
      current = read;
    }
  }

 private:
  bool upgrading_;
  ConfigChange& change_;
};

template <typename T>
void at_restart(const T& current, const T& read, const char* name, ConfigChange& change) {
  if (current != read) {
    change.at_restart.emplace_back(name);
  }
}

bool same_health(const pool::Config& left, const pool::Config& right) {
  pool::Config one;
  pool::Config other;
  one.health = left.health;
  other.health = right.health;
  return wire::encode_entry(one) == wire::encode_entry(other);
}

bool same_limits(const std::vector<wire::ResourceLimit>& left,
                 const std::vector<wire::ResourceLimit>& right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](const wire::ResourceLimit& one, const wire::ResourceLimit& other) {
                      return one.resource == other.resource && one.soft == other.soft &&
                             one.hard == other.hard;
                    });
}

}  // namespace

void merge_live(pool::Config& config, const pool::Config& configured, const pool::Config& read,
                ConfigChange& change) {
  const auto one = [&](auto member, const char* name) {
    merge(config.*member, configured.*member, read.*member, name, change);
  };
  one(&pool::Config::number, "number");
  one(&pool::Config::workers_min, "workers");
  one(&pool::Config::workers_max, "workers");
  one(&pool::Config::scale_up_after, "scale-up-after");
  one(&pool::Config::scale_down_after, "scale-down-after");
  one(&pool::Config::ack_mode, "ack-mode");
  one(&pool::Config::ack_delay, "ack-mode");
  one(&pool::Config::ack_timeout, "ack-timeout");
  one(&pool::Config::seconds, "seconds");
  one(&pool::Config::max_unacked, "max-unacked");
  one(&pool::Config::max_upgrade_additional, "max-upgrade-additional");
  one(&pool::Config::signal_timeout, "signal-timeout");
  one(&pool::Config::drain_timeout, "drain-timeout");
  one(&pool::Config::stop_signal, "stop-signal");
  one(&pool::Config::give_up, "give-up");
  one(&pool::Config::canary, "canary");
  one(&pool::Config::canary_seconds, "canary-seconds");
  one(&pool::Config::upgrade_failures, "upgrade-failures");
  one(&pool::Config::upgrade_timeout, "upgrade-timeout");
  ConfigChange hooks;  // merge_rest tells of them
  const auto hook = [&](bool pool::Config::*member) {
    merge(config.*member, configured.*member, read.*member, "hooks", hooks);
  };
  hook(&pool::Config::hook_before_start);
  hook(&pool::Config::hook_before_stop);
  if (!same_health(read, configured) && !same_health(read, config)) {
    config.health = read.health;
    change.live.emplace_back("limits and probes");
  }
  if (read.max_unacked_given != configured.max_unacked_given) {
    config.max_unacked_given = read.max_unacked_given;
  }
}

void merge_rest(wire::Settings& settings, const wire::Settings& read, bool upgrading,
                ConfigChange& change) {
  merge(settings.hooks, settings.hooks, read.hooks, "hooks", change);
  merge(settings.hook_timeout, settings.hook_timeout, read.hook_timeout, "hook-timeout", change);
  merge(settings.hook_upgrade_timeout, settings.hook_upgrade_timeout, read.hook_upgrade_timeout,
        "hook-upgrade-timeout", change);
  AtUpgrade version(upgrading, change);
  version(settings.original_command, read.original_command, "command");
  version(settings.directory, read.directory, "chdir");
  version(settings.variables, read.variables, "env");
  version(settings.nice_worker, read.nice_worker, "nice");
  version(settings.renice_command, read.renice_command, "nice");
  version(settings.drop_environment, read.drop_environment, "drop-env-var");
  version(settings.reexec_commandline, read.reexec_commandline, "reexec-as");
  version(settings.kill_children_on_exit, read.kill_children_on_exit, "kill-children-on-exit");
  wire::Privileges& now = settings.privileges;
  const wire::Privileges& then = read.privileges;
  version(now.uid, then.uid, "user");
  version(now.gid, then.gid, "group");
  version(now.groups, then.groups, "group");
  version(now.user_name, then.user_name, "user");
  version(now.user_home, then.user_home, "user");
  version(now.umask, then.umask, "umask");
  version(now.root, then.root, "chroot");
  version(now.no_new_privs, then.no_new_privs, "no-new-privs");
  version(now.capabilities, then.capabilities, "capabilities");
  version(now.oom_score_adj, then.oom_score_adj, "oom-score-adj");
  version(now.io_priority, then.io_priority, "ionice");
  version(now.cpu_sets, then.cpu_sets, "cpu-affinity");

  if (!same_limits(settings.resource_limits, read.resource_limits)) {
    change.at_upgrade.emplace_back("rlimit");
    if (upgrading) {
      settings.resource_limits = read.resource_limits;
    }
  }

  at_restart(settings.name, read.name, "command-name", change);
  at_restart(settings.socket_path_given, read.socket_path_given, "socket-path", change);
  at_restart(settings.pidfile_given, read.pidfile_given, "pidfile", change);
  at_restart(settings.lockfile_given, read.lockfile_given, "lockfile", change);
  at_restart(settings.command_socket_as_fd, read.command_socket_as_fd, "command-socket-as-fd",
             change);
  at_restart(settings.worker_binds, read.worker_binds, "bind ...+index", change);
  at_restart(settings.intercept_rules, read.intercept_rules, "intercept", change);
  at_restart(settings.probe, read.probe, "probe", change);
  at_restart(settings.probe_address, read.probe_address, "probe-address", change);
  at_restart(settings.probe_command, read.probe_command, "probe-command", change);
  at_restart(settings.capture, read.capture, "capture", change);
  at_restart(settings.capture_file, read.capture_file, "capture", change);
  at_restart(settings.agent, read.agent, "agent", change);
  at_restart(settings.agent_arguments, read.agent_arguments, "agent-args", change);
  at_restart(settings.cgroup_per_worker, read.cgroup_per_worker, "cgroup", change);
  at_restart(settings.cgroup_memory, read.cgroup_memory, "cgroup-memory", change);
  at_restart(settings.cgroup_cpu, read.cgroup_cpu, "cgroup-cpu", change);
  at_restart(settings.cgroup_pids, read.cgroup_pids, "cgroup-pids", change);
  at_restart(now.master_uid, then.master_uid, "master-user", change);
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  std::string last;
  for (const std::string& name : names) {
    if (name != last) {
      text += (text.empty() ? "" : ", ") + name;
    }
    last = name;
  }
  return text;
}

}  // namespace einhorn::master
