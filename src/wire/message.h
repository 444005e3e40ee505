// The command line protocol: one message a line.
//
// A request is a YAML or JSON map in one line in which `%` is written `%25` and newline `%0A`.
// The reply to a JSON request is one plain JSON object; the reply to any other one is block YAML,
// escaped in the same way. See docs/protocol.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "wire/value.h"

namespace einhorn::wire {

enum class Language { kYaml, kJson };

struct Request {
  Value document;  // always a map
  Language language = Language::kYaml;
};

struct Reply {
  std::string message;
  std::optional<Value> request_id;  // the request's `id`, of any kind; none: only `message` is sent
  bool wait = false;                // more messages follow for this request
  // How the command ended: "ok", "error"; of an upgrade also "failed", "could_not_start". "" if it
  // is not said (Ruby's master never does). Sent behind `message`, and only where request_id is.
  std::string status = {};
};

// Understands strict JSON; flow YAML; block YAML with %0A; a leading `--- `, a trailing space, CR
// before the newline. Only %25 and %0A are decoded; when that gives no map with a `command`, every
// %XX is decoded and it is tried again (libraries older than Einhorn 0.8.2 escape more), and a map
// with a `command`, or a map where there was none, wins. JSON is tried first when the line begins
// with `{`. `line` comes without its newline. Errors: "Could not parse command" is what a client is
// told; the message here says why, for the log.
[[nodiscard]] Result<Request> parse_request(std::string_view line);

// One line with its newline. Bytes of the message that are not UTF-8 become U+FFFD. A request id
// that is null or false counts as none, as in Ruby.
[[nodiscard]] std::string encode_reply(const Reply& reply, Language language);

// A request as a client sends it: YAML, escaped, with its newline. Read by Ruby's Einhorn too.
[[nodiscard]] std::string encode_request(const Value& document);

// A reply as a client receives it, in either language; `line` without its newline.
// A line of the event stream (docs/events.md) is a message by itself, and more follow.
// A message that is no string is given as Ruby would inspect it. A message may be as long as the
// unsent output that a master keeps. Errors: not a map, no `message`.
[[nodiscard]] Result<Reply> parse_reply(std::string_view line);

// `%` -> `%25`, newline -> `%0A`; and back, those two only.
[[nodiscard]] std::string escape_line(std::string_view text);
[[nodiscard]] std::string unescape_line(std::string_view line);

}  // namespace einhorn::wire
