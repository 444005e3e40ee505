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
//   in-time       who does not stop within its time is killed; an upgrade that fails or takes too
//                 long is rolled back
//   canary        no more than the canaries are started before one of them was ready
//   own-ack       nobody is up who has not said so itself
//   rights        nobody stops the pool who may not
//   quiet         a stable pool waits for nothing
//   reaped-once   nobody stays a zombie while there is a master; nobody is reaped twice (World)
//
// Elsewhere:
//   answered-once  every request is answered once, and readably (Clients)
//   no-spinning, startup, ledger  a master does not turn without end, comes up, and closes what it
//                  had (MasterProcess)
//   settles, stops, ledger  the end of a life (blows.cpp)
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pool/pool.h"
#include "sim/guard_process.h"
#include "sim/master_process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"
#include "wire/snapshot.h"

namespace einhorn::sim {

class Invariants {
 public:
  Invariants(World& world, GuardProcess& guard) : world_(world), guard_(guard) {}

  // A worker is about to be started; `pool` is null while its master is being created.
  void on_spawn(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id,
                const pool::Pool* pool);
  void on_signal(SimulatedKernel& by, const ProcessPtr& to, int signal, bool by_pidfd,
                 const pool::Pool* pool);
  // An answer goes out.
  void on_answer(std::string_view bytes, const pool::Pool* pool);
  // A master is about to read the snapshot.
  void before_create(const std::vector<ProcessPtr>& living);
  void after_create(MasterProcess& master, const std::vector<ProcessPtr>& living);
  // A turn is over.
  void after_turn(MasterProcess& master, const std::vector<ProcessPtr>& living, bool acting);
  [[nodiscard]] static bool stable(const pool::Pool& pool);

 private:
  void check_pause(const SimulatedKernel& by, const pool::Pool& pool);
  void check_canary(const pool::Pool& pool, Version version);
  void check_order(const pool::Pool& pool, const pool::Worker& stopped);
  void check_acks(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_in_time(const pool::Pool& pool);
  void expect_in_time(std::uint64_t key, std::optional<Instant> due, const std::string& what);
  void on_act(const ProcessPtr& by);
  void check_bounds(const wire::Snapshot& snapshot);
  void check_known(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_persisted(MasterProcess& master, const pool::Pool& pool);
  void check_descriptors(MasterProcess& master, const pool::Pool& pool);
  const wire::Snapshot& read_snapshot(const SimulatedKernel* master);

  World& world_;
  GuardProcess& guard_;
  std::set<std::uint64_t> epochs_;
  std::set<std::uint64_t> stopped_;  // epochs whose stop signal was looked at
  std::uint64_t turns_ = 0;
  Pid last_starter_ = 0;  // the master that tried to start a worker last, and when
  Instant last_start_;
  std::map<Version, std::size_t> canaries_;   // of each upgrade, as it began; 0: it had none
  std::map<std::uint64_t, Instant> overdue_;  // epochs (0: the upgrade), and since when
  std::set<Version> seen_ready_;              // versions that had a ready worker
  // The last snapshot that was read, and where: reading takes long.
  wire::Snapshot read_;
  std::pair<std::uint64_t, std::uint64_t> read_at_;
  std::size_t most_workers_ = 0;
  ProcessPtr actor_;
  std::vector<std::pair<ProcessPtr, ProcessPtr>> relieved_;  // who acted, and who acts since
};

}  // namespace einhorn::sim
