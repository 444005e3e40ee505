// The configuration, read again: at every reload and upgrade, by the new master, if the pool's
// command line names a file.
//
// What is wrong with it changes nothing. Sockets come and go with versions: one that is added is
// open at once and is handed to workers of the next version on, for which an upgrade begins; one
// that is taken out stays open until the last worker of a version that has it is gone.
#include <algorithm>
#include <set>

#include "base/limits.h"
#include "master/config_change.h"
#include "master/master.h"
#include "master/privileges.h"

namespace einhorn::master {
namespace {

// Two with the same are the same socket: its flags can't change while it is open.
std::string address_of(const std::string& text) { return text.substr(0, text.find(',')); }

std::set<std::string> addresses_of(const std::vector<os::BindSpec>& binds) {
  std::set<std::string> addresses;
  for (const os::BindSpec& spec : binds) {
    if (!spec.per_worker) {
      addresses.insert(address_of(spec.text));
    }
  }
  return addresses;
}

// Nobody waits for a name server while a master takes its turn.
bool is_looked_up_quickly(const os::BindSpec& spec) {
  const bool is_address = spec.host.find_first_not_of("0123456789.") == std::string::npos ||
                          spec.host.find(':') != std::string::npos;
  return spec.family != os::BindSpec::Family::kInet || is_address || spec.host == "localhost";
}

std::string absolute(const std::string& path, const std::string& directory) {
  return path.empty() || path.front() == '/' ? path : directory + "/" + path;
}

}  // namespace

Status Master::check_config() const {
  if (settings_.arguments.empty() || !read_config_) {
    return Ok{};
  }
  const Configuration read = read_config_(settings_.arguments);
  return read.errors.empty() ? Status(Ok{}) : Status(read.errors.front());
}

Status Master::reload_config() {
  if (Status checked = check_config(); !checked) {
    log_->error("config_refused",
                "The configuration stays as it was: " + checked.error().message());
    return checked;
  }
  if (!settings_.arguments.empty()) {
    settings_.pending_config = true;
    settings_dirty_ = true;
    persist();
  }
  return begin_reload();
}

void Master::take_config() {
  if (!std::exchange(settings_.pending_config, false) || !read_config_) {
    return;
  }
  settings_dirty_ = true;
  Configuration read = read_config_(settings_.arguments);
  Status taken = read.errors.empty() ? Status(Ok{}) : Status(read.errors.front());
  if (taken) {
    taken = resolve_privileges(read.options);
  }
  Options& options = read.options;
  for (const os::BindSpec& spec : options.binds) {
    if (spec.per_worker) {
      options.settings.worker_binds.push_back(spec.text);
    }
  }
  if (taken) {
    taken = change_sockets(options.binds);
  }
  if (!taken) {
    log_->error("config_refused", "The configuration stays as it was: " + taken.error().message());
    return;
  }
  options.settings.capture_file =
      absolute(options.settings.capture_file, settings_.current_directory);
  ConfigChange change;
  pool::Config config = pool_->config();
  pool::Config said = options.config;
  said.max_unacked_given = options.settings.max_unacked_given.has_value();
  if (!said.max_unacked_given) {
    said.max_unacked = settings_.configured.value_or(config).max_unacked;
  }
  merge_live(config, settings_.configured.value_or(config), said, change);
  settings_.configured = said;
  merge_rest(settings_, options.settings, settings_.pending_upgrades > 0, change);
  change_log(options);
  if (!change.live.empty()) {
    log_->info("config_changed", "The configuration has changed: " + joined(change.live));
    events_.emplace_back(pool::event::Reconfigured{config});
  }
  if (!change.at_upgrade.empty()) {
    log_->info("config_at_upgrade",
               std::string(settings_.pending_upgrades > 0 ? "With this upgrade: "
                                                          : "At the next upgrade: ") +
                   joined(change.at_upgrade));
  }
  if (!change.at_restart.empty()) {
    log_->error("config_at_restart",
                "Not before Einhorn is started anew: " + joined(change.at_restart));
  }
}

void Master::change_log(const Options& options) {
  const wire::Settings& read = options.settings;
  if (settings_.configured_verbosity != read.verbosity) {
    settings_.configured_verbosity = read.verbosity;
    settings_.verbosity = read.verbosity;
    log_->set_verbosity(read.verbosity);
  }
  settings_.log_json = read.log_json;
  log_->set_json(read.log_json);
  const std::string path = absolute(read.log_file, settings_.current_directory);
  if (path == settings_.log_file) {
    return;
  }
  if (Status opened = log_->open(path); !opened) {
    log_->error("log_failed", "The log stays where it is: " + opened.error().message());
    return;
  }
  settings_.log_file = path;
}

// All of them or none.
Status Master::change_sockets(const std::vector<os::BindSpec>& binds) {
  const std::set<std::string> wanted = addresses_of(binds);
  std::set<std::string> present;
  for (const auto& [index, listener] : listeners_) {
    if (!listener.until && !listener.from_argument) {
      present.insert(address_of(listener.text));
    }
  }
  if (wanted == present) {
    return Ok{};
  }
  if (interceptor_) {
    return make_error("bind", "with --intercept sockets change only when Einhorn is started anew");
  }
  if (Status opened = open_added(binds); !opened) {
    return opened;
  }
  remove_missing(binds);
  if (settings_.pending_upgrades == 0 && pool_->ledger().respawn) {
    log_->info("config_sockets", "Sockets have changed: upgrading, so that workers get them");
    settings_.pending_upgrades = 1;
    settings_.pending_smooth = true;
    settings_.pending_rollback = true;
  }
  return Ok{};
}

Status Master::open_added(const std::vector<os::BindSpec>& binds) {
  const Version next{pool_->ledger().newest.value + 1};
  std::set<std::string> present;
  std::vector<wire::ListenerRecord*> back;  // was taken out, and has not been closed yet
  for (auto& [index, listener] : listeners_) {
    present.insert(address_of(listener.text));
    if (listener.until && addresses_of(binds).contains(address_of(listener.text))) {
      back.push_back(&listener);
    }
  }
  std::vector<std::pair<wire::ListenerRecord, int>> opened;
  const auto give_up = [&](Error error) {
    for (const auto& [record, fd] : opened) {
      kernel_.close(fd);
    }
    return Status(std::move(error));
  };
  std::uint32_t index = listeners_.empty() ? 0 : listeners_.rbegin()->first + 1;
  std::uint32_t bind_index = 0;
  for (const auto& [number, listener] : listeners_) {
    bind_index = std::max(bind_index, listener.bind_index + 1);
  }
  for (const os::BindSpec& spec : binds) {
    if (spec.per_worker || !present.insert(address_of(spec.text)).second) {
      continue;
    }
    if (spec.family == os::BindSpec::Family::kInherited || !is_looked_up_quickly(spec)) {
      return give_up(make_error("-b " + spec.text,
                                "while the pool runs a socket can be added only by its address"));
    }
    if (spec.as_stdin) {
      return give_up(
          make_error("-b " + spec.text, "\"stdin\" can't be changed while the pool runs"));
    }
    const int backlog = spec.backlog.value_or(settings_.backlog);
    Result<std::vector<os::OpenedListener>> listeners = kernel_.open_listeners(spec, backlog);
    if (!listeners) {
      return give_up(listeners.error());
    }
    for (const os::OpenedListener& listener : *listeners) {
      wire::ListenerRecord record;
      record.index = index++;
      record.text = spec.text;
      record.host = spec.host;
      record.port_given = spec.port;
      record.flags = spec.flags;
      record.address = listener.address;
      record.port = listener.port;
      record.name = spec.name;
      record.bind_index = bind_index;
      record.backlog = backlog;
      record.since = next;
      record.tentative = true;
      if (listener.inode != 0) {
        settings_.files.push_back({spec.host, listener.device, listener.inode});
      }
      opened.emplace_back(std::move(record), listener.fd);
    }
    ++bind_index;
  }
  if (listeners_.size() + opened.size() > limits::kMaxListeners) {
    return give_up(make_error(
        "bind", "more than " + std::to_string(limits::kMaxListeners) + " listening sockets"));
  }
  for (wire::ListenerRecord* record : back) {
    record->until.reset();
    record->since = next;
    note_listener(*record);
  }
  for (auto& [record, fd] : opened) {
    // The record first: a socket that the guard has and nobody knows could not be handed on.
    note_listener(record);
    descriptors_.listeners[record.index] = fd;
    guard_.keep("listen:" + std::to_string(record.index), fd);
    manager_->keep_listener(record.index, fd);
    log_->info("socket_added", "Bound " + record.address + " for workers from version " +
                                   std::to_string(next.value) + " on");
    record.tentative = guard_.blocked();
    note_listener(record);
    listeners_[record.index] = record;
  }
  return opened.empty() ? Status(Ok{}) : place_descriptors();
}

void Master::remove_missing(const std::vector<os::BindSpec>& binds) {
  const std::set<std::string> wanted = addresses_of(binds);
  const Version next{pool_->ledger().newest.value + 1};
  for (auto& [index, listener] : listeners_) {
    if (!listener.until && !listener.from_argument && !wanted.contains(address_of(listener.text))) {
      listener.until = next;
      note_listener(listener);
      log_->info("socket_removed",
                 listener.address + " is closed when the last worker that has it is gone");
    }
  }
}

void Master::note_listener(const wire::ListenerRecord& record) {
  if (!journal_->append(wire::encode_entry(record))) {
    log_->error("snapshot_failed", "Can't append to the snapshot");
  }
}

void Master::close_drained_sockets() {
  bool closed = false;
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    wire::ListenerRecord& record = it->second;
    const auto has_it = [&record](const pool::Worker* worker) {
      return worker->version < *record.until;
    };
    const std::vector<const pool::Worker*> workers =
        record.until ? pool_->workers() : std::vector<const pool::Worker*>{};
    if (!record.until || pool_->ledger().upgrade || pool_->ledger().version < *record.until ||
        std::any_of(workers.begin(), workers.end(), has_it)) {
      ++it;
      continue;
    }
    record.tentative = true;  // and only then may the guard let go of it
    note_listener(record);
    guard_.forget("listen:" + std::to_string(it->first));
    manager_->forget_listener(it->first);
    kernel_.close(descriptors_.listeners.at(it->first));
    descriptors_.listeners.erase(it->first);
    for (const wire::OwnFile& file : settings_.files) {
      if (record.address == "unix:" + file.path) {
        kernel_.remove_file(file.path, file.device, file.inode);
      }
    }
    log_->info("socket_closed", "Closed " + record.address + ", which no worker has any more");
    it = listeners_.erase(it);
    closed = true;
  }
  if (closed && !guard_.blocked()) {
    if (Status written = journal_->rewrite(snapshot()); !written) {
      log_->error("snapshot_failed", "Can't write the snapshot: " + written.error().message());
    }
  }
}

}  // namespace einhorn::master
