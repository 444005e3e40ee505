#include "wire/snapshot.h"

#include <array>

#include "base/limits.h"
#include "wire/tagged.h"

namespace einhorn::pool {

// The fields of the pool's types, for the snapshot. Tags are for ever.
template <typename Archive>
void fields(Archive& archive, Limit& limit) {
  archive(1, limit.soft);
  archive(2, limit.hard);
  archive(3, limit.times);
  archive(4, limit.samples);
}

template <typename Archive>
void fields(Archive& archive, ProbeRules& rules) {
  archive(1, rules.on);
  archive(2, rules.interval);
  archive(3, rules.timeout);
  archive(4, rules.failures);
}

template <typename Archive>
void fields(Archive& archive, FlappingRules& rules) {
  archive(1, rules.times);
  archive(2, rules.within);
  archive(3, rules.pause);
  archive(4, rules.retries);
}

template <typename Archive>
void fields(Archive& archive, HealthRules& rules) {
  archive(1, rules.ping_timeout);
  archive(2, rules.request_timeout);
  archive(3, rules.dump_signal);
  archive(4, rules.cpu_window);
  archive(5, rules.sample_interval);
  archive(6, rules.max_age);
  archive(7, rules.max_requests);
  archive(8, rules.jitter_percent);
  archive(9, rules.max_recycling);
  archive(10, rules.probe);
  archive(11, rules.flapping);
  archive(20, rules.of(Measure::kMemory));
  archive(21, rules.of(Measure::kPss));
  archive(22, rules.of(Measure::kCpu));
  archive(23, rules.of(Measure::kDescriptors));
  archive(24, rules.of(Measure::kThreads));
}

template <typename Archive>
void fields(Archive& archive, BusyRequest& request) {
  archive(1, request.id);
  archive(2, request.since);
}

template <typename Archive>
void fields(Archive& archive, SlotTrouble& trouble) {
  archive(1, trouble.slot);
  archive(2, trouble.deaths);
  archive(3, trouble.paused_until);
  archive(4, trouble.first_pause);
  archive(5, trouble.retries);
  archive(6, trouble.given_up);
}

template <typename Archive>
void fields(Archive& archive, Config& config) {
  archive(1, config.number);
  archive(2, config.ack_mode);
  archive(3, config.ack_delay);
  archive(4, config.ack_timeout);
  archive(5, config.seconds);
  archive(6, config.max_unacked);
  archive(7, config.max_upgrade_additional);
  archive(8, config.signal_timeout);
  archive(9, config.drain_timeout);
  archive(10, config.stop_signal);
  archive(11, config.give_up);
  archive(12, config.canary);
  archive(13, config.canary_seconds);
  archive(14, config.upgrade_failures);
  archive(15, config.upgrade_timeout);
  archive(16, config.max_unacked_given);
  archive(30, config.health);
  archive(200, config.workers_min);
  archive(201, config.workers_max);
  archive(202, config.scale_up_after);
  archive(203, config.scale_down_after);
  archive(240, config.hook_before_start);
  archive(241, config.hook_before_stop);
}

template <typename Archive>
void fields(Archive& archive, UpgradeProgress& progress) {
  archive(1, progress.from);
  archive(2, progress.to);
  archive(3, progress.smooth);
  archive(4, progress.rollback);
  archive(5, progress.going_back);
  archive(6, progress.proved);
  archive(7, progress.failures);
  archive(8, progress.started_at);
  archive(9, progress.reports);
}

template <typename Archive>
void fields(Archive& archive, Ledger& ledger) {
  archive(1, ledger.version);
  archive(2, ledger.newest);
  archive(3, ledger.proved);
  archive(4, ledger.previous);
  archive(5, ledger.next_epoch);
  archive(6, ledger.deaths_before_ack);
  archive(7, ledger.burst_left);
  archive(8, ledger.deaths);
  archive(9, ledger.last_spinup);
  archive(10, ledger.last_upgraded);
  archive(11, ledger.respawn);
  archive(12, ledger.failed);
  archive(13, ledger.failure);
  archive(14, ledger.upgrade);
  archive(15, ledger.left);
  archive(20, ledger.quick_deaths);
  archive(21, ledger.quick_deaths_since);
}

template <typename Archive>
void fields(Archive& archive, Worker& worker) {
  archive(1, worker.id.slot);
  archive(2, worker.id.epoch);
  archive(3, worker.version);
  archive(4, worker.state);
  archive(5, worker.spawned_at);
  archive(6, worker.acked_at);
  archive(7, worker.signaled);
  archive(8, worker.last_signaled_at);
  archive(9, worker.missed_ack);
  archive(10, worker.stop_wanted);
  archive(11, worker.pinged_at);
  archive(12, worker.pinged_request_id);
  archive(13, worker.status_text);
  archive(20, worker.stop_with);
  archive(30, worker.last_request_id);
  archive(31, worker.requests);
  archive(32, worker.busy);
  archive(33, worker.ailment);
  archive(34, worker.complaint);
  archive(35, worker.ailing_since);
  archive(36, worker.condemned);
  archive(37, worker.examining);
  archive(38, worker.recycling);
  archive(240, worker.hook);
}

}  // namespace einhorn::pool

namespace einhorn::wire {

template <typename Archive>
void fields(Archive& archive, OwnFile& file) {
  archive(1, file.path);
  archive(2, file.device);
  archive(3, file.inode);
}

template <typename Archive>
void fields(Archive& archive, Privileges& privileges) {
  archive(1, privileges.uid);
  archive(2, privileges.gid);
  archive(3, privileges.groups);
  archive(4, privileges.user_name);
  archive(5, privileges.user_home);
  archive(6, privileges.umask);
  archive(7, privileges.root);
  archive(8, privileges.no_new_privs);
  archive(9, privileges.capabilities);
  archive(10, privileges.oom_score_adj);
  archive(11, privileges.io_priority);
  archive(12, privileges.cpu_sets);
  archive(13, privileges.master_uid);
  archive(14, privileges.master_gid);
  archive(15, privileges.master_groups);
  archive(16, privileges.master_capabilities);
}

template <typename Archive>
void fields(Archive& archive, ResourceLimit& limit) {
  archive(1, limit.resource);
  archive(2, limit.soft);
  archive(3, limit.hard);
}

template <typename Archive>
void fields(Archive& archive, Settings& settings) {
  archive(1, settings.name);
  archive(2, settings.socket_path);
  archive(3, settings.socket_path_given);
  archive(4, settings.pidfile);
  archive(5, settings.pidfile_given);
  archive(6, settings.lockfile);
  archive(7, settings.lockfile_given);
  archive(8, settings.socket_mode);
  archive(9, settings.socket_group);
  archive(10, settings.verbosity);
  archive(11, settings.log_json);
  archive(12, settings.log_file);
  archive(13, settings.command_socket_as_fd);
  archive(14, settings.kill_children_on_exit);
  archive(15, settings.nice_master);
  archive(16, settings.nice_worker);
  archive(17, settings.renice_command);
  archive(18, settings.reexec_commandline);
  archive(19, settings.drop_environment);
  archive(20, settings.original_command);
  archive(21, settings.directory);
  archive(22, settings.start_environment);
  archive(23, settings.inherited);
  archive(24, settings.backlog);
  archive(25, settings.max_unacked_given);
  archive(26, settings.gc_before_fork);
  archive(27, settings.script);
  archive(28, settings.wall_offset);
  archive(29, settings.generation);
  archive(30, settings.started);
  archive(31, settings.guard_lost);
  archive(32, settings.first_descriptor);
  archive(33, settings.started_at);
  archive(34, settings.notify_path);
  archive(35, settings.files);
  archive(36, settings.guard_pid);
  archive(37, settings.current_directory);
  archive(38, settings.control);
  archive(39, settings.pending_upgrades);
  archive(40, settings.pending_smooth);
  archive(41, settings.pending_rollback);
  archive(42, settings.intercept);
  archive(43, settings.intercept_all);
  archive(44, settings.intercept_io_uring);
  archive(45, settings.intercept_rules);
  archive(46, settings.intercept_library);
  archive(100, settings.preload);
  archive(101, settings.preload_command);
  archive(102, settings.preload_language);
  archive(103, settings.preload_interpreter);
  archive(104, settings.preload_fallback);
  archive(105, settings.preload_timeout);
  archive(180, settings.variables);
  archive(181, settings.arguments);
  archive(182, settings.privileges);
  archive(183, settings.worker_binds);
  archive(184, settings.pending_config);
  archive(185, settings.configured);
  archive(186, settings.configured_verbosity);
  archive(140, settings.capture);
  archive(141, settings.capture_file);
  archive(160, settings.agent);
  archive(161, settings.agent_arguments);
  archive(142, settings.cgroup_per_worker);
  archive(143, settings.cgroup_memory);
  archive(144, settings.cgroup_cpu);
  archive(145, settings.cgroup_pids);
  archive(146, settings.cgroup_places);
  archive(220, settings.intercept_door);
  archive(221, settings.intercept_secret);
  archive(222, settings.intercept_drain);
  archive(223, settings.listen_probe);
  archive(120, settings.resource_limits);
  archive(121, settings.probe);
  archive(122, settings.probe_address);
  archive(123, settings.probe_command);
  archive(240, settings.hooks);
  archive(241, settings.hook_timeout);
  archive(242, settings.hook_upgrade_timeout);
}

template <typename Archive>
void fields(Archive& archive, Program& program) {
  archive(1, program.version);
  archive(2, program.directory);
  archive(3, program.path);
  archive(4, program.arguments);
  archive(5, program.environment);
  archive(100, program.zygote);
  archive(101, program.zygote_arguments);
  archive(102, program.postload);
}

template <typename Archive>
void fields(Archive& archive, ZygoteRecord& zygote) {
  archive(1, zygote.number);
  archive(2, zygote.version);
  archive(3, zygote.pid);
  archive(4, zygote.loaded);
  archive(100, zygote.asked_below);
  archive(101, zygote.guard);
}

template <typename Archive>
void fields(Archive& archive, HookRecord& hook) {
  archive(1, hook.number);
  archive(2, hook.hook);
  archive(3, hook.worker.slot);
  archive(4, hook.worker.epoch);
  archive(5, hook.version);
  archive(6, hook.variables);
  archive(7, hook.pid);
  archive(8, hook.started_at);
  archive(9, hook.deadline);
  archive(10, hook.given_up);
  archive(11, hook.orphan);
}

template <typename Archive>
void fields(Archive& archive, ListenerRecord& listener) {
  archive(1, listener.index);
  archive(2, listener.text);
  archive(3, listener.host);
  archive(4, listener.port_given);
  archive(5, listener.flags);
  archive(6, listener.address);
  archive(7, listener.port);
  archive(8, listener.name);
  archive(9, listener.bind_index);
  archive(10, listener.from_argument);
  archive(11, listener.backlog);
  archive(12, listener.backup);
  archive(180, listener.since);
  archive(181, listener.until);
  archive(182, listener.tentative);
  archive(240, listener.as_stdin);
}

template <typename Archive>
void fields(Archive& archive, WorkerRecord& record) {
  archive(1, record.worker);
  archive(2, record.pid);
  archive(3, record.orphan);
  archive(100, record.fork_id);
  archive(101, record.asked_of);
  archive(220, record.withheld);
}

template <typename Archive>
void fields(Archive& archive, ConnectionRecord& connection) {
  archive(1, connection.id);
  archive(2, connection.peer_pid);
  archive(3, connection.peer_uid);
  archive(4, connection.peer_gid);
  archive(5, connection.input);
  archive(6, connection.output);
  archive(7, connection.subscriptions);
  archive(160, connection.events);
}

namespace {

enum class Kind : std::uint16_t {
  kSettings = 1,
  kConfig = 2,
  kLedger = 3,
  kProgram = 4,
  kProgramGone = 5,
  kListener = 6,
  kWorker = 7,
  kWorkerGone = 8,
  kConnection = 9,
  kConnectionGone = 10,
  kZygote = 100,
  kZygoteGone = 101,
  kSlotTrouble = 30,
  kHook = 240,
  kHookGone = 241,
};

constexpr std::uint32_t kMagic = 0x314a4845;  // "EHJ1"
constexpr std::size_t kHeadBytes = 28;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 1U) != 0 ? (crc >> 1U) ^ 0xedb88320U : crc >> 1U;
    }
    table[i] = crc;
  }
  return table;
}

std::uint32_t crc32(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = make_crc_table();
  std::uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) {
    crc = kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xffU] ^ (crc >> 8U);
  }
  return crc ^ 0xffffffffU;
}

std::string make_entry(Kind kind, std::uint64_t key, const std::string& body) {
  std::string entry;
  entry.reserve(kHeadBytes + body.size());
  tagged::put_integer(entry, kMagic);
  tagged::put_integer(entry, static_cast<std::uint16_t>(kind));
  tagged::put_integer(entry, kSnapshotFormat);
  tagged::put_integer(entry, key);
  tagged::put_integer(entry, static_cast<std::uint32_t>(body.size()));
  tagged::put_integer(entry, crc32(body));
  tagged::put_integer(entry, crc32(entry));
  entry += body;
  return entry;
}

struct Head {
  std::uint16_t kind = 0;
  std::uint64_t key = 0;
  std::uint32_t length = 0;
  std::uint32_t body_crc = 0;
};

std::optional<Head> read_head(std::string_view bytes) {
  if (bytes.size() < kHeadBytes || tagged::get_integer<std::uint32_t>(bytes) != kMagic ||
      tagged::get_integer<std::uint32_t>(bytes.substr(24)) != crc32(bytes.substr(0, 24))) {
    return std::nullopt;
  }
  return Head{tagged::get_integer<std::uint16_t>(bytes.substr(4)),
              tagged::get_integer<std::uint64_t>(bytes.substr(8)),
              tagged::get_integer<std::uint32_t>(bytes.substr(16)),
              tagged::get_integer<std::uint32_t>(bytes.substr(20))};
}

bool valid_state(pool::WorkerState state) {
  return static_cast<int>(state) >= 0 &&
         static_cast<int>(state) <= static_cast<int>(pool::WorkerState::kStopping);
}

bool valid_hook(pool::Hook hook) {
  return static_cast<int>(hook) <= static_cast<int>(pool::kHooks.back());
}

struct Reading {
  Snapshot snapshot;
  bool settings = false;
  bool listener_lost = false;
};

void apply(Reading& reading, const Head& head, std::string_view body) {
  Snapshot& snapshot = reading.snapshot;
  switch (static_cast<Kind>(head.kind)) {
    case Kind::kSettings:
      snapshot.settings = decode_record<Settings>(body);
      reading.settings = true;
      return;
    case Kind::kConfig:
      snapshot.config = decode_record<pool::Config>(body);
      return;
    case Kind::kLedger:
      snapshot.ledger = decode_record<pool::Ledger>(body);
      return;
    case Kind::kProgram: {
      auto program = decode_record<Program>(body);
      snapshot.programs[program.version] = std::move(program);
      return;
    }
    case Kind::kProgramGone:
      snapshot.programs.erase(Version{head.key});
      return;
    case Kind::kListener: {
      auto listener = decode_record<ListenerRecord>(body);
      snapshot.listeners[listener.index] = std::move(listener);
      return;
    }
    case Kind::kWorker: {
      auto worker = decode_record<WorkerRecord>(body);
      if (!valid_state(worker.worker.state) || !valid_hook(worker.worker.hook) ||
          worker.worker.id.slot.value >= limits::kMaxWorkers) {
        snapshot.damage.emplace_back("a worker's record makes no sense");
        return;
      }
      snapshot.workers[worker.worker.id.epoch] = std::move(worker);
      return;
    }
    case Kind::kWorkerGone:
      snapshot.workers.erase(Epoch{head.key});
      return;
    case Kind::kConnection: {
      auto connection = decode_record<ConnectionRecord>(body);
      snapshot.connections[connection.id] = std::move(connection);
      return;
    }
    case Kind::kConnectionGone:
      snapshot.connections.erase(head.key);
      return;
    case Kind::kZygote: {
      auto zygote = decode_record<ZygoteRecord>(body);
      snapshot.zygotes[zygote.number] = zygote;
      return;
    }
    case Kind::kZygoteGone:
      snapshot.zygotes.erase(head.key);
      return;
    case Kind::kHook: {
      auto hook = decode_record<HookRecord>(body);
      if (!valid_hook(hook.hook)) {
        snapshot.damage.emplace_back("a hook's record makes no sense");
        return;
      }
      snapshot.hooks[hook.number] = std::move(hook);
      return;
    }
    case Kind::kHookGone:
      snapshot.hooks.erase(head.key);
      return;
    case Kind::kSlotTrouble: {
      auto trouble = decode_record<pool::SlotTrouble>(body);
      if (trouble.slot.value >= limits::kMaxWorkers) {
        snapshot.damage.emplace_back("a slot's record makes no sense");
      } else if (trouble.empty()) {
        snapshot.troubles.erase(trouble.slot);
      } else {
        snapshot.troubles[trouble.slot] = std::move(trouble);
      }
      return;
    }
  }
  snapshot.damage.emplace_back("an entry of unknown kind " + std::to_string(head.kind));
}

}  // namespace

std::string encode_entry(const Settings& settings) {
  return make_entry(Kind::kSettings, 0, encode_record(settings));
}
std::string encode_entry(const pool::Config& config) {
  return make_entry(Kind::kConfig, 0, encode_record(config));
}
std::string encode_entry(const pool::Ledger& ledger) {
  return make_entry(Kind::kLedger, 0, encode_record(ledger));
}
std::string encode_entry(const Program& program) {
  return make_entry(Kind::kProgram, program.version.value, encode_record(program));
}
std::string encode_entry(const ListenerRecord& listener) {
  return make_entry(Kind::kListener, listener.index, encode_record(listener));
}
std::string encode_entry(const WorkerRecord& worker) {
  return make_entry(Kind::kWorker, worker.worker.id.epoch.value, encode_record(worker));
}
std::string encode_entry(const ConnectionRecord& connection) {
  return make_entry(Kind::kConnection, connection.id, encode_record(connection));
}
std::string encode_entry(const pool::SlotTrouble& trouble) {
  return make_entry(Kind::kSlotTrouble, trouble.slot.value, encode_record(trouble));
}
std::string encode_connection_gone(std::uint64_t id) {
  return make_entry(Kind::kConnectionGone, id, "");
}
std::string encode_entry(const ZygoteRecord& zygote) {
  return make_entry(Kind::kZygote, zygote.number, encode_record(zygote));
}
std::string encode_zygote_gone(std::uint64_t number) {
  return make_entry(Kind::kZygoteGone, number, "");
}
std::string encode_entry(const HookRecord& hook) {
  return make_entry(Kind::kHook, hook.number, encode_record(hook));
}
std::string encode_hook_gone(std::uint64_t number) {
  return make_entry(Kind::kHookGone, number, "");
}
std::string encode_gone(WorkerId worker) {
  return make_entry(Kind::kWorkerGone, worker.epoch.value, "");
}
std::string encode_gone(Version version) {
  return make_entry(Kind::kProgramGone, version.value, "");
}

std::string encode_journal(const Snapshot& snapshot) {
  std::string journal = encode_entry(snapshot.settings);
  journal += encode_entry(snapshot.config);
  journal += encode_entry(snapshot.ledger);
  for (const auto& [version, program] : snapshot.programs) {
    journal += encode_entry(program);
  }
  for (const auto& [index, listener] : snapshot.listeners) {
    journal += encode_entry(listener);
  }
  for (const auto& [epoch, worker] : snapshot.workers) {
    journal += encode_entry(worker);
  }
  for (const auto& [id, connection] : snapshot.connections) {
    journal += encode_entry(connection);
  }
  for (const auto& [number, zygote] : snapshot.zygotes) {
    journal += encode_entry(zygote);
  }
  for (const auto& [slot, trouble] : snapshot.troubles) {
    journal += encode_entry(trouble);
  }
  for (const auto& [number, hook] : snapshot.hooks) {
    journal += encode_entry(hook);
  }
  return journal;
}

Result<Snapshot> decode_snapshot(std::string_view file) {
  Reading reading;
  std::string_view rest = file.size() > kJournalStart ? file.substr(kJournalStart) : "";
  reading.snapshot.journal_bytes = rest.size();
  bool skipping = false;
  while (rest.size() >= kHeadBytes) {
    const std::optional<Head> head = read_head(rest);
    if (!head) {
      if (!std::exchange(skipping, true)) {
        reading.snapshot.damage.emplace_back("bytes that are no entry, " +
                                             std::to_string(rest.size()) + " bytes before the end");
      }
      rest.remove_prefix(1);
      continue;
    }
    skipping = false;
    const std::string_view body = rest.substr(kHeadBytes, head->length);
    if (body.size() < head->length || crc32(body) != head->body_crc) {
      reading.snapshot.damage.emplace_back("a damaged entry of kind " + std::to_string(head->kind) +
                                           ", key " + std::to_string(head->key));
      // Its length may be damaged as well as its bytes: look for the next entry from here on.
      rest.remove_prefix(kHeadBytes);
      skipping = true;
      reading.listener_lost |= static_cast<Kind>(head->kind) == Kind::kListener;
      continue;
    }
    apply(reading, *head, body);
    rest.remove_prefix(kHeadBytes + head->length);
  }
  if (!rest.empty() && !skipping) {
    reading.snapshot.damage.emplace_back("an entry that was begun, " + std::to_string(rest.size()) +
                                         " bytes before the end");
  }
  if (!reading.settings) {
    return make_error("snapshot", "it holds no readable settings");
  }
  if (reading.listener_lost) {
    return make_error("snapshot", "the record of a listening socket is damaged");
  }
  return std::move(reading.snapshot);
}

}  // namespace einhorn::wire
