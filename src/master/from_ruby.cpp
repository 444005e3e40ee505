#include "master/from_ruby.h"

#include <algorithm>
#include <set>

#include "base/signals.h"
#include "master/log.h"
#include "master/master.h"
#include "master/worker_program.h"
#include "os/cpus.h"
#include "os/descriptors.h"
#include "os/linux/linux_kernel.h"
#include "os/state_files.h"
#include "wire/json.h"
#include "wire/ruby_state.h"
#include "wire/yaml.h"

namespace einhorn::master {
namespace {

constexpr std::int32_t kFirstDescriptor = 3;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    text += (text.empty() ? "" : ", ") + word;
  }
  return text;
}

// What versions before 0.6 called otherwise: an upgrade that goes on in the next master.
void understand_old_names(wire::RubyHandoffRead& read) {
  std::vector<std::string>& missing = read.findings.missing;
  const auto there = std::find(missing.begin(), missing.end(), "reloading_for_upgrade");
  for (const auto& [key, value] : read.unknown) {
    const wire::Symbol* name = key.as_symbol();
    if (there != missing.end() && name != nullptr &&
        name->name == "reloading_for_preload_upgrade") {
      read.handoff.state.reloading_for_upgrade = value.as_bool() != nullptr && *value.as_bool();
    }
  }
}

// The pool's files, by the names that the Ruby master has for them.
Status name_files(const wire::RubyState& ruby, wire::Settings& settings) {
  settings.name = ruby.cmd_name.value_or("");
  settings.socket_path_given = ruby.socket_path.value_or("");
  settings.pidfile_given = ruby.pidfile.value_or("");
  settings.lockfile_given = ruby.lockfile.value_or("");
  return fill_in_files(settings);
}

class Migration {
 public:
  Migration(wire::RubyHandoffRead read, std::vector<std::string> environment,
            const std::string& script)
      : read_(std::move(read)), ruby_(read_.handoff.state), environment_(std::move(environment)) {
    understand_old_names(read_);
    settings().script = script;
  }

  Result<Boot> run() {
    Result<std::unique_ptr<os::LinuxKernel>> kernel = os::LinuxKernel::create();
    if (!kernel) {
      return kernel.error();
    }
    kernel_ = std::move(*kernel);
    now_ = kernel_->now();
    settings().wall_offset = kernel_->wall_offset();
    log_ = std::make_unique<Log>(*kernel_, kernel_->own_pid(),
                                 static_cast<std::int32_t>(ruby_.verbosity), false);
    log_->set_time(to_wall(now_, settings().wall_offset));
    log_->info("migrating", "Taking over from a Ruby master with " +
                                std::to_string(ruby_.children.size()) + " children");
    say_findings();
    if (Status named = name_files(ruby_, settings()); !named) {
      return named.error();
    }
    fill_in_settings();
    fill_in_pool();
    for (const auto step : {&Migration::take_sockets, &Migration::take_command_socket,
                            &Migration::record_program, &Migration::write_snapshot}) {
      if (Status done = (this->*step)(); !done) {
        return done.error();
      }
    }
    boot_.settings = settings();
    return std::move(boot_);
  }

 private:
  wire::Settings& settings() { return snapshot_.settings; }
  [[nodiscard]] std::optional<Instant> instant(const std::optional<WallTime>& at) const {
    return at ? std::optional<Instant>(to_instant(*at, snapshot_.settings.wall_offset))
              : std::nullopt;
  }

  void say_findings() {
    const wire::RubyFindings& findings = read_.findings;
    if (!findings.missing.empty()) {
      log_->info("state_defaults",
                 "Not in the state, taken as default: " + joined(findings.missing));
    }
    if (!findings.unknown.empty()) {
      log_->info("state_unknown", "Unknown in the state, left aside: " + joined(findings.unknown));
    }
    if (!findings.invalid.empty()) {
      log_->error("state_invalid", "Of no use in the state: " + joined(findings.invalid));
    }
    if (ruby_.path) {
      log_->error("no_preload", "The Ruby master preloaded " + *ruby_.path +
                                    "; new workers execute their command instead");
    }
  }

  void fill_in_settings() {
    wire::Settings& s = settings();
    s.verbosity = static_cast<std::int32_t>(std::clamp<std::int64_t>(ruby_.verbosity, 0, 2));
    s.command_socket_as_fd = ruby_.command_socket_as_fd;
    s.kill_children_on_exit = ruby_.kill_children_on_exit;
    if (ruby_.nice.master) {
      s.nice_master = static_cast<std::int32_t>(*ruby_.nice.master);
    }
    if (ruby_.nice.worker) {
      s.nice_worker = static_cast<std::int32_t>(*ruby_.nice.worker);
    }
    s.renice_command = ruby_.nice.renice_cmd;
    s.reexec_commandline = ruby_.reexec_commandline.value_or(std::vector<std::string>{});
    s.drop_environment = ruby_.drop_environment_variables;
    s.original_command = ruby_.orig_cmd.value_or(ruby_.cmd.value_or(std::vector<std::string>{}));
    s.start_environment = environment_;
    s.backlog = static_cast<std::int32_t>(ruby_.config.backlog);
    s.generation = static_cast<std::uint64_t>(std::max<std::int64_t>(0, ruby_.generation));
    s.started = true;
    s.started_at = now_;
    s.guard_pid = kernel_->own_pid();
    if (Result<std::string> directory = kernel_->current_directory()) {
      s.current_directory = *directory;
    }
    s.pending_upgrades = ruby_.reloading_for_upgrade ? 1 : 0;
    s.pending_smooth = ruby_.smooth_upgrade;
  }

  void fill_in_pool() {
    pool::Config& config = snapshot_.config;
    config.number = static_cast<std::uint32_t>(
        std::clamp<std::int64_t>(ruby_.config.number, 1, limits::kMaxWorkers - 1));
    if (ruby_.config.seconds != 1) {  // 1 is what nobody has asked for
      config.seconds = from_seconds(ruby_.config.seconds);
    }
    config.max_unacked_given = ruby_.config.max_unacked.has_value();
    config.max_unacked = static_cast<std::uint32_t>(std::max<std::int64_t>(
        1, ruby_.config.max_unacked.value_or(static_cast<std::int64_t>(os::usable_cpus()))));
    if (config.max_unacked_given) {
      settings().max_unacked_given = config.max_unacked;
    }
    if (ruby_.config.max_upgrade_additional) {
      config.max_upgrade_additional = static_cast<std::uint32_t>(
          std::max<std::int64_t>(0, *ruby_.config.max_upgrade_additional));
    }
    if (ruby_.ack_mode.type == "manual") {
      config.ack_mode = pool::AckMode::kManual;
    } else {
      config.ack_delay = from_seconds(ruby_.ack_mode.timeout.value_or(1));
    }
    if (ruby_.signal_timeout) {
      config.signal_timeout = from_seconds(*ruby_.signal_timeout);
    }
    pool::Ledger& ledger = snapshot_.ledger;
    ledger.version = Version{static_cast<std::uint64_t>(std::max<std::int64_t>(0, ruby_.version))};
    ledger.newest = ledger.version;
    ledger.proved = ledger.version;
    ledger.deaths_before_ack =
        static_cast<std::uint32_t>(std::max<std::int64_t>(0, ruby_.consecutive_deaths_before_ack));
    ledger.last_spinup = instant(ruby_.last_spinup);
    ledger.last_upgraded = instant(ruby_.last_upgraded);
    ledger.respawn = ruby_.respawn;
    if (ruby_.upgrading) {
      pool::UpgradeProgress progress;
      progress.from = ledger.version;
      progress.to = ledger.version;
      progress.smooth = ruby_.smooth_upgrade;
      progress.rollback = false;  // how the old version was started is not known
      progress.proved = true;
      progress.started_at = now_;
      ledger.upgrade = progress;
    }
    for (const wire::RubyChild& child : ruby_.children) {
      if (child.type == wire::RubyChild::Type::kWorker) {
        add_worker(child);
      }
    }
  }

  // The child's own index; the lowest free one if that is taken, as it is when there was none.
  Slot take_slot(std::int64_t index) {
    std::uint32_t slot =
        static_cast<std::uint32_t>(std::clamp<std::int64_t>(index, 0, limits::kMaxWorkers - 1));
    for (std::uint32_t next = 0; !slots_.insert(slot).second; ++next) {
      slot = next;
    }
    return Slot{slot};
  }

  // Old versions note when a worker was started with its ACK timer alone.
  [[nodiscard]] Instant ack_started(Pid pid) const {
    for (const wire::RubyAckTimer& timer : read_.handoff.ack_timers) {
      if (timer.pid == pid) {
        return instant(timer.start).value_or(now_);
      }
    }
    return now_;
  }

  void add_worker(const wire::RubyChild& child) {
    wire::WorkerRecord record;
    pool::Worker& worker = record.worker;
    record.pid = child.pid;
    worker.id = {take_slot(child.index), Epoch{snapshot_.ledger.next_epoch++}};
    worker.version = Version{static_cast<std::uint64_t>(std::max<std::int64_t>(0, child.version))};
    worker.spawned_at = instant(child.spinup_time).value_or(ack_started(child.pid));
    if (child.acked) {
      worker.acked_at = worker.spawned_at;
    }
    worker.last_signaled_at = instant(child.last_signaled_at);
    for (const std::string& name : child.signaled) {
      if (const auto number = parse_signal(name)) {
        worker.signaled.add(*number);
      }
    }
    worker.state = !worker.signaled.empty() ? pool::WorkerState::kStopping
                   : child.acked            ? pool::WorkerState::kReady
                                            : pool::WorkerState::kStarting;
    worker.pinged_at = instant(child.pinged_at);
    if (child.pinged_request_id) {
      worker.pinged_request_id = wire::encode_json(*child.pinged_request_id);
    }
    snapshot_.workers[worker.id.epoch] = std::move(record);
  }

  Status keep(std::int64_t fd, const std::string& name, bool nonblocking) {
    Result<os::UniqueFd> own = os::own_descriptor(static_cast<int>(fd), nonblocking);
    if (!own) {
      return make_error("state of the Ruby master", name + ": " + own.error().message());
    }
    boot_.descriptors.emplace_back(name, std::move(*own));
    return Ok{};
  }

  Status take_sockets() {
    bool contiguous = !ruby_.bind_fds.empty();
    for (std::size_t i = 0; i < ruby_.bind_fds.size(); ++i) {
      contiguous =
          contiguous && ruby_.bind_fds[i] == ruby_.bind_fds[0] + static_cast<std::int64_t>(i);
      wire::ListenerRecord record;
      record.index = static_cast<std::uint32_t>(i);
      record.bind_index = record.index;
      if (i < ruby_.bind.size()) {
        const wire::RubyBind& bind = ruby_.bind[i];
        record.host = bind.host;
        record.port_given = static_cast<std::uint16_t>(bind.port);
        record.flags = bind.flags;
        record.text = bind.host + ":" + std::to_string(bind.port);
      }
      record.port =
          i < ruby_.bound_ports.size()
              ? static_cast<std::uint16_t>(ruby_.bound_ports[i])
              : os::bound_port(static_cast<int>(ruby_.bind_fds[i])).value_or(record.port_given);
      record.address = record.host + ":" + std::to_string(record.port);
      snapshot_.listeners[record.index] = record;
      if (Status kept = keep(ruby_.bind_fds[i], "listen:" + std::to_string(i), false); !kept) {
        return kept;
      }
    }
    // The numbers that the workers know their sockets by stay.
    settings().first_descriptor =
        contiguous ? static_cast<std::int32_t>(ruby_.bind_fds[0]) : kFirstDescriptor;
    return Ok{};
  }

  Status take_command_socket() {
    wire::Settings& s = settings();
    if (read_.handoff.servers.empty()) {
      return make_error("state of the Ruby master", "there is no command socket in it");
    }
    if (Status kept = keep(read_.handoff.servers[0].server, "command", true); !kept) {
      return kept;
    }
    if (const auto identity = os::socket_identity(s.socket_path)) {
      s.files.push_back({s.socket_path, identity->first, identity->second});
    }
    std::uint64_t id = 1;
    for (const wire::RubyConnection& connection : read_.handoff.connections) {
      wire::ConnectionRecord record;
      record.id = id++;
      const os::Peer peer = os::peer_of(static_cast<int>(connection.socket));
      record.peer_pid = peer.pid;
      record.peer_uid = peer.uid;
      record.peer_gid = peer.gid;
      record.input = connection.read_buffer;
      record.output = connection.write_buffer;
      for (const wire::RubySubscription& subscription : connection.subscriptions) {
        if (subscription.tag == "upgrade") {
          record.subscriptions.push_back("y" + wire::encode_json(subscription.request_id));
        }
      }
      if (keep(connection.socket, "conn:" + std::to_string(record.id), true)) {
        snapshot_.connections[record.id] = std::move(record);
      }
    }
    Result<os::SocketFile> notify =
        os::open_notify_socket(s.notify_path, s.socket_mode, s.socket_group);
    if (!notify) {
      return notify.error();
    }
    s.files.push_back({s.notify_path, notify->device, notify->inode});
    boot_.descriptors.emplace_back("notify", std::move(notify->fd));
    s.inherited = os::inherited_descriptors();
    const auto count = static_cast<std::int32_t>(snapshot_.listeners.size());
    s.control = std::max(s.control, s.first_descriptor + count + 1);
    for (const std::int32_t fd : s.inherited) {
      s.control = std::max(s.control, fd + 1);
    }
    return Ok{};
  }

  Status record_program() {
    wire::Program program;
    program.directory = settings().current_directory;
    program.arguments = ruby_.cmd.value_or(settings().original_command);
    program.environment = environment_;
    if (program.arguments.empty()) {
      return make_error("state of the Ruby master", "there is no command in it");
    }
    program.path = pin_program(*kernel_, program.arguments[0], program.directory);
    std::vector<Version> versions = {snapshot_.ledger.version};
    for (const auto& [epoch, worker] : snapshot_.workers) {
      versions.push_back(worker.worker.version);
    }
    for (const Version version : versions) {
      program.version = version;
      snapshot_.programs[version] = program;
    }
    return Ok{};
  }

  Status write_snapshot() {
    Result<int> file = kernel_->create_memory("einhorn-snapshot");
    if (!file) {
      return file.error();
    }
    boot_.descriptors.emplace_back("snapshot", os::UniqueFd(*file));
    return kernel_->write_at(*file, wire::kJournalStart, wire::encode_journal(snapshot_));
  }

  wire::RubyHandoffRead read_;
  const wire::RubyState& ruby_;
  std::vector<std::string> environment_;
  std::unique_ptr<os::LinuxKernel> kernel_;
  std::unique_ptr<Log> log_;
  Instant now_;
  wire::Snapshot snapshot_;
  std::set<std::uint32_t> slots_;  // of the workers
  Boot boot_;
};

}  // namespace

Result<Boot> boot_from_ruby(std::string_view state, std::vector<std::string> environment,
                            const std::string& script) {
  Result<wire::Value> document = wire::parse_yaml(state, wire::ruby_state_limits());
  if (!document) {
    return make_error("state of the Ruby master", document.error().message());
  }
  Result<wire::RubyHandoffRead> read = wire::decode_ruby_handoff(*document);
  if (!read) {
    return make_error("state of the Ruby master", read.error().message());
  }
  return Migration(std::move(*read), std::move(environment), script).run();
}

Status check_ruby_state(std::string_view state) {
  Result<wire::Value> document = wire::parse_yaml(state, wire::ruby_state_limits());
  if (!document) {
    return make_error("state of the Ruby master", document.error().message());
  }
  Result<wire::RubyHandoffRead> read = wire::decode_ruby_handoff(*document);
  if (!read) {
    return make_error("state of the Ruby master", read.error().message());
  }
  if (read->handoff.servers.empty()) {
    return make_error("state of the Ruby master", "there is no command socket in it");
  }
  const wire::RubyState& ruby = read->handoff.state;
  if (ruby.cmd.value_or(ruby.orig_cmd.value_or(std::vector<std::string>{})).empty()) {
    return make_error("state of the Ruby master", "there is no command in it");
  }
  wire::Settings settings;
  if (Status named = name_files(ruby, settings); !named) {
    return named;
  }
  return os::check_socket_path(settings.notify_path);
}

}  // namespace einhorn::master
