#include "master/examiner.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>

#include "base/health_limits.h"
#include "base/signals.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

constexpr Duration kStackWithin = std::chrono::seconds{2};
constexpr Duration kDumpWithin = std::chrono::milliseconds{400};
constexpr std::uint64_t kMostOutput = 256 * 1024;
constexpr int kStandardOutput = 1;
constexpr int kStandardError = 2;

// The lines of a text, at most so many, fit to be shown.
std::vector<std::string> lines_of(std::string_view text, std::size_t most) {
  std::vector<std::string> lines;
  while (!text.empty() && lines.size() < most) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string line = wire::text::to_utf8(text.substr(0, std::min(end, limits::kMaxStackLine)));
    std::ranges::replace_if(
        line, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    if (!line.empty()) {
      lines.push_back(std::move(line));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

Examiner::Examiner(os::Kernel& kernel, Log& log, const wire::Settings& settings, Hooks hooks)
    : kernel_(kernel), log_(log), settings_(settings), hooks_(std::move(hooks)) {}

Examiner::~Examiner() {
  for (Case& examined : cases_) {
    for (const int fd : {examined.pidfd, examined.output}) {
      if (fd >= 0) {
        kernel_.close(fd);
      }
    }
  }
}

void Examiner::find_tool(bool dumps) {
  std::string path = "/usr/bin:/bin";
  for (const std::string& variable : settings_.start_environment) {
    if (variable.starts_with("PATH=")) {
      path = variable.substr(5);
    }
  }
  if (Result<std::string> found = kernel_.find_program("eu-stack", path, "/")) {
    tool_ = *found;
  } else if (!dumps) {
    log_.info("no_stacks",
              "eu-stack is not installed (Debian: elfutils), so of a worker that hangs no stack is "
              "taken");
  }
}

void Examiner::record(const pool::note::Condemned& condemned, Pid pid, Instant now) {
  Casualty casualty;
  casualty.worker = condemned.worker;
  casualty.pid = pid;
  casualty.version = condemned.version;
  casualty.at = now;
  casualty.ailment = condemned.ailment;
  casualty.complaint = condemned.complaint;
  casualty.request_id = condemned.request_id;
  casualties_.push_back(std::move(casualty));
  if (casualties_.size() > limits::kMaxCasualties) {
    casualties_.pop_front();
  }
}

void Examiner::examine(WorkerId worker, Pid pid, int dump_signal, int keep_below, Instant now) {
  Case examined;
  examined.worker = worker;
  examined.pid = pid;
  examined.dump_signal = dump_signal;
  examined.deadline = now;
  if (pid != 0 && start_tool(examined, keep_below)) {
    examined.deadline = now + kStackWithin;
  } else {
    go_on(examined, now);
  }
  cases_.push_back(examined);
}

// With nothing of our environment: it may hold what changes what is loaded or asked for.
bool Examiner::start_tool(Case& examined, int keep_below) {
  const auto running = std::ranges::count_if(cases_, [](const Case& one) { return one.tool != 0; });
  if (tool_.empty() || !hooks_.has_guard() ||
      static_cast<std::size_t>(running) >= limits::kMaxExaminations) {
    return false;
  }
  Result<int> output = kernel_.create_memory("einhorn-stack");
  if (!output) {
    return false;
  }
  os::SpawnSpec spec;
  spec.program = tool_;
  spec.arguments = {tool_, "-n", std::to_string(limits::kMaxStackFrames), "-p",
                    std::to_string(examined.pid)};
  spec.environment = {"PATH=/usr/bin:/bin", "LC_ALL=C"};
  spec.descriptors = {{*output, kStandardOutput}, {*output, kStandardError}};
  spec.keep_below = std::max(keep_below, *output + 1);
  spec.limits = {{RLIMIT_FSIZE, kMostOutput, kMostOutput}, {RLIMIT_CORE, 0, 0}};
  Result<os::Spawned> spawned = kernel_.spawn(spec);
  if (!spawned || spawned->failed) {
    log_.error("stack_failed",
               "Can't run " + tool_ + ": " +
                   (spawned ? spawned->failed->message() : spawned.error().message()));
    kernel_.close(*output);
    if (spawned) {
      hooks_.started(spawned->pid);
      if (spawned->pidfd >= 0) {
        kernel_.close(spawned->pidfd);
      }
    }
    return false;
  }
  examined.tool = spawned->pid;
  examined.pidfd = spawned->pidfd;
  examined.output = *output;
  return true;
}

void Examiner::end_tool(Case& examined, const std::string& trouble) {
  Result<std::string> text = kernel_.read_all(examined.output);
  keep(examined, text ? *text : "", trouble);
  kernel_.close(std::exchange(examined.output, -1));
  if (const int pidfd = std::exchange(examined.pidfd, -1); pidfd >= 0) {
    kernel_.close(pidfd);
  }
  examined.tool = 0;
}

// After its stack: its own dump, and then it may be told to stop.
void Examiner::go_on(Case& examined, Instant now) {
  examined.deadline = now;
  if (examined.dump_signal == 0 || std::exchange(examined.dumped, true)) {
    return;
  }
  if (hooks_.send(examined.worker, examined.dump_signal)) {
    log_.info("dump_signal", "Sent " + signal_name(examined.dump_signal) + " to worker " +
                                 std::to_string(examined.pid) + ", so that it says where it is");
    examined.deadline = now + kDumpWithin;
  }
}

void Examiner::keep(const Case& examined, const std::string& text, const std::string& trouble) {
  std::vector<std::string> lines = lines_of(text, limits::kMaxStackLines);
  const std::string pid = std::to_string(examined.pid);
  if (!trouble.empty()) {
    log_.error("stack_failed", "Taking the stack of worker " + pid + ": " + trouble);
  }
  if (!lines.empty()) {
    log_.info("stack", "Stack of worker " + pid + ":");
    hooks_.seen(examined.worker, examined.pid, lines);
  }
  for (const std::string& line : lines) {
    log_.info("stack", "  " + line);
  }
  const auto found = std::ranges::find(casualties_, examined.worker, &Casualty::worker);
  if (found != casualties_.end()) {
    found->stack = std::move(lines);
  }
}

bool Examiner::on_child_ended(Pid pid, os::Ended how, Instant now) {
  const auto found = std::ranges::find(cases_, pid, &Case::tool);
  if (pid == 0 || found == cases_.end()) {
    return false;
  }
  constexpr int kExited = 1;  // as in siginfo_t
  const bool well = how.code == kExited && how.status == 0;
  end_tool(*found, well ? ""
                        : "eu-stack ended with " +
                              std::string(how.code == kExited ? "status " : "signal ") +
                              std::to_string(how.status));
  go_on(*found, now);
  finish_due(now);
  return true;
}

void Examiner::turn(Instant now) {
  for (Case& examined : cases_) {
    if (examined.tool != 0 && examined.deadline <= now) {
      kernel_.signal(examined.pidfd, examined.tool, SIGKILL, true);
      hooks_.started(examined.tool);
      end_tool(examined, "eu-stack took longer than " +
                             std::to_string(kStackWithin / std::chrono::seconds{1}) + " s");
      go_on(examined, now);
    }
  }
  finish_due(now);
}

void Examiner::finish_due(Instant now) {
  std::vector<WorkerId> done;
  std::erase_if(cases_, [&](const Case& examined) {
    const bool over = examined.tool == 0 && examined.deadline <= now;
    if (over) {
      done.push_back(examined.worker);
    }
    return over;
  });
  for (const WorkerId worker : done) {
    hooks_.done(worker);
  }
}

std::optional<Instant> Examiner::next_deadline() const {
  std::optional<Instant> next;
  for (const Case& examined : cases_) {
    if (!next || examined.deadline < *next) {
      next = examined.deadline;
    }
  }
  return next;
}

}  // namespace einhorn::master
