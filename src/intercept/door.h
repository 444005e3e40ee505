// Where programs ask that no filter watches (`--intercept=preload`): the library in them connects
// here (interposed/question.h). The door is a listening socket that the guard keeps; questions that
// nobody has taken in wait there for the next supervisor.
//
// Who asks is hostile. A question is read once, without waiting; it needs the token of its worker,
// which is made from a secret that no worker knows. Each worker has but a few answers under way at a
// time, each on a thread of its own.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "intercept/address.h"
#include "intercept/watcher.h"
#include "interposed/question.h"
#include "os/unique_fd.h"

namespace einhorn::intercept {

// A question as its bytes say it. Pure; none: they are no question.
struct AskedBy {
  Epoch worker;
  std::uint32_t slot = 0;
  std::string_view token;  // within the bytes
  bool is_listen = false;
  int fd = -1;
  bool close_on_exec = false;
  SocketAddress address;  // of a bind
};
[[nodiscard]] std::optional<AskedBy> parse_question(std::span<const std::uint8_t> bytes);

// Starts the thread that answers, until `watch->leave`. False: there is no thread to be had.
[[nodiscard]] bool open_for_questions(std::shared_ptr<Watch> watch, os::UniqueFd door,
                                      std::string secret);

}  // namespace einhorn::intercept
