// Looking at workers on behalf of the pool: samples, and the stacks of those that hang.
#include <algorithm>
#include <csignal>

#include "master/master.h"

namespace einhorn::master {
namespace {

os::Wanted wanted_by(const pool::HealthRules& rules) {
  return {.resident = rules.of(pool::Measure::kMemory).set(),
          .proportional = rules.of(pool::Measure::kPss).set(),
          .cpu = rules.of(pool::Measure::kCpu).set(),
          .descriptors = rules.of(pool::Measure::kDescriptors).set(),
          .threads = rules.of(pool::Measure::kThreads).set()};
}

}  // namespace

void Master::start_health() {
  examiner_ = std::make_unique<Examiner>(
      kernel_, *log_, settings_,
      Examiner::Hooks{[this](WorkerId worker) { apply(pool::event::Examined{worker}); },
                      [this](Pid pid) { roster_->expect_ghost(pid); },
                      [this](WorkerId worker, int signal) {
                        const Roster::Process* process = roster_->find(worker);
                        return process != nullptr &&
                               kernel_.signal(process->pidfd, process->pid, signal, false);
                      },
                      [this] { return guard_.socket() >= 0; },
                      [this](WorkerId worker, Pid pid, const std::vector<std::string>& lines) {
                        events_out_->add("stack", [&](wire::EventFields& fields) {
                          fields.field("slot", worker.slot.value);
                          fields.field("epoch", worker.epoch.value).field("pid", pid);
                          fields.list("lines", lines);
                        });
                      }});
  const pool::HealthRules& rules = pool_->config().health;
  if (rules.probe.on) {
    prober_ = std::make_unique<Prober>(
        kernel_, *log_, settings_,
        Prober::Hooks{[this](WorkerId worker, bool well, std::string detail) {
                        apply(pool::event::Probed{worker, well, std::move(detail)});
                      },
                      [this](Pid pid) { roster_->expect_ghost(pid); },
                      [this] { return guard_.socket() >= 0; }});
  }
  if (rules.ping_timeout || rules.request_timeout || rules.probe.on) {
    examiner_->find_tool(rules.dump_signal != 0);
  }
}

void Master::examine(WorkerId worker) {
  examiner_->examine(worker, pid_of_(worker), pool_->config().health.dump_signal, keep_below_,
                     now_);
}

void Master::take_probe(WorkerId worker) {
  if (prober_) {
    prober_->probe(worker, pid_of_(worker), pool_->config().health.probe.timeout, keep_below_,
                   now_);
  }
}

void Master::take_samples(const pool::TakeSamples& action) {
  const os::Wanted wanted = wanted_by(pool_->config().health);
  pool::event::Sampled outcome;
  for (const WorkerId worker : action.workers) {
    const Pid pid = pid_of_(worker);
    const auto measured = pid != 0 ? kernel_.measure(pid, wanted) : std::nullopt;
    if (!measured) {
      continue;  // it is dead, which is heard of another way
    }
    if (wanted.proportional && !measured->proportional_bytes) {
      warn_unreadable(pool::Measure::kPss, pid);
    }
    if (wanted.descriptors && !measured->descriptors) {
      warn_unreadable(pool::Measure::kDescriptors, pid);
    }
    outcome.samples.push_back({worker, measured->resident_bytes, measured->proportional_bytes,
                               measured->cpu, measured->descriptors, measured->threads});
  }
  if (!outcome.samples.empty()) {
    events_.emplace_back(std::move(outcome));
  }
}

// Once: what can't be read of one worker can't be read of most.
void Master::warn_unreadable(pool::Measure measure, Pid pid) {
  if (unreadable_.insert(measure).second) {
    log_->error("not_measured",
                "Can't read the " + std::string(pool::name(pool::ailment_of(measure))) +
                    " of worker " + std::to_string(pid) +
                    ", so this limit does not hold for it (another user's process?)");
  }
}

}  // namespace einhorn::master
