// Opening files by a path that others may have got at first: lock, pid file, log.
//
// They often lie in a directory that everybody can write to. Nothing is opened there through a
// link that is not ours, and nothing that somebody else put there is written to. What is opened is
// CLOEXEC, and whatever lies there, opening it never waits.
//
// Allocates nothing: the guard calls it while it runs.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace einhorn::os {

struct OpenedFile {
  enum class Refusal {
    kNone,        // then `error` says why there is no descriptor
    kLink,        // a symbolic link, not ours if it is a log
    kNotRegular,  // a directory, a pipe, a device
    kForeign,     // it belongs to `owner`
    kHardLinks,   // it has other names
  };
  int fd = -1;  // the caller's to close
  int error = 0;
  Refusal refusal = Refusal::kNone;
  uid_t owner = 0;
};

// A regular file of our own with one name, to be read and written; made with that mode if there is
// none.
[[nodiscard]] OpenedFile open_own_file(const char* path, mode_t mode);

// To append to; made 0640 if there is none. A link or a file that is neither ours nor root's, or
// that has other names, is refused in a directory that everybody can write to; elsewhere whoever
// owns the directory has put it there.
[[nodiscard]] OpenedFile open_log_file(const char* path);

// Whether that file can be appended to; it is made if there is none. The error names the option.
[[nodiscard]] Status check_log_file(const std::string& path, const std::string& option);

// Why, in words, such as "it is a symbolic link".
[[nodiscard]] const char* reason_of(const OpenedFile& file);

// "open PATH: the reason; remove it or name another path with OPTION".
[[nodiscard]] Error open_error(const std::string& path, const OpenedFile& file,
                               const std::string& option);

}  // namespace einhorn::os
