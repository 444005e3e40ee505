#include "master/option_health.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <limits>
#include <string_view>

#include "base/limits.h"
#include "base/numbers.h"
#include "base/signals.h"
#include "master/option_values.h"
#include "master/probe_target.h"
#include "os/kernel.h"

namespace einhorn::master {
namespace {

constexpr std::int64_t kMostRequests = 1'000'000'000'000;
constexpr std::int64_t kMostPercent = 100;
constexpr std::int64_t kMostCpu = 100'000;  // percent of one CPU
constexpr std::int64_t kMostSamples = 32;   // that a limit can look back
constexpr double kLeastInterval = 0.1;

pool::HealthRules& rules(Options& options) { return options.config.health; }

// "300M", "1.5G", "4096": a number of bytes.
Result<std::uint64_t> parse_size(const std::string& value) {
  constexpr std::string_view kUnits = "KMGT";
  constexpr double kStep = 1024;
  constexpr double kMostBytes = 1e15;
  std::string_view digits = value;
  double factor = 1;
  if (digits.ends_with('B') || digits.ends_with('b')) {
    digits.remove_suffix(1);
  }
  if (digits.ends_with('i')) {
    digits.remove_suffix(1);
  }
  if (!digits.empty()) {
    const char last = digits.back();
    const std::size_t unit = kUnits.find(last >= 'a' ? static_cast<char>(last - 'a' + 'A') : last);
    if (unit != std::string_view::npos) {
      for (std::size_t i = 0; i <= unit; ++i) {
        factor *= kStep;
      }
      digits.remove_suffix(1);
    }
  }
  const std::optional<double> number = whole_number<double>(digits);
  if (!number || !std::isfinite(*number)) {
    return wrong(value, "is no size (allowed: a number of bytes, or with K, M, G or T behind it)");
  }
  const double bytes = *number * factor;
  if (bytes < 1 || bytes > kMostBytes) {
    return wrong(value, "is out of range (allowed: 1 byte to 900T)");
  }
  return static_cast<std::uint64_t>(bytes);
}

Result<std::uint64_t> parse_number(const std::string& value, std::int64_t most) {
  Result<std::int64_t> number = parse_integer(value, 1, most);
  if (!number) {
    return std::move(number).error();
  }
  return static_cast<std::uint64_t>(*number);
}

Result<std::uint64_t> parse_quantity(pool::Measure measure, const std::string& value) {
  switch (measure) {
    case pool::Measure::kMemory:
    case pool::Measure::kPss:
      return parse_size(value);
    case pool::Measure::kCpu:
      return parse_number(value.ends_with('%') ? value.substr(0, value.size() - 1) : value,
                          kMostCpu);
    case pool::Measure::kDescriptors:
    case pool::Measure::kThreads:
      return parse_number(value, kMostCount);
  }
  return wrong(value, "is no quantity");
}

// K/N
Status parse_times(pool::Limit& limit, const std::string& value) {
  const std::size_t slash = value.find('/');
  const auto wrong_times = [&value] {
    return wrong(value, "is no K/N (allowed: K of the last N samples, 1/1 to 32/32)");
  };
  if (slash == std::string::npos) {
    return wrong_times();
  }
  Result<std::int64_t> samples = parse_integer(value.substr(slash + 1), 1, kMostSamples);
  Result<std::int64_t> times =
      parse_integer(value.substr(0, slash), 1, samples ? *samples : kMostSamples);
  if (!samples || !times) {
    return wrong_times();
  }
  limit.times = static_cast<std::uint32_t>(*times);
  limit.samples = static_cast<std::uint32_t>(*samples);
  return Ok{};
}

Status apply_part(Options& options, pool::Measure measure, pool::Limit& limit,
                  const std::string& part) {
  const std::size_t equals = part.find('=');
  const std::string key = part.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
  if (key == "times") {
    return parse_times(limit, value);
  }
  if (key == "hard") {
    return assign(parse_quantity(measure, value), limit.hard);
  }
  if (key == "over" && measure == pool::Measure::kCpu) {
    return assign(parse_seconds(value, Zero::kRefused), rules(options).cpu_window);
  }
  return wrong(part, std::string("is nothing a limit has (allowed: hard=..., times=K/N") +
                         (measure == pool::Measure::kCpu ? ", over=SECONDS)" : ")"));
}

// QUANTITY[,hard=QUANTITY][,times=K/N]; the quantity may be missing if there is a hard one.
Status apply_limit(Options& options, pool::Measure measure, const std::string& value) {
  pool::Limit limit;
  std::size_t begin = 0;
  for (bool first = true; begin <= value.size(); first = false) {
    const std::size_t end = std::min(value.find(',', begin), value.size());
    const std::string part = value.substr(begin, end - begin);
    begin = end + 1;
    const bool quantity = first && part.find('=') == std::string::npos;
    if (Status set = quantity ? assign(parse_quantity(measure, part), limit.soft)
                              : apply_part(options, measure, limit, part);
        !set) {
      return set;
    }
  }
  if (!limit.set()) {
    return wrong(value, "sets no limit");
  }
  if (limit.soft && limit.hard && *limit.hard <= *limit.soft) {
    return wrong(value, "has a hard limit that is not above the other one");
  }
  rules(options).of(measure) = limit;
  return Ok{};
}

struct Resource {
  std::string_view name;
  int number;
  bool bytes;
};
constexpr std::array kResources = {
    Resource{"as", RLIMIT_AS, true},
    Resource{"core", RLIMIT_CORE, true},
    Resource{"cpu", RLIMIT_CPU, false},
    Resource{"data", RLIMIT_DATA, true},
    Resource{"fsize", RLIMIT_FSIZE, true},
    Resource{"locks", RLIMIT_LOCKS, false},
    Resource{"memlock", RLIMIT_MEMLOCK, true},
    Resource{"msgqueue", RLIMIT_MSGQUEUE, true},
    Resource{"nice", RLIMIT_NICE, false},
    Resource{"nofile", RLIMIT_NOFILE, false},
    Resource{"nproc", RLIMIT_NPROC, false},
    Resource{"rss", RLIMIT_RSS, true},
    Resource{"rtprio", RLIMIT_RTPRIO, false},
    Resource{"rttime", RLIMIT_RTTIME, false},
    Resource{"sigpending", RLIMIT_SIGPENDING, false},
    Resource{"stack", RLIMIT_STACK, true},
};

Result<std::uint64_t> parse_resource_value(const Resource& resource, const std::string& value) {
  if (value == "unlimited" || value == "infinity") {
    return os::ResourceLimit::kNoLimit;
  }
  if (value == "0") {
    return std::uint64_t{0};
  }
  return resource.bytes ? parse_size(value) : parse_number(value, kMostRequests);
}

}  // namespace

Status apply_ping_timeout(Options& options, const std::string& value) {
  return assign(parse_seconds(value, Zero::kRefused), rules(options).ping_timeout);
}

Status apply_request_timeout(Options& options, const std::string& value) {
  return assign(parse_seconds(value, Zero::kRefused), rules(options).request_timeout);
}

Status apply_dump_signal(Options& options, const std::string& value) {
  const std::optional<int> signal = parse_signal(value);
  if (!signal || *signal == SIGKILL || *signal == SIGSTOP) {
    return wrong(value,
                 "is no signal that a program can handle (allowed: a name such as QUIT, "
                 "ABRT or USR1)");
  }
  rules(options).dump_signal = *signal;
  return Ok{};
}

Status apply_max_memory(Options& options, const std::string& value) {
  return apply_limit(options, pool::Measure::kMemory, value);
}

Status apply_max_pss(Options& options, const std::string& value) {
  return apply_limit(options, pool::Measure::kPss, value);
}

Status apply_max_cpu(Options& options, const std::string& value) {
  return apply_limit(options, pool::Measure::kCpu, value);
}

Status apply_max_descriptors(Options& options, const std::string& value) {
  return apply_limit(options, pool::Measure::kDescriptors, value);
}

Status apply_max_threads(Options& options, const std::string& value) {
  return apply_limit(options, pool::Measure::kThreads, value);
}

Status apply_max_age(Options& options, const std::string& value) {
  return assign(parse_seconds(value, Zero::kRefused), rules(options).max_age);
}

Status apply_max_requests(Options& options, const std::string& value) {
  return assign(parse_number(value, kMostRequests), rules(options).max_requests);
}

Status apply_recycle_jitter(Options& options, const std::string& value) {
  return assign(parse_integer(value, 0, kMostPercent), rules(options).jitter_percent);
}

Status apply_max_recycling(Options& options, const std::string& value) {
  return assign(parse_integer(value, 1, limits::kMaxWorkers), rules(options).max_recycling);
}

Status apply_sample_interval(Options& options, const std::string& value) {
  Result<Duration> interval = parse_seconds(value, Zero::kRefused);
  if (interval && *interval < from_seconds(kLeastInterval)) {
    return wrong(value, "is too often (allowed: 0.1 seconds or more)");
  }
  return assign(std::move(interval), rules(options).sample_interval);
}

// N/SECONDS
Status apply_flapping(Options& options, const std::string& value) {
  constexpr std::int64_t kMostDeaths = 100;
  const std::size_t slash = value.find('/');
  Result<std::int64_t> times = parse_integer(value.substr(0, slash), 2, kMostDeaths);
  Result<Duration> within =
      parse_seconds(slash == std::string::npos ? "" : value.substr(slash + 1), Zero::kRefused);
  if (!times || !within) {
    return wrong(value,
                 "is no N/SECONDS (allowed: 2 to 100 deaths within more than 0 seconds, as "
                 "5/300)");
  }
  rules(options).flapping.times = static_cast<std::uint32_t>(*times);
  rules(options).flapping.within = *within;
  return Ok{};
}

Status apply_flapping_pause(Options& options, const std::string& value) {
  return assign(parse_seconds(value, Zero::kRefused), rules(options).flapping.pause);
}

Status apply_flapping_retries(Options& options, const std::string& value) {
  return assign(parse_integer(value, 0, kMostCount), rules(options).flapping.retries);
}

// NAME=SOFT[:HARD]
Status apply_rlimit(Options& options, const std::string& value) {
  const std::size_t equals = value.find('=');
  const std::string name = value.substr(0, equals);
  const auto resource = std::ranges::find(kResources, name, &Resource::name);
  if (equals == std::string::npos || resource == kResources.end()) {
    std::string names;
    for (const Resource& one : kResources) {
      names += (names.empty() ? "" : ", ") + std::string(one.name);
    }
    return wrong(value, "is no NAME=SOFT[:HARD] (allowed names: " + names + ")");
  }
  const std::string rest = value.substr(equals + 1);
  const std::size_t colon = rest.find(':');
  Result<std::uint64_t> soft = parse_resource_value(*resource, rest.substr(0, colon));
  if (!soft) {
    return std::move(soft).error();
  }
  Result<std::uint64_t> hard =
      colon == std::string::npos ? soft : parse_resource_value(*resource, rest.substr(colon + 1));
  if (!hard) {
    return std::move(hard).error();
  }
  if (*hard < *soft) {
    return wrong(value, "has a hard limit that is below the soft one");
  }
  auto& all = options.settings.resource_limits;
  std::erase_if(all, [&](const auto& one) { return one.resource == resource->number; });
  all.push_back({resource->number, *soft, *hard});
  return Ok{};
}

Status apply_probe_interval(Options& options, const std::string& value) {
  Result<Duration> interval = parse_seconds(value, Zero::kRefused);
  if (interval && *interval < from_seconds(kLeastInterval)) {
    return wrong(value, "is too often (allowed: 0.1 seconds or more)");
  }
  return assign(std::move(interval), rules(options).probe.interval);
}

Status apply_probe_timeout(Options& options, const std::string& value) {
  constexpr double kMostTimeout = 3600;
  Result<Duration> timeout = parse_seconds(value, Zero::kRefused);
  if (timeout &&
      (*timeout < std::chrono::milliseconds{1} || *timeout > from_seconds(kMostTimeout))) {
    return wrong(value, "is out of range (allowed: 0.001 to 3600 seconds)");
  }
  return assign(std::move(timeout), rules(options).probe.timeout);
}

Status apply_probe_failures(Options& options, const std::string& value) {
  return assign(parse_integer(value, 1, kMostCount), rules(options).probe.failures);
}

Status apply_probe_fd(Options& options, const std::string& value) {
  Status status =
      assign(parse_integer(value, 0, std::numeric_limits<std::int32_t>::max()), options.state_fd);
  if (status) {
    options.mode = Options::Mode::kProbe;
  }
  return status;
}

Status complete_health(Options& options) {
  const wire::Settings& settings = options.settings;
  Result<ProbeTarget> target =
      parse_probe(settings.probe, settings.probe_address, settings.probe_command);
  if (!target) {
    return std::move(target).error();
  }
  rules(options).probe.on = target->kind != ProbeTarget::Kind::kNone;
  return Ok{};
}

}  // namespace einhorn::master
