#include "agent/health.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

namespace einhorn::agent {
namespace {

// A master that is being restarted or handed on is away for less; its workers serve on.
constexpr Duration kForgiven = std::chrono::seconds{5};

std::uint64_t percent_of(const PoolModel& pool) {
  return pool.number() == 0 ? 0 : std::min<std::uint64_t>(100, pool.ready() * 100 / pool.number());
}

struct Verdict {
  bool well = false;
  bool draining = false;
  std::uint64_t percent = 0;
  std::string text;
};

Verdict judge(const Feed& feed, const HealthRule& rule, Instant now) {
  const PoolModel& pool = feed.model();
  Verdict verdict;
  verdict.text = pool.name() + ": ";
  if (!pool.known() || feed.away(now) > kForgiven) {
    verdict.text += "down, " + (pool.error().empty() ? "no state yet" : pool.error());
    return verdict;
  }
  verdict.percent = percent_of(pool);
  verdict.draining = pool.stopping();
  verdict.well = !verdict.draining && verdict.percent >= rule.least_percent && pool.ready() > 0;
  verdict.text += verdict.draining ? "draining" : verdict.well ? "up" : "down";
  verdict.text += ", " + std::to_string(pool.ready()) + " of " + std::to_string(pool.number()) +
                  " workers are ready (" + std::to_string(verdict.percent) + "%, at least " +
                  std::to_string(rule.least_percent) + "% are needed)";
  return verdict;
}

}  // namespace

Health health_of(const Fleet& fleet, const std::string& pool, const HealthRule& rule, bool draining,
                 Instant now) {
  Health health;
  health.well = true;
  bool any = false;
  for (const auto& [name, feed] : fleet.feeds()) {
    if (!pool.empty() && name != pool) {
      continue;
    }
    any = true;
    const Verdict verdict = judge(*feed, rule, now);
    health.well = health.well && verdict.well;
    health.draining = health.draining || verdict.draining;
    health.text += verdict.text + "\n";
  }
  if (!any) {
    health.text = pool.empty() ? "there is no pool\n" : "there is no pool " + pool + "\n";
    health.well = false;
  }
  if (draining) {
    health.draining = true;
    health.well = false;
    health.text = "draining: the agent was told to leave\n" + health.text;
  }
  return health;
}

std::string agent_check_answer(const Fleet& fleet, const std::string& pool, const HealthRule& rule,
                               bool draining, Instant now) {
  if (draining) {
    return "drain\n";
  }
  bool well = true;
  bool leaving = false;
  std::uint64_t percent = 100;
  bool any = false;
  for (const auto& [name, feed] : fleet.feeds()) {
    if (!pool.empty() && name != pool) {
      continue;
    }
    any = true;
    const Verdict verdict = judge(*feed, rule, now);
    well = well && verdict.well;
    leaving = leaving || verdict.draining;
    percent = std::min(percent, verdict.percent);
  }
  if (leaving) {
    return "drain\n";
  }
  return any && well ? "up " + std::to_string(percent) + "%\n" : "down\n";
}

AgentCheck::AgentCheck(Loop& loop, os::UniqueFd listener, std::function<std::string()> answer)
    : loop_(loop), listener_(std::move(listener)) {
  loop_.watch(listener_.get(), true, false, [this, answer = std::move(answer)](Loop::Ready) {
    for (;;) {
      const os::UniqueFd fd(
          ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd) {
        return;
      }
      // A line fits into any socket's buffer; what HAProxy may have sent (agent-send) is read, so
      // that closing does not reset the connection.
      const std::string line = answer();
      char ignored[256];
      static_cast<void>(::recv(fd.get(), ignored, sizeof ignored, 0));
      static_cast<void>(::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL));
      ::shutdown(fd.get(), SHUT_WR);
    }
  });
}

AgentCheck::~AgentCheck() { loop_.forget(listener_.get()); }

}  // namespace einhorn::agent
