#include "os/linux/intercept.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <utility>

#include "os/intercept.h"
#include "os/linux/retry.h"
#include "os/unique_fd.h"

#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#error "the kernel's headers are too old"
#endif

namespace einhorn::os {
namespace {

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "say which architecture this is"
#endif

constexpr sock_filter load(std::size_t offset) {
  return {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<unsigned>(offset)};
}
constexpr sock_filter jump_if(long value, unsigned char yes, unsigned char no) {
  return {BPF_JMP | BPF_JEQ | BPF_K, yes, no, static_cast<unsigned>(value)};
}
constexpr sock_filter answer(unsigned action) { return {BPF_RET | BPF_K, 0, 0, action}; }

// Calls in another architecture's numbering (32-bit programs) are left alone.
template <bool kAllowIoUring>
constexpr std::array<sock_filter, 9> kFilter = {{
    load(offsetof(seccomp_data, arch)),
    jump_if(kArchitecture, 0, 6),
    load(offsetof(seccomp_data, nr)),
    jump_if(SYS_bind, 3, 0),
    jump_if(SYS_listen, 2, 0),
    jump_if(SYS_io_uring_setup, 0, 2),
    answer(kAllowIoUring ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | ENOSYS),
    answer(SECCOMP_RET_USER_NOTIF),
    answer(SECCOMP_RET_ALLOW),
}};

// Never returns.
void probe_child(int write_end) {
  struct {
    int result = 0;
    int no_new_privs = 0;
  } said;
  bool no_new_privs = false;
  said.result = install_intercept_filter(intercept_filter(false), &no_new_privs);
  said.no_new_privs = no_new_privs ? 1 : 0;
  const ssize_t ignored = write(write_end, &said, sizeof(said));
  static_cast<void>(ignored);
  // Until the parent has looked at us.
  pause();
  _exit(0);
}

// Whether the supervisor will be able to look at a program: its descriptors, its memory.
std::string refused_looks(pid_t child, int its_descriptor, const void* its_memory) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  if (!pidfd) {
    return std::string("pidfd_open: ") + strerrordesc_np(errno);
  }
  const UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), its_descriptor, 0)));
  if (!copy) {
    return std::string("pidfd_getfd: ") + strerrordesc_np(errno);
  }
  char byte = 0;
  iovec here{&byte, 1};
  iovec there{const_cast<void*>(its_memory), 1};
  if (process_vm_readv(child, &here, 1, &there, 1, 0) != 1) {
    return std::string("process_vm_readv: ") + strerrordesc_np(errno);
  }
  return "";
}

}  // namespace

const sock_fprog* intercept_filter(bool allow_io_uring) {
  static auto strict = kFilter<false>;
  static auto lenient = kFilter<true>;
  static const sock_fprog kStrictProgram{static_cast<unsigned short>(strict.size()), strict.data()};
  static const sock_fprog kLenientProgram{static_cast<unsigned short>(lenient.size()),
                                          lenient.data()};
  return allow_io_uring ? &kLenientProgram : &kStrictProgram;
}

int install_intercept_filter(const sock_fprog* filter, bool* no_new_privs) {
  const auto install = [filter] {
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, filter);
  };
  long notify = install();
  if (notify < 0 && errno == EACCES) {
    *no_new_privs = true;
    if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
      return -errno;
    }
    notify = install();
  }
  return notify < 0 ? -errno : static_cast<int>(notify);
}

Interception probe_interception() {
  Interception found;
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    found.refused = std::string("pipe: ") + strerrordesc_np(errno);
    return found;
  }
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_DFL);
    probe_child(write_end.get());
  }
  if (child < 0) {
    found.refused = std::string("fork: ") + strerrordesc_np(errno);
    return found;
  }
  struct {
    int result = -EIO;
    int no_new_privs = 0;
  } said;
  write_end.reset();
  if (retry([&] { return read(read_end.get(), &said, sizeof(said)); }) !=
      static_cast<ssize_t>(sizeof(said))) {
    found.refused = "seccomp: the kernel ended whoever asked for a filter";
  } else if (said.result == -EBUSY) {
    found.refused = "seccomp: this process is watched by another supervisor already";
  } else if (said.result < 0) {
    found.refused = std::string("seccomp: ") + strerrordesc_np(-said.result);
  } else {
    found.refused = refused_looks(child, said.result, &kArchitecture);
  }
  found.possible = found.refused.empty();
  found.no_new_privs = said.no_new_privs != 0;
  kill(child, SIGKILL);
  retry([&] { return waitpid(child, nullptr, 0); });
  return found;
}

bool raises_privileges(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) != 0) {
    return true;
  }
  return getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

Result<std::string> keep_socket_file(const std::string& path) {
  std::string backup = path + ".einhorn";
  struct stat status {};
  // What a pool left that had a sudden end.
  if (lstat(backup.c_str(), &status) == 0 && S_ISSOCK(status.st_mode) &&
      status.st_uid == geteuid()) {
    unlink(backup.c_str());
  }
  if (link(path.c_str(), backup.c_str()) != 0) {
    return Error{errno, "link " + path + " to " + backup, ""};
  }
  return backup;
}

std::string own_program_directory() {
  std::array<char, 4096> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0) {
    return "";
  }
  const std::string whole(path.data(), static_cast<std::size_t>(length));
  return whole.substr(0, whole.rfind('/'));
}

}  // namespace einhorn::os
