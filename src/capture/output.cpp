#include "capture/output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <thread>
#include <utility>

#include "os/linux/retry.h"
#include "os/own_file.h"

namespace einhorn::capture {
namespace {

constexpr std::size_t kMostFileLine = 128 * 1024;  // all of kMostLine, escaped
constexpr int kTryAgainMs = 200;

bool is_regular(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

// Whoever wrote to it last may have been killed in the middle of a line, which is written again.
void end_line(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
    return;
  }
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const os::UniqueFd look(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  char last = '\n';
  if (look && pread(look.get(), &last, 1, status.st_size - 1) == 1 && last != '\n') {
    // Without room for that, there is none for what follows either, which is tried again.
    static_cast<void>(::write(fd, "\n", 1) == 1);
  }
}

// As many whole lines as fit; at least one.
std::size_t whole_lines(std::string_view text, std::size_t most) {
  if (text.size() <= most) {
    return text.size();
  }
  const std::size_t last = text.substr(0, most).rfind('\n');
  return last != std::string_view::npos ? last + 1 : std::min(text.find('\n'), text.size() - 1) + 1;
}

}  // namespace

Output::Output(std::string path) : path_(std::move(path)) {
  open();
  end_line(fd_);
  most_line_ = !path_.empty() || is_regular(fd_) ? kMostFileLine : PIPE_BUF;
  std::thread(&Output::run, this).detach();
}

std::optional<Error> Output::failed() {
  const std::lock_guard lock(mutex_);
  return std::exchange(failed_, std::nullopt);
}

// The file that is open stays if another can't be opened.
void Output::open() {
  if (path_.empty()) {
    return;
  }
  const os::OpenedFile opened = os::open_log_file(path_.c_str());
  const std::lock_guard lock(mutex_);
  if (opened.fd < 0) {
    failed_ = os::open_error(path_, opened, "--capture");
    return;
  }
  file_.reset(opened.fd);
  fd_ = file_.get();
}

bool Output::put(std::string& lines, std::uint64_t count) {
  const std::lock_guard lock(mutex_);
  if (bytes_ + lines.size() > kMostWaiting) {
    return false;
  }
  bytes_ += lines.size();
  waiting_.push_back({std::exchange(lines, std::exchange(spare_, {})), count, false});
  lines.clear();
  changed_.notify_one();
  return true;
}

void Output::reopen() {
  const std::lock_guard lock(mutex_);
  waiting_.push_back({"", 0, true});
  changed_.notify_one();
}

bool Output::written(int milliseconds) {
  std::unique_lock lock(mutex_);
  return written_.wait_for(lock, std::chrono::milliseconds(milliseconds),
                           [this] { return waiting_.empty() && !writing_; });
}

std::uint64_t Output::take_lost() {
  const std::lock_guard lock(mutex_);
  return std::exchange(lost_, 0);
}

void Output::run() {
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !waiting_.empty(); });
    Item item = std::move(waiting_.front());
    waiting_.pop_front();
    writing_ = true;
    lock.unlock();
    if (item.reopen) {
      open();
    }
    const bool done = write(item.lines);
    lock.lock();
    writing_ = false;
    bytes_ -= item.lines.size();
    lost_ += done ? 0 : item.count;
    if (item.lines.capacity() > spare_.capacity()) {
      spare_ = std::move(item.lines);
    }
    if (waiting_.empty()) {
      written_.notify_all();
    }
  }
}

// False: nobody will ever take the rest.
bool Output::write(std::string_view lines) {
  const std::size_t most = most_line_ == PIPE_BUF ? PIPE_BUF : lines.size();
  while (!lines.empty()) {
    std::string_view part = lines.substr(0, whole_lines(lines, most));
    lines.remove_prefix(part.size());
    while (!part.empty()) {
      const ssize_t count = os::retry([&] { return ::write(fd_, part.data(), part.size()); });
      if (count >= 0) {
        part.remove_prefix(static_cast<std::size_t>(count));
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        pollfd room{fd_, POLLOUT, 0};
        poll(&room, 1, kTryAgainMs);
      } else if (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == ENOMEM) {
        poll(nullptr, 0, kTryAgainMs);  // a disk gets room again
      } else {
        return false;
      }
    }
  }
  return true;
}

}  // namespace einhorn::capture
