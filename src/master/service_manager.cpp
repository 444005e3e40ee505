#include "master/service_manager.h"

#include <algorithm>

namespace einhorn::master {

void ServiceManager::found(Duration watchdog) {
  there_ = true;
  watchdog_ = watchdog;
}

void ServiceManager::keep_listener(std::uint32_t index, int fd) {
  if (there_) {
    guard_.tell_manager("FDSTORE=1\nFDNAME=einhorn-listen-" + std::to_string(index), fd);
  }
}

void ServiceManager::forget_listener(std::uint32_t index) {
  if (there_) {
    guard_.tell_manager("FDSTOREREMOVE=1\nFDNAME=einhorn-listen-" + std::to_string(index), -1);
  }
}

ServiceManager::Phase ServiceManager::phase(bool handing_off, Instant now) {
  const pool::Ledger& ledger = pool_.ledger();
  if (!ledger.respawn) {
    return Phase::kStopping;
  }
  if (!was_ready_) {
    const std::size_t ready = pool_.ready();
    if (ready == 0) {
      first_ready_at_.reset();
      return Phase::kStarting;
    }
    if (!first_ready_at_) {
      first_ready_at_ = now;
    }
    was_ready_ = ready >= pool_.config().number || ledger.deaths > 0 || ledger.upgrade ||
                 now - *first_ready_at_ >= kReadyPatience;
    if (!was_ready_) {
      plan(*first_ready_at_ + kReadyPatience);
      return Phase::kStarting;
    }
  }
  return handing_off || ledger.upgrade ? Phase::kReloading : Phase::kReady;
}

std::string ServiceManager::status(Phase phase) const {
  const pool::Ledger& ledger = pool_.ledger();
  if (phase == Phase::kStopping) {
    return "Stopping: " + std::to_string(pool_.alive()) + " workers left";
  }
  const std::string up = std::to_string(pool_.modern_ready()) + " of " +
                         std::to_string(pool_.config().number) + " workers up";
  const std::string version = "version " + std::to_string(ledger.version.value);
  if (ledger.upgrade) {
    return (ledger.upgrade->going_back ? "Rolling back to " : "Upgrading to ") + version + ": " +
           up;
  }
  return (phase == Phase::kReloading ? "Starting a new master: " : "") + up + ", " + version +
         (ledger.failure.empty() ? "" : " (the last upgrade failed)");
}

void ServiceManager::plan(Instant at) { next_ = next_ ? std::min(*next_, at) : at; }

void ServiceManager::turn(bool handing_off, Instant now) {
  if (!there_) {
    return;
  }
  next_.reset();
  const Phase phase = this->phase(handing_off, now);
  std::string text;
  if (phase != said_) {
    switch (phase) {
      case Phase::kStarting:
        break;
      case Phase::kReady:
        text = "READY=1\nMAINPID=" + std::to_string(main_pid_) + "\n";
        break;
      case Phase::kReloading:
        text =
            "RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now.time_since_epoch().count() / 1000) +
            "\n";
        break;
      case Phase::kStopping:
        text = "STOPPING=1\n";
        break;
    }
    said_ = phase;
  }
  const std::string status = this->status(phase);
  if (status != status_said_) {
    if (text.empty() && status_said_at_ && now - *status_said_at_ < kStatusEvery) {
      plan(*status_said_at_ + kStatusEvery);
    } else {
      text += "STATUS=" + status + "\n";
      status_said_ = status;
      status_said_at_ = now;
    }
  }
  if (watchdog_ > Duration{}) {
    if (!watchdog_at_ || now >= *watchdog_at_) {
      text += "WATCHDOG=1\n";
      watchdog_at_ = now + watchdog_ / 2;
    }
    plan(*watchdog_at_);
  }
  if (!text.empty()) {
    guard_.tell_manager(text, -1);
  }
}

std::optional<Instant> ServiceManager::next_deadline() const { return next_; }

}  // namespace einhorn::master
