#include "master/interceptor.h"

#include <algorithm>

#include "base/numbers.h"
#include "os/door.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kControlName = "intercept";
constexpr std::string_view kDoorName = "door";
constexpr std::string_view kWatchPrefix = "watch:";
constexpr std::string_view kFormPrefix = "form:";

// Events for programs that read the log: static texts, and not whatever the supervisor says.
std::string_view event_name(std::string_view said) {
  for (const std::string_view known :
       {"intercepted", "bind_seen", "intercept_option", "intercept_failed", "intercept_epoll",
        "intercept_blind", "intercept_file", "intercept_shut", "drain_failed", "drain_incomplete",
        "probe_failed"}) {
    if (said == known) {
      return known;
    }
  }
  return "intercept";
}

}  // namespace

Interceptor::Interceptor(os::Kernel& kernel, GuardLink& guard, Log& log,
                         const wire::Settings& settings, Hooks hooks)
    : kernel_(kernel),
      guard_(guard),
      log_(log),
      settings_(settings),
      hooks_(std::move(hooks)),
      supervisor_(kernel, guard, log, settings,
                  {.name = kControlName,
                   .token = Companion::kInterceptToken,
                   .failed_event = "intercept_failed",
                   .restart_event = "intercept_restart",
                   .what = "The supervisor of programs",
                   .meanwhile = "Programs that bind wait for it."},
                  {.program =
                       [this] {
                         return Companion::our_own_program(
                             settings_, {"--intercept-fd", std::to_string(settings_.control)});
                       },
                   .born =
                       [this] {
                         tell_everything();
                         hooks_.renewed();
                       },
                   .said = [this](const os::Message& message) { on_message(message); },
                   .started = hooks_.started}) {}

Interceptor::~Interceptor() {
  if (door_ >= 0) {
    kernel_.close(door_);
  }
  for (const auto& [name, fd] : forms_) {
    kernel_.close(fd);
  }
  for (const auto& [epoch, watch] : watches_) {
    kernel_.close(watch.fd);
  }
}

std::optional<std::uint64_t> Interceptor::epoch_in(std::string_view name) {
  return name.starts_with(kWatchPrefix) ? std::optional(number_of(name.substr(kWatchPrefix.size())))
                                        : std::nullopt;
}

bool Interceptor::adopt(std::string_view name, int fd) {
  if (name == kDoorName) {
    door_ = fd;
  } else if (const auto epoch = epoch_in(name)) {
    watches_[*epoch].fd = fd;
  } else if (name.starts_with(kFormPrefix)) {
    forms_[std::string(name)] = fd;
  } else {
    return supervisor_.adopt(name, fd);
  }
  return true;
}

void Interceptor::share(const wire::ListenerRecord& record, int fd) {
  shared_[record.index] = {record, fd};
}

bool Interceptor::knows(WorkerId worker) {
  if (settings_.intercept == wire::Interception::kPreload) {
    unwatched_[worker.epoch.value] = worker;
    return true;
  }
  const auto found = watches_.find(worker.epoch.value);
  if (found == watches_.end()) {
    return false;
  }
  found->second.worker = worker;
  return true;
}

void Interceptor::start(Instant now, int keep_below, bool renew) {
  keep_below_ = keep_below;
  if (supervisor_.start(now, keep_below, renew)) {
    return;
  }
  supervisor_.send("SYNC=1");
  // The last master may have died before it said who there is, or after it had read who is gone.
  for (const auto& [epoch, watch] : watches_) {
    tell_worker(epoch, watch, true);
  }
}

void Interceptor::tell_everything() {
  std::string text = std::string("SETTINGS=1\ntell_all=") + (settings_.intercept_all ? "1" : "0") +
                     "\nprobe=" + settings_.listen_probe;
  for (const std::string& rule : settings_.intercept_rules) {
    text += "\nrule=" + rule;
  }
  supervisor_.send(std::move(text));
  const bool used = !watches_.empty() || !unwatched_.empty();
  for (const auto& [index, entry] : shared_) {
    const wire::ListenerRecord& record = entry.first;
    supervisor_.send("SHARED=" + std::to_string(index) +
                         "\nbacklog=" + std::to_string(record.backlog) + "\nname=" + record.name +
                         "\nbackup=" + record.backup + "\nused=" + (used ? "1" : "0"),
                     {entry.second});
  }
  for (const auto& [name, fd] : forms_) {
    const std::size_t colon = name.rfind(':');
    supervisor_.send("FORM=" + name.substr(kFormPrefix.size(), colon - kFormPrefix.size()) +
                         "\nnumber=" + name.substr(colon + 1),
                     {fd});
  }
  for (const auto& [epoch, watch] : watches_) {
    tell_worker(epoch, watch, false);
  }
  if (door_ >= 0) {
    supervisor_.send("DOOR=1\nsecret=" + settings_.intercept_secret, {door_});
  }
  if (!watches_.empty()) {
    supervisor_.send("ADOPTED=1");
  }
}

void Interceptor::tell_worker(std::uint64_t epoch, const Watch& watch, bool again) {
  supervisor_.send("WORKER=" + std::to_string(epoch) +
                       "\nslot=" + std::to_string(watch.worker ? watch.worker->slot.value : 0) +
                       "\nagain=" + (again ? "1" : "0"),
                   {watch.fd});
}

void Interceptor::add(WorkerId worker, int notify) {
  if (notify < 0) {
    unwatched_[worker.epoch.value] = worker;
    return;
  }
  Watch& watch = watches_[worker.epoch.value];
  if (watch.fd >= 0) {  // of one whose record was lost, whose number is given anew
    supervisor_.drop(watch.fd);
    kernel_.close(watch.fd);
  }
  watch = {notify, worker};
  guard_.keep(std::string(kWatchPrefix) + std::to_string(worker.epoch.value), notify);
  tell_worker(worker.epoch.value, watch, false);
}

void Interceptor::ended(WorkerId worker) {
  unwatched_.erase(worker.epoch.value);
  supervisor_.send("ENDED=" + std::to_string(worker.epoch.value));
}

// A supervisor that is not there hears of these when it comes.
void Interceptor::probe(WorkerId worker, Pid pid) { ask("PROBE=", worker, pid); }
void Interceptor::drain(WorkerId worker, Pid pid) { ask("DRAIN=", worker, pid); }

void Interceptor::ask(const char* verb, WorkerId worker, Pid pid) {
  supervisor_.send(verb + std::to_string(worker.epoch.value) +
                   "\nslot=" + std::to_string(worker.slot.value) + "\npid=" + std::to_string(pid));
}

void Interceptor::signaled(WorkerId worker) {
  supervisor_.send("SIGNALED=" + std::to_string(worker.epoch.value));
}

std::vector<std::string> Interceptor::environment_for(WorkerId worker) const {
  const std::string epoch = std::to_string(worker.epoch.value);
  const std::string slot = std::to_string(worker.slot.value);
  std::vector<std::string> variables = {
      "EINHORN_INTERCEPT=" + settings_.intercept_door + ":" + epoch + ":" + slot + ":" +
      os::door_token(settings_.intercept_secret, worker.epoch.value, worker.slot.value)};
  if (settings_.intercept_io_uring) {
    variables.emplace_back("EINHORN_INTERCEPT_IO_URING=1");
  }
  return variables;
}

std::optional<WorkerId> Interceptor::worker_of(std::uint64_t epoch) const {
  if (const auto watch = watches_.find(epoch); watch != watches_.end()) {
    return watch->second.worker;
  }
  const auto found = unwatched_.find(epoch);
  return found != unwatched_.end() ? std::optional(found->second) : std::nullopt;
}

void Interceptor::on_message(const os::Message& message) {
  const KeyValues lines = key_values(message.text);
  const std::string_view verb = lines.empty() ? "" : lines[0].first;
  if (verb == "FORM") {
    on_form(lines, message.fds);
    return;
  }
  for (const int fd : message.fds) {
    kernel_.close(fd);
  }
  if (verb == "LISTENING") {
    if (const auto worker = worker_of(number_of(lines[0].second))) {
      hooks_.listening(*worker);
    }
  } else if (verb == "DRAINED" || verb == "PROBED") {
    if (const auto worker = worker_of(number_of(lines[0].second))) {
      (verb == "DRAINED" ? hooks_.drained : hooks_.probed)(*worker);
    }
  } else if (verb == "GONE") {
    const auto watch = watches_.find(number_of(lines[0].second));
    if (watch != watches_.end()) {
      guard_.forget(std::string(kWatchPrefix) + std::string(lines[0].second));
      supervisor_.drop(watch->second.fd);
      kernel_.close(watch->second.fd);
      watches_.erase(watch);
    }
  } else if (verb == "SAY") {
    const std::string_view event = event_name(value_of(lines, "event"));
    if (lines[0].second == "error") {
      log_.error(event, std::string(value_of(lines, "text")));
    } else {
      log_.info(event, std::string(value_of(lines, "text")));
    }
  }
}

void Interceptor::on_form(const KeyValues& lines, const std::vector<int>& fds) {
  if (fds.size() != 1) {
    for (const int fd : fds) {
      kernel_.close(fd);
    }
    return;
  }
  const std::string name = std::string(kFormPrefix) + std::string(lines[0].second) + ":" +
                           std::string(value_of(lines, "number"));
  // Above what workers get, so that no spawn has to make room.
  Result<int> raised = kernel_.raise(fds[0], keep_below_);
  const int fd = raised ? *raised : fds[0];
  if (const auto old = forms_.find(name); old != forms_.end()) {
    kernel_.close(old->second);
  }
  forms_[name] = fd;
  guard_.keep(name, fd);
}

void Interceptor::list(std::vector<std::pair<std::string, int>>& all) const {
  supervisor_.list(all);
  if (door_ >= 0) {
    all.emplace_back(kDoorName, door_);
  }
  for (const auto& [name, fd] : forms_) {
    all.emplace_back(name, fd);
  }
  for (const auto& [epoch, watch] : watches_) {
    all.emplace_back(std::string(kWatchPrefix) + std::to_string(epoch), watch.fd);
  }
}

}  // namespace einhorn::master
