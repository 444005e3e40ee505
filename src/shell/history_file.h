// Keeping what was typed, from one session to the next.
#pragma once

#include <memory>
#include <string>

struct history;

namespace einhorn::shell {

// libedit's history and the file behind it. At most 1000 lines; the file has mode 0600 and is
// replaced as a whole, through a symbolic link too. Whatever is wrong with the file costs only the
// history: one that isn't ours to read is never overwritten.
class HistoryFile {
 public:
  // `path` may be empty: then nothing is kept.
  explicit HistoryFile(std::string path);
  ~HistoryFile();
  HistoryFile(const HistoryFile&) = delete;
  HistoryFile& operator=(const HistoryFile&) = delete;

  // For libedit's EL_HIST; null if there is no memory for one.
  [[nodiscard]] struct ::history* handle() const { return history_; }

  // Adds a line that isn't blank and saves.
  void add(const std::string& line);

 private:
  void load();
  void save() const;

  std::string path_;
  struct ::history* history_;
};

}  // namespace einhorn::shell
