// The master's side of probes: keeps the prober running (probe/prober.h), hands it what is to be
// asked, and gives its answers to the pool.
//
// It is started with the first probe, and again with the next one when it has died; what was under
// way then is begun again by the pool. It leaves with the master: the next one starts its own.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/ids.h"
#include "base/instant.h"
#include "master/log.h"
#include "master/probe_target.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Prober {
 public:
  static constexpr std::uint64_t kToken = 41;

  struct Hooks {
    std::function<void(WorkerId, bool well, std::string detail)> answered;
    std::function<void(Pid)> started;  // a process that is no worker
    std::function<bool()> has_guard;
  };

  Prober(os::Kernel& kernel, Log& log, const wire::Settings& settings, Hooks hooks);
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  void probe(WorkerId worker, Pid pid, Duration timeout, int keep_below, Instant now);
  void on_ready();

 private:
  bool start(int keep_below, Instant now);
  void stop();

  os::Kernel& kernel_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  ProbeTarget target_;
  int control_ = -1;
  std::optional<Instant> started_at_;
};

}  // namespace einhorn::master
