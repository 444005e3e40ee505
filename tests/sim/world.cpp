#include "sim/world.h"

#include <algorithm>
#include <csignal>

#include "base/check.h"

namespace einhorn::sim {

World::World(std::uint64_t seed, std::FILE* out) : random(seed), trace(out) {
  plan = make_plan(random);
  // Not drawn, so that other lives stay what they are.
  plan.preload = seed % 3 == 0 && seed > 1000;
  if (plan.preload && seed % 4 == 0) {
    plan.hooks |= 1U;  // what is asked of a zygote comes in another order then
    plan.config.hook_before_start = true;
  }
  plan.intercept = seed % 7 == 5 && seed > 1000 && !plan.preload;
  if (plan.intercept) {
    plan.config.ack_mode = pool::AckMode::kListen;
  }
  if ((seed % 11 == 3 || seed % 11 == 4) && seed > 10'000) {
    add_probes(plan, seed);
  }
}

void World::at(Instant when, std::function<void()> what) {
  events_.push({std::max(when, now_), next_order_++,
                std::make_shared<std::function<void()>>(std::move(what))});
}

void World::advance_to(Instant when) { now_ = std::max(now_, when); }

void World::run_event() {
  const Event event = events_.top();
  events_.pop();
  advance_to(event.at);
  (*event.what)();
}

void World::fail(std::string invariant, std::string what) {
  note("VIOLATION", invariant + ": " + what);
  throw Violation{std::move(invariant), std::move(what)};
}

void World::report(std::string_view invariant, const std::string& what) {
  note("VIOLATION", std::string(invariant) + ": " + what);
  if (!reported_) {
    reported_ = Violation{std::string(invariant), what};
  }
}

void World::fail_if_reported() {
  if (reported_) {
    throw Violation(*reported_);
  }
}

ProcessPtr World::start_process(ProcessKind kind, Pid parent) {
  do {
    last_given_ = last_given_ >= plan.last_pid ? 100 : last_given_ + 1;
  } while (processes_.contains(last_given_));
  auto process = std::make_shared<Process>();
  process->pid = last_given_;
  process->parent = parent;
  process->group = last_given_;
  process->kind = kind;
  process->born_at = now_;
  processes_[process->pid] = process;
  return process;
}

ProcessPtr World::find(Pid pid) const {
  const auto found = processes_.find(pid);
  return found == processes_.end() ? nullptr : found->second;
}

// Only guards are subreapers.
Pid World::heir_of(const ProcessPtr& process) const {
  for (ProcessPtr above = find(process->parent); above != nullptr; above = find(above->parent)) {
    if (above->kind == ProcessKind::kGuard && !above->dead) {
      return above->pid;
    }
  }
  return 1;
}

void World::end(const ProcessPtr& process, os::Ended how) {
  if (process->dead) {
    return;
  }
  process->dead = true;
  process->ended = how;
  process->died_at = now_;
  const Pid heir = heir_of(process);
  std::vector<ProcessPtr> children;
  for (const auto& [pid, child] : processes_) {
    if (child->parent == process->pid) {
      children.push_back(child);
    }
  }
  for (const ProcessPtr& child : children) {
    child->parent = heir;
    if (child->dead) {
      heir == 1 ? reap(child) : on_child_ended(child);
    }
  }
  on_ended(process);
  const ProcessPtr parent = find(process->parent);
  if (parent == nullptr || parent->dead ||
      (parent->kind != ProcessKind::kGuard && parent->kind != ProcessKind::kMaster)) {
    reap(process);
  } else if (parent->pid == guard_pid()) {
    on_child_ended(process);
  }
}

void World::reap(const ProcessPtr& process) {
  expect(process->dead, "reaped-once", "a living process was reaped");
  expect(!process->reaped && find(process->pid) == process, "reaped-once",
         "process " + std::to_string(process->pid) + " was reaped twice");
  process->reaped = true;
  processes_.erase(process->pid);
}

void World::deliver(const ProcessPtr& to, int signal, bool group) {
  std::vector<ProcessPtr> targets;
  if (group) {
    for (const auto& [pid, process] : processes_) {
      if (process->group == to->group) {
        targets.push_back(process);
      }
    }
  } else {
    targets.push_back(to);
  }
  for (const ProcessPtr& target : targets) {
    if (target->dead || signal == 0) {
      continue;
    }
    if (signal == SIGKILL) {
      end(target, {2, SIGKILL});
    } else {
      on_signal(target, signal);
    }
  }
}

}  // namespace einhorn::sim
