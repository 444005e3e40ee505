// The log: whole lines, on standard error or in a file, as text or as JSON.
//
// Writing never waits: a line that a slow or vanished reader, a full disk or a closed descriptor
// does not take is dropped and counted, and the count is said with the next line that goes through.
// A disk that fills up may take half of a line: that one counts as dropped, and the next one begins
// on a line of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/instant.h"
#include "os/kernel.h"

namespace einhorn::master {

enum class Level { kDebug, kInfo, kError };

struct LogLine {
  Level level = Level::kInfo;
  std::string_view event;  // a word for programs: "launched", "exited"; static text
  std::string text;
  Pid pid = 0;  // of the worker concerned; 0: none
  std::optional<WorkerId> worker = {};
  std::optional<Version> version = {};
  bool upgrade = false;  // also told to whoever asked for the upgrade
};

class Log {
 public:
  // `pid` is what the lines are tagged with: the pid the world knows.
  Log(os::Kernel& kernel, Pid pid, std::int32_t verbosity, bool json);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // Appends to that file from now on; "": standard error. On an error the log stays where it is.
  Status open(const std::string& path);
  void set_verbosity(std::int32_t verbosity) { verbosity_ = verbosity; }
  void set_json(bool json) { json_ = json; }
  void set_time(WallTime now) { now_ = now; }
  void set_pid(Pid pid) { pid_ = pid; }

  void write(const LogLine& line);
  void debug(std::string text) { write({Level::kDebug, "debug", std::move(text)}); }
  void info(std::string_view event, std::string text) {
    write({Level::kInfo, event, std::move(text)});
  }
  void error(std::string_view event, std::string text) {
    write({Level::kError, event, std::move(text)});
  }
  [[nodiscard]] bool wants(Level level) const { return static_cast<int>(level) >= verbosity_; }
  [[nodiscard]] std::uint64_t dropped() const { return dropped_total_; }

 private:
  [[nodiscard]] std::string format(const LogLine& line) const;
  bool put(std::string line);

  os::Kernel& kernel_;
  Pid pid_;
  std::int32_t verbosity_;
  bool json_;
  int fd_ = 2;
  WallTime now_{};
  bool torn_ = false;  // the last line written is not whole
  std::uint64_t dropped_ = 0;
  std::uint64_t dropped_total_ = 0;
};

}  // namespace einhorn::master
