// Keeping the snapshot: every change is appended to a memory file that the guard holds too.
//
// A change costs one write, whatever the number of workers. When more than half of the file is
// outdated it is written anew and the guard gets the new one; spread over the changes that made
// it necessary, that costs a constant too.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Journal {
 public:
  // `publish` hands a new memory file to the guard.
  Journal(os::Kernel& kernel, std::function<void(int fd)> publish);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Starts a new file that holds just this.
  Status rewrite(const wire::Snapshot& snapshot);
  // Errors leave the journal as it was; the next change tries a new file.
  Status append(const std::string& entry);
  // Whether a rewrite pays.
  [[nodiscard]] bool bloated() const;
  // For the next spawn; null before the first rewrite.
  [[nodiscard]] os::SpawnNote* note() const { return note_; }
  // The number of the last event: in the page, so that it costs no call and is never lost.
  void note_events(std::uint64_t number);
  // Of a hand-off that neither side heard the end of: true if that side is the one to go on.
  [[nodiscard]] static bool decide(os::SpawnNote& note, os::SpawnNote::Next goes_on);
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] bool broken() const { return broken_; }

 private:
  os::Kernel& kernel_;
  std::function<void(int fd)> publish_;
  int fd_ = -1;
  os::SpawnNote* note_ = nullptr;
  std::uint64_t end_ = wire::kJournalStart;
  std::uint64_t fresh_bytes_ = 0;
  bool broken_ = false;
  std::uint64_t events_ = 0;
};

}  // namespace einhorn::master
