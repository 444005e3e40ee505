// Where captured lines go: standard error or a file, written by a thread of its own, so that
// whoever gives them never waits for a reader, a full disk or a file system that hangs.
//
// Whole lines in their order. What is not written yet waits in memory up to kMostWaiting; beyond
// that it is refused, and the caller drops it. Errors of a disk are tried again until there is
// room; what a reader that has gone does not take is lost and counted. Files are opened anew in
// between two lines.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "os/unique_fd.h"

namespace einhorn::capture {

class Output {
 public:
  static constexpr std::size_t kMostWaiting = 32u << 20u;

  // "": standard error. Starts the thread, which stays as long as the process.
  explicit Output(std::string path);

  // The first opening has failed; it is tried again at each reopening.
  [[nodiscard]] std::optional<Error> failed();
  // Bytes that a line may have so that lines of others never get into it.
  [[nodiscard]] std::size_t most_line() const { return most_line_; }

  // Takes the lines, and leaves an empty buffer for the next ones. False: there is no room for
  // them.
  bool put(std::string& lines, std::uint64_t count);
  // Waits until all is written, or for so long. Whether it is.
  bool written(int milliseconds);
  // Opens its file again, behind what was put so far.
  void reopen();
  // Lines that could not be written since the last call.
  [[nodiscard]] std::uint64_t take_lost();

 private:
  struct Item {
    std::string lines;
    std::uint64_t count = 0;
    bool reopen = false;
  };
  void run();
  void open();
  bool write(std::string_view lines);

  const std::string path_;
  std::size_t most_line_ = 0;
  int fd_ = 2;
  os::UniqueFd file_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable written_;
  std::deque<Item> waiting_;
  std::string spare_;  // a buffer that was written: new memory costs more than the writing
  std::size_t bytes_ = 0;
  bool writing_ = false;
  std::uint64_t lost_ = 0;
  std::optional<Error> failed_;
};

}  // namespace einhorn::capture
