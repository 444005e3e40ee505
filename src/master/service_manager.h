// What the service manager that started us is told: systemd, or whatever else has set NOTIFY_SOCKET.
//
// The words are the master's, as it alone knows the pool; the guard passes them on, since it is the
// process that the service manager started. Said is
//
//   READY=1, MAINPID=    the pool serves: as many workers are up as are wanted; or some are, and the
//                        rest has failed or has not come for kReadyPatience. Again after an upgrade
//   RELOADING=1          an upgrade, or a new master, has begun
//   STOPPING=1           no worker is replaced any more
//   STATUS=              the same for people, kStatusEvery apart at least
//   WATCHDOG=1           twice in WATCHDOG_USEC: the loop of an acting master turns
//   FDSTORE=1, FDNAME=   each listening socket, so that the death of guard and master together
//                        costs no connection: os::adopt_stored (os/listeners.h) finds them again
//
// A new master says again how things are; nothing is remembered across masters. Without a service
// manager nothing is sent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/ids.h"
#include "base/instant.h"
#include "master/guard_link.h"
#include "pool/pool.h"

namespace einhorn::master {

inline constexpr Duration kReadyPatience = std::chrono::seconds{10};
inline constexpr Duration kStatusEvery = std::chrono::milliseconds{200};

class ServiceManager {
 public:
  ServiceManager(GuardLink& guard, const pool::Pool& pool, Pid main_pid)
      : guard_(guard), pool_(pool), main_pid_(main_pid) {}

  // There is one, as the guard says; it wants a WATCHDOG=1 within `watchdog` each time (0: none).
  void found(Duration watchdog);

  void keep_listener(std::uint32_t index, int fd);
  void forget_listener(std::uint32_t index);
  // After each turn of the loop. `handing_off`: a new master is coming up.
  void turn(bool handing_off, Instant now);
  // When a turn is wanted at the latest.
  [[nodiscard]] std::optional<Instant> next_deadline() const;

 private:
  enum class Phase { kStarting, kReady, kReloading, kStopping };

  [[nodiscard]] Phase phase(bool handing_off, Instant now);
  [[nodiscard]] std::string status(Phase phase) const;
  void plan(Instant at);

  GuardLink& guard_;
  const pool::Pool& pool_;
  Pid main_pid_;
  bool there_ = false;
  Duration watchdog_{};
  Phase said_ = Phase::kStarting;
  bool was_ready_ = false;
  std::optional<Instant> first_ready_at_;
  std::string status_said_;
  std::optional<Instant> status_said_at_;
  std::optional<Instant> watchdog_at_;
  std::optional<Instant> next_;
};

}  // namespace einhorn::master
