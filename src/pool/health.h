// Rules by which workers are kept honest (docs/limits.md), and what is known of one by them.
//
// Two things may be found of a worker. It is *condemned*: it hangs, or is above a hard limit. Then
// it does not count any more, its replacement starts at once, and it is stopped (or killed)
// meanwhile. Or it is *ailing*: above a limit. Then it serves on until a replacement is ready, and
// only max_recycling workers at a time are replaced so.
//
// Pure as all of the pool: what was measured and what probes found come in as events.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"

namespace einhorn::pool {

// What is measured of a worker's process from time to time.
enum class Measure { kMemory, kPss, kCpu, kDescriptors, kThreads };
inline constexpr std::array kAllMeasures = {Measure::kMemory, Measure::kPss, Measure::kCpu,
                                            Measure::kDescriptors, Measure::kThreads};
inline constexpr std::size_t kMeasures = kAllMeasures.size();

// What was found of a worker. Values are kept in snapshots: a new one goes to the end.
enum class Ailment {
  kNone,
  kSilent,   // it has pinged before, and then not for ping_timeout
  kSlow,     // it has been busy with a request for request_timeout
  kProbe,    // its probe failed too often in a row
  kTrigger,  // it says itself that it hangs: WATCHDOG=trigger
  kMemory,
  kPss,
  kCpu,
  kDescriptors,
  kThreads,
  kAge,
  kRequests,
  kAsked,  // somebody wants it replaced: stop_worker
};
// "silent", "memory": the same word in log, state, metric and document; "" for none.
[[nodiscard]] std::string_view name(Ailment ailment);
[[nodiscard]] Ailment ailment_of(Measure measure);

// Of one measure: bytes, percent of one CPU, or a number.
struct Limit {
  std::optional<std::uint64_t> soft;  // more than that: ailing
  std::optional<std::uint64_t> hard;  // more than that, once: condemned, and killed
  std::uint32_t times = 3;            // so many
  std::uint32_t samples = 5;          // of the last so many have to be above `soft`; at most 32
  [[nodiscard]] bool set() const { return soft || hard; }
};

// What asks each worker whether it is well.
struct ProbeRules {
  bool on = false;
  Duration interval = std::chrono::seconds{10};
  Duration timeout = std::chrono::seconds{5};
  std::uint32_t failures = 3;  // in a row: condemned
};

// A slot whose workers die again and again is left empty for a while (--flapping).
struct FlappingRules {
  std::uint32_t times = 0;  // deaths; 0: off
  Duration within = std::chrono::minutes{5};
  Duration pause = std::chrono::minutes{10};
  std::uint32_t retries = 5;  // pauses until it is given up
};

struct HealthRules {
  std::optional<Duration> ping_timeout;
  std::optional<Duration> request_timeout;
  int dump_signal = 0;  // sent to a hung worker before its stop signal; 0: none
  std::array<Limit, kMeasures> limits;
  Duration cpu_window = std::chrono::seconds{60};
  Duration sample_interval = std::chrono::seconds{2};
  std::optional<Duration> max_age;
  std::optional<std::uint64_t> max_requests;
  std::uint32_t jitter_percent = 10;  // age and requests end that much earlier at most
  std::uint32_t max_recycling = 1;
  ProbeRules probe;
  FlappingRules flapping;

  [[nodiscard]] const Limit& of(Measure measure) const {
    return limits.at(static_cast<std::size_t>(measure));
  }
  [[nodiscard]] Limit& of(Measure measure) { return limits.at(static_cast<std::size_t>(measure)); }
  // Whether anything has to be measured.
  [[nodiscard]] bool measures() const;
  // Whether a pool that is well still has something to wait for.
  [[nodiscard]] bool watches() const;
};

// A request that a worker said it is busy with.
struct BusyRequest {
  std::string id;  // JSON text; "null" if it did not say
  Instant since;
};

// What was read about one worker's process. What could not be read is not there.
struct Sample {
  WorkerId worker;
  std::optional<std::uint64_t> memory;  // resident, bytes
  std::optional<std::uint64_t> pss;     // bytes
  std::optional<Duration> cpu;          // used since its start
  std::optional<std::uint64_t> descriptors;
  std::optional<std::uint64_t> threads;
};

// What the pool knows of a slot that has had deaths; forgotten when they are long ago.
struct SlotTrouble {
  Slot slot;
  std::vector<Instant> deaths;  // the last few
  std::optional<Instant> paused_until;
  std::optional<Instant> first_pause;
  std::uint32_t retries = 0;
  bool given_up = false;  // until somebody says upgrade, inc, dec or set_workers
  [[nodiscard]] bool paused() const { return paused_until || given_up; }
  [[nodiscard]] bool empty() const { return deaths.empty() && !paused() && !first_pause; }
};

// What was measured of one worker lately. Not in the snapshot: a new master begins anew.
class Vitals {
 public:
  // Whether enough of the last samples, this one included, were above the limit.
  bool above(Measure measure, const Limit& limit, std::uint64_t value);
  // Percent of one CPU over the last `window`; none until it has been watched for so long.
  std::optional<std::uint64_t> cpu_percent(Duration used, Duration window, Instant now);

  std::optional<Instant> probe_at;       // when the next probe is due
  std::optional<Instant> probe_sent_at;  // it is under way
  std::uint32_t probe_failures = 0;      // in a row
  std::vector<std::string> ended_early;  // requests whose end was heard before their beginning

 private:
  struct CpuPoint {
    Instant at;
    Duration used{};
  };
  std::array<std::uint32_t, kMeasures> history_{};  // a bit a sample, the last one the lowest
  std::vector<CpuPoint> cpu_;
};

// A part of `whole` between 0 and `percent` percent that follows from the worker alone, so that not
// all workers reach their age at once.
[[nodiscard]] std::uint64_t jitter_of(Epoch epoch, std::uint64_t whole, std::uint32_t percent);

// "312.4M", "87%", "1024": a value of a measure as people write it.
[[nodiscard]] std::string measure_text(Measure measure, std::uint64_t value);

}  // namespace einhorn::pool
