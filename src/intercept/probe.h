// Whether a worker serves, and not only listens (`--listen-probe`): a connection to a shared socket
// that this very worker has accepted and, if it is to speak HTTP, answered.
//
// Who accepts a connection to a shared socket is not ours to choose. So the probe connects, looks who
// has the other end (sock_diag), says nothing to anybody else, and tries again. The worker is found
// as a process that is, or descends from, the one that was started.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "intercept/desk.h"

namespace einhorn::intercept {

// Pure: whether that is the beginning of an HTTP answer with a status from 200 to 399.
[[nodiscard]] bool is_good_answer(std::string_view text);

class Probes {
 public:
  Probes(Desk& desk, Reports& reports) : desk_(desk), reports_(reports) {}

  // "tcp" or "http:PATH".
  void set_kind(std::string kind) { kind_ = std::move(kind); }
  // Twice for the same worker is once.
  void begin(const Asker& worker, pid_t pid);
  void ended(Epoch worker);

 private:
  struct Probe;
  static void* thread(void* argument);
  Desk& desk_;
  Reports& reports_;
  std::string kind_;
  std::map<Epoch, std::shared_ptr<Probe>> probes_;
};

}  // namespace einhorn::intercept
