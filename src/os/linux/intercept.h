// The filter that tells of bind, listen and io_uring_setup; what spawn.cpp and the probe share.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

namespace einhorn::os {

// io_uring's bind and listen would pass the filter unseen: its setup answers ENOSYS unless allowed.
// The program lives as long as the process.
[[nodiscard]] const sock_fprog* intercept_filter(bool allow_io_uring);

// Puts the filter on the calling thread; returns its notify descriptor (CLOEXEC), or -errno. Sets
// no_new_privs if it can't be had otherwise. Raw system calls only.
[[nodiscard]] int install_intercept_filter(const sock_fprog* filter, bool* no_new_privs);

}  // namespace einhorn::os
