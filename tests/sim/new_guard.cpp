#include "sim/new_guard.h"

#include <algorithm>
#include <csignal>
#include <sstream>

#include "wire/snapshot.h"

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kPatience = seconds{10};

}  // namespace

void NewGuard::plan() {
  if (planned_ || process_ != nullptr) {
    return;
  }
  planned_ = true;
  world_.after(world_.random.skewed(microseconds{100}, seconds{20}), [this] {
    planned_ = false;
    if (!guard_.alive() && !world_.over) {
      start();
    }
  });
}

void NewGuard::start() {
  process_ = world_.start_process(ProcessKind::kGuard, 1);
  world_.note("einhorn", std::to_string(process_->pid) + " wants to take the pool over");
  stream_ = workers_.connect(process_->pid, 200'000);
  if (stream_ == nullptr) {
    give_up("nobody accepts");
    return;
  }
  stream_->write("{\"command\": \"guard:takeover\", \"id\": 1}\n");
  world_.after(kPatience, [this, process = process_] {
    if (process_ == process) {
      give_up("no answer");
    }
  });
  if (world_.faults && world_.random.chance(200)) {
    world_.after(world_.random.skewed(microseconds{10}, milliseconds{20}),
                 [this, process = process_] {
                   if (process_ == process) {
                     give_up("killed");
                   }
                 });
  }
}

void NewGuard::poke() {
  if (process_ != nullptr && stream_->readable() && !reading_) {
    reading_ = true;
    world_.after(world_.random.skewed(microseconds{10}, milliseconds{5}),
                 [this, process = process_] {
                   reading_ = false;
                   if (process_ == process && process != nullptr) {
                     read();
                   }
                 });
  }
}

// As os::ask_to_take_over reads it.
void NewGuard::read() {
  std::string bytes;
  const Kind kind = stream_->read(4096, bytes).kind;
  if (kind == Kind::kClosed) {
    give_up("the connection was closed");
    return;
  }
  text_ += bytes;
  for (FilePtr& file : stream_->take_files()) {
    files_.push_back(std::move(file));
  }
  std::size_t end = 0;
  while ((end = text_.find('\n')) != std::string::npos) {
    const std::string line = text_.substr(0, end);
    text_.erase(0, end + 1);
    if (line == "X_EINHORN_GO=1") {
      take_over();
      return;
    }
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word != "X_EINHORN_FDS=1") {
      give_up("refused: " + line);
      return;
    }
    while (words >> word) {
      names_.push_back(word);
    }
  }
}

void NewGuard::take_over() {
  world_.expect(names_.size() == files_.size(), "handoff", "descriptors were lost on the way");
  world_.expect(!guard_.alive(), "handoff", "the pool was handed over while a guard lives");
  GuardProcess::Kept kept;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == "snapshot") {
      const auto memory = std::dynamic_pointer_cast<Memory>(files_[i]);
      world_.expect(memory != nullptr && wire::decode_snapshot(memory->content()).has_value(),
                    "handoff", "the snapshot that was handed over can't be read");
    }
    kept.emplace_back(names_[i], std::move(files_[i]));
  }
  world_.note("einhorn", std::to_string(process_->pid) + " takes the pool over");
  names_.clear();
  files_.clear();
  text_.clear();
  guard_.begin(std::exchange(process_, nullptr), kept, std::exchange(stream_, nullptr));
}

void NewGuard::give_up(const std::string& why) {
  world_.note("einhorn", std::to_string(process_->pid) + " gives up: " + why);
  stream_.reset();
  names_.clear();
  files_.clear();
  text_.clear();
  world_.end(std::exchange(process_, nullptr), {1, 1});
  plan();
}

void NewGuard::on_ended(const ProcessPtr& process) {
  if (process_ == process) {
    process_.reset();
    stream_.reset();
  }
}

}  // namespace einhorn::sim
