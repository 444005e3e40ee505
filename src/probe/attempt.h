// One probe that is under way: a connection, or a command.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "os/unique_fd.h"

namespace einhorn::probe {

struct Job {
  std::uint64_t id = 0;
  std::string kind;
  std::string address;
  std::string path;
  std::string command;
  std::string pid;
  std::string index;
  int timeout_ms = 5000;
};
// None: it is no job.
[[nodiscard]] std::optional<Job> parse_job(const std::string& message);

// Well, or why not.
struct Verdict {
  bool well = false;
  std::string detail;
};

class Attempt {
 public:
  using Clock = std::chrono::steady_clock;

  // Begins; the verdict may be there at once.
  explicit Attempt(Job job);
  Attempt(Attempt&&) noexcept = default;
  Attempt& operator=(Attempt&&) noexcept = default;
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  ~Attempt();

  [[nodiscard]] const Job& job() const { return job_; }
  [[nodiscard]] const std::optional<Verdict>& verdict() const { return verdict_; }
  // What to wait for, as poll(2) has it.
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] short events() const;
  [[nodiscard]] Clock::time_point deadline() const { return deadline_; }
  void on_ready();
  void on_timeout();

 private:
  void begin_connection();
  void begin_command();
  void send_request();
  void read_answer();
  void read_end();
  void end(bool well, std::string detail);
  void fail(const std::string& operation, int error);

  Job job_;
  Clock::time_point deadline_;
  std::optional<Verdict> verdict_;
  os::UniqueFd fd_;  // the connection, or the pidfd of the command
  int child_ = 0;
  bool connected_ = false;
  std::string answer_;
};

}  // namespace einhorn::probe
