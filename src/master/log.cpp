#include "master/log.h"

#include <algorithm>

#include "base/check.h"
#include "wire/json.h"
#include "wire/value.h"

namespace einhorn::master {
namespace {

constexpr std::size_t kMaxLine = 4000;  // below PIPE_BUF: whole lines even when several write
constexpr int kStandardError = 2;

std::string_view name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "DEBUG";
    case Level::kInfo:
      return "INFO";
    case Level::kError:
      return "ERROR";
  }
  return "";
}

std::string_view lower_name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kError:
      return "error";
  }
  return "";
}

}  // namespace

Log::Log(os::Kernel& kernel, Pid pid, std::int32_t verbosity, bool json)
    : kernel_(kernel), pid_(pid), verbosity_(verbosity), json_(json) {}

Log::~Log() {
  if (fd_ != kStandardError) {
    kernel_.close(fd_);
  }
}

Status Log::open(const std::string& path) {
  int fd = kStandardError;
  if (!path.empty()) {
    Result<int> opened = kernel_.open_log(path);
    if (!opened) {
      return opened.error();
    }
    fd = *opened;
  }
  if (fd_ != kStandardError) {
    kernel_.close(fd_);
  }
  fd_ = fd;
  torn_ = false;
  return Ok{};
}

void Log::write(const LogLine& line) {
  if (!wants(line.level)) {
    return;
  }
  if (dropped_ > 0) {
    const LogLine notice{Level::kError, "log_lines_lost",
                         std::to_string(dropped_) + " log lines could not be written and are lost"};
    if (!put(format(notice))) {
      ++dropped_;
      ++dropped_total_;
      return;
    }
    dropped_ = 0;
  }
  if (!put(format(line))) {
    ++dropped_;
    ++dropped_total_;
  }
}

bool Log::put(std::string line) {
  if (torn_) {
    line.insert(line.begin(), '\n');
  }
  const os::Transfer written = kernel_.write_line(fd_, line);
  if (written.kind != os::Transfer::Kind::kDone || written.bytes == 0) {
    return false;
  }
  torn_ = written.bytes < line.size();
  return !torn_;
}

std::string Log::format(const LogLine& line) const {
  std::string out;
  if (json_) {
    wire::Map map;
    wire::put(map, "time", now_);
    wire::put(map, "level", lower_name(line.level));
    wire::put(map, "event", line.event);
    wire::put(map, "master", std::int64_t{pid_});
    if (line.pid != 0) {
      wire::put(map, "worker", std::int64_t{line.pid});
    }
    if (line.worker) {
      wire::put(map, "index", line.worker->slot.value);
    }
    if (line.version) {
      wire::put(map, "version", line.version->value);
    }
    wire::put(map, "message", "");
    // A byte may become six when it is escaped, so the message is shortened until the line fits.
    for (std::size_t length = std::min(line.text.size(), kMaxLine);; length = length * 2 / 3) {
      map.back().second = std::string_view(line.text).substr(0, length);
      out = wire::encode_json(map);
      if (out.size() < kMaxLine || length == 0) {
        break;
      }
    }
    out.push_back('\n');
    return out;
  }
  out = "[MASTER " + std::to_string(pid_) + "] ";
  out += name(line.level);
  out += ": ";
  for (const char letter : line.text) {
    if (out.size() >= kMaxLine - 1) {
      break;
    }
    // One event, one line: what a program or a peer said can't forge another, nor tell a terminal
    // that shows the log what to do.
    const bool control = (letter >= '\0' && letter < ' ' && letter != '\t') || letter == '\x7f';
    out.push_back(control ? ' ' : letter);
  }
  out.push_back('\n');
  return out;
}

}  // namespace einhorn::master
