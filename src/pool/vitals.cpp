// What was measured of one worker, and how it reads. No decisions: those are in health.cpp.
#include <algorithm>
#include <bit>
#include <cstdio>

#include "pool/health.h"

namespace einhorn::pool {
namespace {

constexpr std::size_t kCpuPoints = 8;  // that a window is cut into
constexpr int kPercent = 100;

// So that workers that are born one after the other differ much (the finish of splitmix64).
std::uint64_t scatter(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31U);
}

}  // namespace

std::string_view name(Ailment ailment) {
  switch (ailment) {
    case Ailment::kNone:
      return "";
    case Ailment::kSilent:
      return "silent";
    case Ailment::kSlow:
      return "slow";
    case Ailment::kProbe:
      return "probe";
    case Ailment::kTrigger:
      return "trigger";
    case Ailment::kMemory:
      return "memory";
    case Ailment::kPss:
      return "pss";
    case Ailment::kCpu:
      return "cpu";
    case Ailment::kDescriptors:
      return "descriptors";
    case Ailment::kThreads:
      return "threads";
    case Ailment::kAge:
      return "age";
    case Ailment::kRequests:
      return "requests";
    case Ailment::kAsked:
      return "asked";
  }
  return "";
}

Ailment ailment_of(Measure measure) {
  switch (measure) {
    case Measure::kMemory:
      return Ailment::kMemory;
    case Measure::kPss:
      return Ailment::kPss;
    case Measure::kCpu:
      return Ailment::kCpu;
    case Measure::kDescriptors:
      return Ailment::kDescriptors;
    case Measure::kThreads:
      return Ailment::kThreads;
  }
  return Ailment::kNone;
}

bool HealthRules::measures() const {
  return std::ranges::any_of(limits, [](const Limit& limit) { return limit.set(); });
}

bool HealthRules::watches() const {
  return ping_timeout || request_timeout || measures() || max_age || max_requests || probe.on ||
         flapping.times > 0;
}

bool Vitals::above(Measure measure, const Limit& limit, std::uint64_t value) {
  constexpr std::uint32_t kMost = 32;
  const auto index = static_cast<std::size_t>(measure);
  const std::uint32_t samples = std::clamp<std::uint32_t>(limit.samples, 1, kMost);
  history_.at(index) = (history_.at(index) << 1U) | (value > limit.soft.value_or(value) ? 1U : 0U);
  const std::uint32_t last =
      samples == kMost ? history_.at(index) : history_.at(index) & ((1U << samples) - 1U);
  return static_cast<std::uint32_t>(std::popcount(last)) >= std::max<std::uint32_t>(limit.times, 1);
}

// A few points over the window are kept; the oldest one is as far back as the window or a little
// more.
std::optional<std::uint64_t> Vitals::cpu_percent(Duration used, Duration window, Instant now) {
  const Duration step = window / static_cast<std::int64_t>(kCpuPoints);
  if (cpu_.empty() || now - cpu_.back().at >= step) {
    cpu_.push_back({now, used});
  }
  while (cpu_.size() > 1 && now - cpu_[1].at >= window) {
    cpu_.erase(cpu_.begin());
  }
  const Duration watched = now - cpu_.front().at;
  if (watched < window || watched <= Duration::zero()) {
    return std::nullopt;
  }
  const Duration spent = std::max(used - cpu_.front().used, Duration::zero());
  return static_cast<std::uint64_t>((spent * kPercent + watched / 2) / watched);
}

std::uint64_t jitter_of(Epoch epoch, std::uint64_t whole, std::uint32_t percent) {
  constexpr std::uint64_t kSteps = 1000;
  const std::uint64_t part = scatter(epoch.value) % (kSteps + 1);
  const double most = static_cast<double>(whole) * percent / double{kPercent};
  return static_cast<std::uint64_t>(most * static_cast<double>(part) / double{kSteps});
}

std::string measure_text(Measure measure, std::uint64_t value) {
  switch (measure) {
    case Measure::kMemory:
    case Measure::kPss: {
      constexpr double kMegabyte = 1024.0 * 1024.0;
      std::array<char, 32> buffer{};
      std::snprintf(buffer.data(), buffer.size(), "%.1fM", static_cast<double>(value) / kMegabyte);
      return buffer.data();
    }
    case Measure::kCpu:
      return std::to_string(value) + "%";
    case Measure::kDescriptors:
    case Measure::kThreads:
      return std::to_string(value);
  }
  return "";
}

}  // namespace einhorn::pool
