#include "pool/scaling.h"

#include <algorithm>

namespace einhorn::pool {
namespace {

// A queue for a moment, at one sample in so many, is none.
constexpr std::uint32_t kStraySamples = 10;
// So many times a hold without a mistake, and it gets shorter.
constexpr int kTrust = 4;

std::string in_seconds(Duration duration) {
  const std::int64_t rounded =
      (duration + std::chrono::milliseconds{50}) / std::chrono::milliseconds{100};
  return std::to_string(rounded / 10) +
         (rounded % 10 != 0 ? "." + std::to_string(rounded % 10) : "") + " s";
}

std::string connections(std::uint64_t count) {
  return count == 1 ? "1 connection has" : std::to_string(count) + " connections have";
}

}  // namespace

void Scaling::forget_quiet(Instant now) {
  quiet_since_ = now;
  samples_ = 0;
  queued_samples_ = 0;
  most_cores_.reset();
}

std::optional<Scaling::Decision> Scaling::decide(const Config& config, const Seen& seen,
                                                 Instant now) {
  if (config.workers_max == 0) {
    return std::nullopt;
  }
  // Somebody may have given us a new range.
  if (seen.number < config.workers_min || seen.number > config.workers_max) {
    const std::uint32_t number = std::clamp(seen.number, config.workers_min, config.workers_max);
    forget_quiet(now);
    return Decision{number, "the number lay outside of --workers"};
  }
  const std::uint64_t enough = std::max<std::uint64_t>(1, (seen.number + 1) / 2);
  if (seen.queued >= enough) {
    forget_quiet(now);
    return up(config, seen, now);
  }
  queue_since_.reset();
  return down(config, seen, now);
}

std::optional<Scaling::Decision> Scaling::up(const Config& config, const Seen& seen, Instant now) {
  if (!queue_since_) {
    queue_since_ = now;
  }
  if (seen.starting > 0) {
    queue_since_ = now;  // help is under way: only what is left then counts
    return std::nullopt;
  }
  if (now - *queue_since_ < config.scale_up_after || seen.number >= config.workers_max) {
    return std::nullopt;
  }
  const bool many = seen.queued >= seen.number;
  const std::uint32_t more = many ? std::max<std::uint32_t>(1, seen.number / 2) : 1;
  Decision decision;
  decision.number = std::min(config.workers_max, seen.number + more);
  decision.reason =
      connections(seen.queued) + " to wait, for " + in_seconds(now - *queue_since_) + " now";
  const Duration hold = hold_.value_or(config.scale_down_after);
  if (removed_at_ && now - *removed_at_ < 2 * hold) {
    hold_ = std::min(2 * hold, std::max<Duration>(kLongestHold, config.scale_down_after));
    removed_at_.reset();
    mistake_at_ = now;
  }
  queue_since_ = now;
  return decision;
}

std::optional<Scaling::Decision> Scaling::down(const Config& config, const Seen& seen,
                                               Instant now) {
  if (!quiet_since_ || seen.upgrading || seen.starting > 0 || seen.number <= config.workers_min) {
    forget_quiet(now);
    return std::nullopt;
  }
  ++samples_;
  queued_samples_ += seen.queued > 0 ? 1 : 0;
  if (seen.cores) {
    most_cores_ = std::max(most_cores_.value_or(0), *seen.cores);
  }
  const Duration hold = hold_.value_or(config.scale_down_after);
  const Duration quiet = now - *quiet_since_;
  if (quiet < hold) {
    return std::nullopt;
  }
  const bool few = queued_samples_ * kStraySamples <= samples_;
  const bool idle = !most_cores_ || *most_cores_ < kBusy * (seen.number - 1);
  forget_quiet(now);
  if (!few || !idle) {
    return std::nullopt;
  }
  if (hold_ && mistake_at_ && now - *mistake_at_ >= kTrust * hold) {
    mistake_at_ = now;
    hold_ = *hold_ / 2;
    if (*hold_ <= config.scale_down_after) {
      hold_.reset();
    }
  }
  removed_at_ = now;
  return Decision{seen.number - 1, "nothing has had to wait for " + in_seconds(quiet)};
}

}  // namespace einhorn::pool
