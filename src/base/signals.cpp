#include "base/signals.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace einhorn {
namespace {

struct Named {
  int number;
  std::string_view name;
};

constexpr std::array kNames = {
    Named{SIGHUP, "HUP"},
    Named{SIGINT, "INT"},
    Named{SIGQUIT, "QUIT"},
    Named{SIGILL, "ILL"},
    Named{SIGTRAP, "TRAP"},
    Named{SIGABRT, "ABRT"},
    Named{SIGBUS, "BUS"},
    Named{SIGFPE, "FPE"},
    Named{SIGKILL, "KILL"},
    Named{SIGUSR1, "USR1"},
    Named{SIGSEGV, "SEGV"},
    Named{SIGUSR2, "USR2"},
    Named{SIGPIPE, "PIPE"},
    Named{SIGALRM, "ALRM"},
    Named{SIGTERM, "TERM"},
    Named{SIGSTKFLT, "STKFLT"},
    Named{SIGCHLD, "CHLD"},
    Named{SIGCONT, "CONT"},
    Named{SIGSTOP, "STOP"},
    Named{SIGTSTP, "TSTP"},
    Named{SIGTTIN, "TTIN"},
    Named{SIGTTOU, "TTOU"},
    Named{SIGURG, "URG"},
    Named{SIGXCPU, "XCPU"},
    Named{SIGXFSZ, "XFSZ"},
    Named{SIGVTALRM, "VTALRM"},
    Named{SIGPROF, "PROF"},
    Named{SIGWINCH, "WINCH"},
    Named{SIGIO, "IO"},
    Named{SIGPWR, "PWR"},
    Named{SIGSYS, "SYS"},
    // Other names of the same numbers; only the first is ever written.
    Named{SIGABRT, "IOT"},
    Named{SIGCHLD, "CLD"},
    Named{SIGIO, "POLL"},
};

}  // namespace

std::optional<int> parse_signal(std::string_view name) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::toupper(letter)); });
  std::string_view wanted = upper;
  if (wanted.starts_with("SIG")) {
    wanted.remove_prefix(3);
  }
  for (const Named& entry : kNames) {
    if (entry.name == wanted) {
      return entry.number;
    }
  }
  return std::nullopt;
}

std::string signal_name(int number) {
  for (const Named& entry : kNames) {
    if (entry.number == number) {
      return std::string(entry.name);
    }
  }
  return std::to_string(number);
}

std::vector<std::string_view> signal_names() {
  std::vector<std::string_view> names;
  names.reserve(kNames.size());
  for (const Named& entry : kNames) {
    names.push_back(entry.name);
  }
  return names;
}

std::vector<int> SignalSet::numbers() const {
  std::vector<int> numbers;
  for (int number = 1; number <= 64; ++number) {
    if (has(number)) {
      numbers.push_back(number);
    }
  }
  return numbers;
}

}  // namespace einhorn
