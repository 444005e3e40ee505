// What the library in a program and the supervisor say to each other where there is no seccomp
// (`--intercept=preload`): one question and one answer a connection, each a single message of a
// sequenced-packet socket. The program's socket is attached to the question, a shared one to the
// answer kShare.
#pragma once

#include <cstdint>

namespace einhorn::interposed {

inline constexpr char kQuestionMagic[8] = {'E', 'H', 'B', 'I', 'N', 'D', '1', '\0'};
inline constexpr unsigned kTokenBytes = 32;
inline constexpr unsigned kMostAddressBytes = 128;
// Its value: the supervisor's abstract name, the worker's epoch, slot and token, with colons.
inline constexpr char kVariable[] = "EINHORN_INTERCEPT";

enum Call : std::int32_t { kBind = 1, kListen = 2 };

// Followed by `length` bytes of address, for a bind.
struct Question {
  char magic[8];
  char token[kTokenBytes];  // hexadecimal
  std::uint64_t epoch;
  std::uint32_t slot;
  std::int32_t call;
  std::int32_t fd;  // its number in the program
  std::int32_t close_on_exec;
  std::uint32_t length;
  std::uint32_t unused;
};

enum Verdict : std::int32_t {
  kContinue = 1,  // the kernel is to do the call
  kDone = 2,      // it has been done
  kError = 3,     // it fails with `error`
  kShare = 4,     // the attached descriptor takes the place of the program's
};

struct Reply {
  char magic[8];
  std::int32_t verdict;
  std::int32_t error;
};

}  // namespace einhorn::interposed
