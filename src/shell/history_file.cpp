#include "shell/history_file.h"

#include <fcntl.h>
#include <histedit.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

namespace einhorn::shell {

namespace {

constexpr int kMostLines = 1000;
constexpr off_t kMostBytes = off_t{16} << 20U;

}  // namespace

HistoryFile::HistoryFile(std::string path) : path_(std::move(path)), history_(::history_init()) {
  if (history_ == nullptr) {
    return;
  }
  HistEvent event;
  ::history(history_, &event, H_SETSIZE, kMostLines);
  ::history(history_, &event, H_SETUNIQUE, 1);
  load();
}

HistoryFile::~HistoryFile() {
  if (history_ != nullptr) {
    ::history_end(history_);
  }
}

void HistoryFile::load() {
  if (path_.empty()) {
    return;
  }
  struct stat info = {};
  if (::stat(path_.c_str(), &info) != 0) {
    if (errno != ENOENT) {
      path_.clear();
    }
    return;
  }
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path_, error);
  HistEvent event;
  if (error || !S_ISREG(info.st_mode) || info.st_size > kMostBytes ||
      (info.st_size > 0 && ::history(history_, &event, H_LOAD, real.c_str()) < 0)) {
    path_.clear();
    return;
  }
  path_ = real.string();
}

void HistoryFile::add(const std::string& line) {
  if (history_ == nullptr || line.find_first_not_of(" \t\r\n") == std::string::npos) {
    return;
  }
  HistEvent event;
  ::history(history_, &event, H_ENTER, line.c_str());
  save();
}

void HistoryFile::save() const {
  if (path_.empty()) {
    return;
  }
  std::string temporary = path_ + ".XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);  // its mode is 0600
  if (fd < 0) {
    return;
  }
  std::FILE* file = ::fdopen(fd, "w");
  if (file == nullptr) {
    ::close(fd);
    ::unlink(temporary.c_str());
    return;
  }
  HistEvent event;
  bool written = ::history(history_, &event, H_SAVE_FP, file) >= 0;
  written = std::ferror(file) == 0 && written;
  written = std::fclose(file) == 0 && written;
  if (!written || ::rename(temporary.c_str(), path_.c_str()) != 0) {
    ::unlink(temporary.c_str());
  }
}

}  // namespace einhorn::shell
