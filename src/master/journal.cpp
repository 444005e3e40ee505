#include "master/journal.h"

#include <algorithm>
#include <atomic>

#include "base/limits.h"

namespace einhorn::master {

Journal::Journal(os::Kernel& kernel, std::function<void(int fd)> publish)
    : kernel_(kernel), publish_(std::move(publish)) {}

Journal::~Journal() {
  if (note_ != nullptr) {
    kernel_.unmap_note(note_);
  }
  if (fd_ >= 0) {
    kernel_.close(fd_);
  }
}

Status Journal::rewrite(const wire::Snapshot& snapshot) {
  Result<int> file = kernel_.create_memory("einhorn-snapshot");
  if (!file) {
    return file.error();
  }
  const std::string journal = wire::encode_journal(snapshot);
  Result<os::SpawnNote*> note = kernel_.map_note(*file);
  if (!note) {
    kernel_.close(*file);
    return note.error();
  }
  (*note)->events = events_;
  if (Status written = kernel_.write_at(*file, wire::kJournalStart, journal); !written) {
    kernel_.unmap_note(*note);
    kernel_.close(*file);
    return written;
  }
  publish_(*file);
  if (note_ != nullptr) {
    kernel_.unmap_note(note_);
  }
  if (fd_ >= 0) {
    kernel_.close(fd_);
  }
  fd_ = *file;
  note_ = *note;
  end_ = wire::kJournalStart + journal.size();
  fresh_bytes_ = journal.size();
  broken_ = false;
  return Ok{};
}

void Journal::note_events(std::uint64_t number) {
  events_ = number;
  if (note_ != nullptr) {
    note_->events = number;
  }
}

Status Journal::append(const std::string& entry) {
  if (fd_ < 0) {
    broken_ = true;
    return make_error("write to the snapshot", "there is none yet");
  }
  if (Status written = kernel_.write_at(fd_, end_, entry); !written) {
    broken_ = true;
    return written;
  }
  end_ += entry.size();
  return Ok{};
}

bool Journal::decide(os::SpawnNote& note, os::SpawnNote::Next goes_on) {
  std::uint32_t before = os::SpawnNote::kNobodyYet;
  return std::atomic_ref(note.next).compare_exchange_strong(before, goes_on) || before == goes_on;
}

bool Journal::bloated() const {
  const std::uint64_t used = end_ - wire::kJournalStart;
  return broken_ || used > 2 * fresh_bytes_ + limits::kSnapshotSlackBytes;
}

}  // namespace einhorn::master
