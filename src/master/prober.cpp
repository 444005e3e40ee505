#include "master/prober.h"

#include <algorithm>

#include "base/limits.h"
#include "base/numbers.h"

namespace einhorn::master {
namespace {

constexpr int kMaxMessagesPerTurn = 256;
constexpr Duration kBetweenStarts = std::chrono::seconds{1};

std::string_view line_of(std::string_view text, std::string_view key) {
  const std::size_t at = text.starts_with(key) ? 0 : text.find("\n" + std::string(key));
  if (at == std::string_view::npos) {
    return "";
  }
  text.remove_prefix(at + (at == 0 ? 0 : 1) + key.size());
  return text.substr(0, text.find('\n'));
}

// One number for a worker, there and back.
constexpr unsigned kSlotBits = 20;
static_assert(limits::kMaxWorkers < (1U << kSlotBits));
std::uint64_t id_of(WorkerId worker) {
  return (worker.epoch.value << kSlotBits) | worker.slot.value;
}
WorkerId worker_of(std::uint64_t id) {
  return {Slot{static_cast<std::uint32_t>(id & ((1U << kSlotBits) - 1))}, Epoch{id >> kSlotBits}};
}

}  // namespace

Prober::Prober(os::Kernel& kernel, Log& log, const wire::Settings& settings, Hooks hooks)
    : kernel_(kernel), log_(log), settings_(settings), hooks_(std::move(hooks)) {
  if (Result<ProbeTarget> target =
          parse_probe(settings.probe, settings.probe_address, settings.probe_command)) {
    target_ = std::move(*target);
  }
}

Prober::~Prober() { stop(); }

void Prober::stop() {
  if (control_ >= 0) {
    kernel_.unwatch(control_);
    kernel_.close(std::exchange(control_, -1));
  }
}

bool Prober::start(int keep_below, Instant now) {
  if (started_at_ && now < *started_at_ + kBetweenStarts) {
    return false;
  }
  started_at_ = now;
  Result<std::pair<int, int>> pair = kernel_.socket_pair();
  Result<int> theirs =
      pair ? kernel_.raise(pair->second, std::max(settings_.control + 1, keep_below))
           : Result<int>(pair.error());
  Result<os::Spawned> spawned = Result<os::Spawned>(os::Spawned{});
  if (theirs) {
    os::SpawnSpec spec;
    // The very program that we are, whatever its file is by now.
    spec.program = "/proc/self/exe";
    spec.arguments = {settings_.script, "--probe-fd", std::to_string(settings_.control), "--"};
    spec.arguments.insert(spec.arguments.end(), settings_.original_command.begin(),
                          settings_.original_command.end());
    spec.environment = settings_.start_environment;
    spec.descriptors = {{*theirs, settings_.control}};
    spec.keep_below = *theirs + 1;
    spec.sibling = hooks_.has_guard();
    spawned = kernel_.spawn(spec);
    kernel_.close(*theirs);
  }
  if (spawned && spawned->pid != 0) {
    hooks_.started(spawned->pid);
    if (spawned->pidfd >= 0) {
      kernel_.close(spawned->pidfd);
    }
  }
  if (!theirs || !spawned || spawned->failed) {
    const Error error = !theirs ? theirs.error() : !spawned ? spawned.error() : *spawned->failed;
    log_.error("probe_failed", "Can't start the prober: " + error.message());
    if (pair) {
      kernel_.close(pair->first);
    }
    return false;
  }
  control_ = pair->first;
  static_cast<void>(kernel_.watch(control_, kToken, {true, false}).has_value());
  return true;
}

void Prober::probe(WorkerId worker, Pid pid, Duration timeout, int keep_below, Instant now) {
  if (pid == 0 || (control_ < 0 && !start(keep_below, now))) {
    return;
  }
  const auto fill = [&](const std::string& pattern) {
    return fill_pattern(pattern, worker.slot, pid);
  };
  const char* const kind = target_.kind == ProbeTarget::Kind::kHttp  ? "http"
                           : target_.kind == ProbeTarget::Kind::kTcp ? "tcp"
                                                                     : "command";
  const std::string text =
      "PROBE=" + std::to_string(id_of(worker)) + "\nkind=" + kind +
      "\ntimeout_ms=" + std::to_string(timeout / std::chrono::milliseconds{1}) +
      "\naddress=" + fill(target_.address) + "\npath=" + fill(target_.path) +
      "\ncommand=" + fill(target_.command) + "\npid=" + std::to_string(pid) +
      "\nindex=" + std::to_string(worker.slot.value);
  // Without room for it the pool begins again.
  if (kernel_.send(control_, text, {}).kind == os::Transfer::Kind::kClosed) {
    stop();
  }
}

void Prober::on_ready() {
  for (int i = 0; i < kMaxMessagesPerTurn && control_ >= 0; ++i) {
    const os::Message message = kernel_.receive(control_);
    if (message.kind == os::Transfer::Kind::kWouldBlock) {
      return;
    }
    for (const int fd : message.fds) {
      kernel_.close(fd);
    }
    if (message.kind == os::Transfer::Kind::kClosed) {
      log_.error("prober_gone", "The prober is gone; another one is started with the next probe");
      stop();
      return;
    }
    std::string_view id = line_of(message.text, "PROBED=");
    if (const auto number = take_number<std::uint64_t>(id)) {
      hooks_.answered(worker_of(*number), line_of(message.text, "well=") == "1",
                      std::string(line_of(message.text, "detail=")));
    }
  }
}

}  // namespace einhorn::master
