// What must hold after every step of a simulated life, each with its name.
//
//   capacity      the pool never stops a ready worker so that fewer than the number are left ready
//   rollback      until an upgrade has proved itself the old version's ready workers are never all
//   stopped pacing        no more than max_unacked new workers are starting, with the documented
//   exceptions identity      a slot has one living worker; an epoch is used once no-stranger
//   whatever the master starts, signals and lists as a worker is one persisted     when the master
//   waits, the snapshot says what the pool is handoff       a new master knows exactly the living
//   workers that the last one wrote down ownership     the listening sockets stay open, and each
//   worker gets them under the same numbers descriptors   what the master has open is what it needs
//   quiet         nothing is waited for when nothing is to come
//   oldest-first  of two ready workers of one version the older one is stopped first
//   back-off      while workers die before their ACK, there is a pause between two starts
//   in-time       who does not stop within its time is killed; an upgrade that fails or takes too
//                 long is rolled back
//   canary        no more than the canaries are started before one of them was ready
//   own-ack       nobody is up who has not said so itself
//   rights        nobody stops the pool who may not
//   one-acts      (in SimulatedKernel) who has said that it is frozen does nothing
//   reaped-once   (in World) and nobody stays a zombie while there is a master
//   answered-once (in Clients), no-spinning, startup and ledger (in MasterProcess)
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pool/pool.h"
#include "sim/guard_model.h"
#include "sim/master_process.h"
#include "sim/simulated_kernel.h"
#include "sim/world.h"
#include "wire/snapshot.h"

namespace einhorn::sim {

class Invariants {
 public:
  Invariants(World& world, GuardModel& guard) : world_(world), guard_(guard) {}

  // A worker is about to be started; `pool` is null while its master is being created.
  void on_spawn(SimulatedKernel& by, const os::SpawnSpec& spec, WorkerId id,
                const pool::Pool* pool);
  void on_signal(const ProcessPtr& to, int signal, bool by_pidfd, const pool::Pool* pool);
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
  void check_known(const pool::Pool& pool, const std::vector<ProcessPtr>& living);
  void check_persisted(const pool::Pool& pool);
  void check_descriptors(MasterProcess& master, const pool::Pool& pool);
  [[nodiscard]] wire::Snapshot read_snapshot();

  World& world_;
  GuardModel& guard_;
  std::set<std::uint64_t> epochs_;
  std::set<std::uint64_t> stopped_;  // epochs whose stop signal was looked at
  std::uint64_t turns_ = 0;
  Pid last_starter_ = 0;  // the master that tried to start a worker last, and when
  Instant last_start_;
  std::map<Version, std::size_t> canaries_;   // of each upgrade, as it began; 0: it had none
  std::map<std::uint64_t, Instant> overdue_;  // epochs (0: the upgrade), and since when
  std::set<Version> seen_ready_;              // versions that had a ready worker
};

}  // namespace einhorn::sim
