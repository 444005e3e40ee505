#include "master/cgroups.h"

#include <algorithm>

namespace einhorn::master {
namespace {

constexpr Duration kFirstDelay = std::chrono::milliseconds{20};
constexpr Duration kMostDelay = std::chrono::seconds{60};

os::CgroupLimits limits_of(const wire::Settings& settings) {
  return {settings.cgroup_memory, settings.cgroup_cpu, settings.cgroup_pids};
}

// As it is noted in the settings: "memory 1 /sys/fs/cgroup/memory/einhorn-web-4711".
std::string note_of(const os::Controller& controller) {
  return controller.name + " " + std::to_string(controller.version) + " " + controller.directory;
}

std::optional<os::Controller> read_note(const std::string& note) {
  const std::size_t first = note.find(' ');
  const std::size_t second = note.find(' ', first == std::string::npos ? first : first + 1);
  if (second == std::string::npos) {
    return std::nullopt;
  }
  return os::Controller{note.substr(0, first), note[first + 1] - '0', note.substr(second + 1), ""};
}

std::string main_beside(const std::string& directory) { return directory + "-einhorn"; }

// A version 2 group gives on only what it was told to.
Status make_version_2(const std::string& own, const std::string& pool,
                      const std::vector<std::string>& names, bool per_worker) {
  if (Status given = os::delegate_cgroup(own, main_beside(pool), names); !given) {
    return given;
  }
  if (Status made = os::make_cgroup(pool, {}); !made) {
    return made;
  }
  return per_worker ? os::delegate_cgroup(pool, "", names) : Status(Ok{});
}

}  // namespace

void make_pool_groups(wire::Settings& settings, Pid guard, Log& log) {
  std::vector<std::string> wanted;
  for (const auto& [name, limited] :
       {std::pair("memory", settings.cgroup_memory > 0), std::pair("cpu", settings.cgroup_cpu > 0),
        std::pair("pids", settings.cgroup_pids > 0)}) {
    if (limited) {
      wanted.emplace_back(name);
    }
  }
  const os::CgroupLimits limits = limits_of(settings);
  const std::string name =
      "/einhorn-" + (settings.name.empty() ? "" : settings.name + "-") + std::to_string(guard);
  std::vector<os::Controller> controllers = os::find_controllers(wanted);
  std::vector<std::string> unified;
  for (const os::Controller& each : controllers) {
    if (each.version == 2) {
      unified.push_back(each.name);
    }
  }
  std::string there;
  std::string missing;
  for (os::Controller& each : controllers) {
    Status made = Ok{};
    if (each.problem.empty()) {
      const std::string own = std::exchange(each.directory, each.directory + name);
      made = each.version == 2
                 ? make_version_2(own, each.directory, unified, settings.cgroup_per_worker)
                 : os::make_cgroup(each.directory, {});
      if (made) {
        made = settings.cgroup_per_worker
                   ? os::make_cgroup(each.directory + "/probe", os::limit_files(each, limits))
                   : os::make_cgroup(each.directory, os::limit_files(each, limits));
        static_cast<void>(os::remove_cgroup(each.directory + "/probe"));
      }
    }
    if (!each.problem.empty() || !made) {
      missing += (missing.empty() ? "" : "; ") + each.name + ": " +
                 (each.problem.empty() ? made.error().message() : each.problem);
      const bool used = std::any_of(
          settings.cgroup_places.begin(), settings.cgroup_places.end(),
          [&](const std::string& note) { return note.ends_with(" " + each.directory); });
      if (!made && !used) {
        static_cast<void>(os::remove_cgroup(each.directory));
      }
      continue;
    }
    there += (there.empty() ? "" : ", ") + each.name + " (version " + std::to_string(each.version) +
             ", " + each.directory + ")";
    settings.cgroup_places.push_back(note_of(each));
  }
  LogLine line;
  line.level = missing.empty() ? Level::kInfo : Level::kError;
  line.event = "cgroups";
  line.text = "Control groups, one for " +
              std::string(settings.cgroup_per_worker ? "each worker" : "the pool") + ": " +
              (there.empty() ? "none" : there) +
              (missing.empty() ? "" : ". Not limited, as it can't be done here: " + missing);
  log.write(line);
}

void remove_pool_groups(const wire::Settings& settings) {
  for (const std::string& note : settings.cgroup_places) {
    if (const std::optional<os::Controller> controller = read_note(note)) {
      static_cast<void>(os::remove_cgroup(controller->directory));
    }
  }
}

Cgroups::Cgroups(os::Kernel& kernel, Log& log, const wire::Settings& settings)
    : kernel_(kernel), log_(log), settings_(settings) {
  for (const std::string& note : settings_.cgroup_places) {
    const std::optional<os::Controller> controller = read_note(note);
    if (!controller) {
      continue;
    }
    auto place = std::find_if(places_.begin(), places_.end(), [&](const Place& each) {
      return each.directory == controller->directory;
    });
    if (place == places_.end()) {
      place = places_.insert(places_.end(), Place{controller->directory, {}, false});
    }
    const os::CgroupFiles files = os::limit_files(*controller, limits_of(settings_));
    place->files.insert(place->files.end(), files.begin(), files.end());
    place->memory |= controller->name == "memory";
  }
}

std::string Cgroups::path(const Place& place, Epoch worker) const {
  return settings_.cgroup_per_worker ? place.directory + "/" + std::to_string(worker.value)
                                     : place.directory;
}

void Cgroups::start(const std::set<Epoch>& alive, Instant now) {
  for (const Place& place : places_) {
    if (!settings_.cgroup_per_worker) {
      pool_kills_ = place.memory ? kernel_.oom_kills(place.directory).value_or(0) : pool_kills_;
      continue;
    }
    for (const std::string& name : kernel_.list_cgroups(place.directory)) {
      if (std::none_of(alive.begin(), alive.end(),
                       [&](Epoch epoch) { return std::to_string(epoch.value) == name; })) {
        left_.insert(place.directory + "/" + name);
      }
    }
  }
  if (!left_.empty()) {
    due_ = now;
  }
}

void Cgroups::before_spawn(WorkerId worker, os::SpawnSpec& spec) {
  for (const Place& place : places_) {
    const std::string group = path(place, worker.epoch);
    if (settings_.cgroup_per_worker) {
      if (Status made = kernel_.make_cgroup(group, place.files); !made) {
        log_.error("cgroup_failed", "Worker " + std::to_string(worker.slot.value) +
                                        " runs without a control group: " + made.error().message());
        continue;
      }
    }
    spec.cgroups.push_back(group + "/cgroup.procs");
  }
}

bool Cgroups::ended(WorkerId worker, Instant now) {
  bool killed = false;
  for (const Place& place : places_) {
    const std::string group = path(place, worker.epoch);
    if (place.memory) {
      const std::uint64_t kills = kernel_.oom_kills(group).value_or(0);
      killed |= kills > (settings_.cgroup_per_worker ? 0 : pool_kills_);
      pool_kills_ = settings_.cgroup_per_worker ? 0 : kills;
    }
    if (settings_.cgroup_per_worker && !kernel_.remove_cgroup(group)) {
      left_.insert(group);
      delay_ = kFirstDelay;
      due_ = now + delay_;
    }
  }
  return killed;
}

void Cgroups::turn(Instant now) {
  if (!due_ || *due_ > now) {
    return;
  }
  std::erase_if(left_, [this](const std::string& group) { return kernel_.remove_cgroup(group); });
  if (left_.empty() || delay_ >= kMostDelay) {
    due_.reset();  // who is in there stays for long: tried again when the next worker ends
    return;
  }
  delay_ = std::clamp(delay_ * 2, kFirstDelay, kMostDelay);
  due_ = now + delay_;
}

void Cgroups::leave() {
  for (const std::string& group : left_) {
    static_cast<void>(kernel_.remove_cgroup(group));
  }
  for (const Place& place : places_) {
    for (const std::string& name : kernel_.list_cgroups(place.directory)) {
      static_cast<void>(kernel_.remove_cgroup(place.directory + "/" + name));
    }
    if (!kernel_.remove_cgroup(place.directory)) {
      log_.error("cgroup_left", "Somebody is still in " + place.directory + "; it stays");
    }
  }
}

}  // namespace einhorn::master
