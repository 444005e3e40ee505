// What must hold after every step of a simulated life, each with its name.
//
// Here, of the pool as its master sees it:
//   capacity      no ready worker is stopped so that fewer than the number are left ready
//   rollback      until an upgrade has proved itself never all ready workers of the old version are
//                 stopped
//   pacing        no more than max_unacked new workers are starting, with the documented exceptions
//   identity      a slot has one living worker; an epoch is used once
//   no-stranger   whom the master starts, signals and lists as a worker is one, and all who live
//                 are known
//   one-acts      of two living masters only the last one acts, and who has said that it is frozen
//                 does nothing (SimulatedKernel)
//   persisted     when the master waits, the snapshot says what the pool is; nothing is confirmed
//                 before that
//   handoff       a new master knows exactly the living workers that the last one wrote down
//   ownership     listening sockets stay open, and each worker gets them under the same numbers
//   descriptors   what the master has open is what it needs, and so is what the guard has
//   bounded       journal, versions, what is kept and who is connected do not grow with time
//   oldest-first  of two ready workers of one version the older one is stopped first
//   back-off      while workers die before their ACK, there is a pause between two starts
//   in-time       who does not stop within its time is killed, and a zygote that does not load; an
//                 upgrade that fails or takes too long is rolled back
//   canary        no more than the canaries are started before one of them was ready
//   own-ack       nobody is up who has not said so itself
//   heard         the connection of one that has its ACK still to say outlives the master, and so
//                 does the one that a worker was born with
//   word          what a forked worker says of itself is in its socket until it is written down
//   in-order      a zygote is asked for nothing that it would take for a repetition (Zygotes)
//   recycling     no more than max_recycling workers are replaced at a time for their limits
//   honest        who is silent, busy for too long or answers no probe is taken out in time, and
//                 nobody else; a probe asks the worker that it is about
//   rights        nobody stops the pool who may not
//   hooked        no worker is started before its hook has ended well (Hooks)
//   scaled        the number stays in the range of --workers
//   quiet         a stable pool waits for nothing
//   groups        a worker joins groups that are there; they go with the last who is in them
//   output        a living worker's output can always be read by somebody (Simulation)
//   reaped-once   nobody stays a zombie while there is a master; nobody is reaped twice (World), nor
//                 before a master was told (GuardProcess)
//
// Elsewhere:
//   answered-once  every request is answered once, and readably (Clients)
//   numbered       the event stream has no gaps, and one number is one event (Subscribers)
//   no-spinning, startup, ledger  a master does not turn without end, comes up, and closes what it
//                  had (MasterProcess)
//   manager       the service manager is told what it understands, that a settled pool is ready, and
//                 its watchdog is fed (GuardProcess, blows.cpp)
//   settles, stops, ledger  the end of a life (blows.cpp)
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/limits.h"
#include "pool/pool.h"
#include "sim/guard_process.h"
#include "sim/master_process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"
#include "wire/snapshot.h"

namespace einhorn::sim {

// Bytes that one client has not read, at most.
inline constexpr std::size_t kMostUnsent = 192 * 1024 + limits::kMaxEventBacklog;

class Invariants {
 public:
  Invariants(World& world, GuardProcess& guard) : world_(world), guard_(guard) {}

  // A worker is about to be started; `pool` is null while its master is being created.
  void on_spawn(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id,
                const pool::Pool* pool);
  void on_signal(SimulatedKernel& by, const ProcessPtr& to, int signal, bool by_pidfd,
                 const pool::Pool* pool);
  // It was given twice, as the first time could not be written down.
  [[nodiscard]] bool reused(Epoch epoch) const { return reused_.contains(epoch.value); }
  // An answer goes out.
  void on_answer(std::string_view bytes, const pool::Pool* pool);
  // A new master reads this snapshot.
  void on_read(std::string_view bytes, const std::vector<ProcessPtr>& living);
  void after_create(MasterProcess& master, const std::vector<ProcessPtr>& living);
  // A turn is over.
  void after_turn(MasterProcess& master, const std::vector<ProcessPtr>& living, bool acting);
  [[nodiscard]] static bool stable(const pool::Pool& pool);

 private:
  void check_pause(const SimulatedKernel& by, const pool::Pool& pool);
  void note_canaries(const pool::Pool& pool);
  [[nodiscard]] static std::size_t canaries(const pool::Pool& pool);
  void check_canary(const pool::Pool& pool, Version version);
  void check_order(const pool::Pool& pool, const pool::Worker& stopped);
  void check_acks(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_in_time(const pool::Pool& pool);
  void check_health(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_probed(const pool::Pool& pool, const pool::Worker& worker, const Process& process);
  void expect_in_time(std::uint64_t key, std::optional<Instant> due, const std::string& what);
  void on_act(const ProcessPtr& by);
  void check_bounds(const wire::Snapshot& snapshot);
  void forget_lost_successors(const ProcessPtr& master);
  void check_words(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_known(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_persisted(MasterProcess& master, const pool::Pool& pool,
                       const std::vector<ProcessPtr>& living);
  void check_speakers(const pool::Pool& pool, const wire::Snapshot& written,
                      const std::vector<ProcessPtr>& living);
  void check_descriptors(MasterProcess& master, const pool::Pool& pool);
  const wire::Snapshot& read_snapshot(const SimulatedKernel* master);

  World& world_;
  GuardProcess& guard_;
  std::map<std::uint64_t, ProcessPtr> epochs_;  // each with the master that used it
  std::set<std::uint64_t> ever_;
  std::set<std::uint64_t> reused_;
  std::set<std::uint64_t> stopped_;                     // epochs whose stop signal was looked at
  std::map<const pool::Pool*, std::uint32_t> numbers_;  // of workers, as the last turn left it
  std::uint64_t turns_ = 0;
  Pid last_starter_ = 0;  // the master that tried to start a worker last, and when
  Instant last_start_;
  std::map<Version, std::size_t> canaries_;   // of each upgrade, as it began; 0: it had none
  std::map<std::uint64_t, Instant> overdue_;  // epochs (0: the upgrade), and since when
  std::set<Version> seen_ready_;              // versions that had a ready worker
  // The last snapshot that was read, and where: reading takes long.
  wire::Snapshot read_;
  std::pair<std::uint64_t, std::uint64_t> read_at_;
  std::size_t read_fresh_ = 0;  // what it had when it was written anew
  std::size_t most_workers_ = 0;
  std::optional<Instant> calm_since_;  // the end of all faults, as far as it was seen
  ProcessPtr actor_;
  std::vector<std::pair<ProcessPtr, ProcessPtr>> relieved_;  // who acted, and who acts since
};

}  // namespace einhorn::sim
