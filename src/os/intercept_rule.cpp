#include <algorithm>

#include "base/numbers.h"
#include "os/intercept.h"

namespace einhorn::os {
namespace {

constexpr std::string_view kAllowed =
    " (allowed: auto, seccomp, preload, PORT=PORT, HOST:PORT=PORT, unix:PATH=NAME; a NAME of a -b "
    "may stand "
    "for the last PORT)";

// In one line, whatever the text is made of.
Error wrong(std::string_view text, const std::string& what) {
  std::string why = "\"" + std::string(text) + "\": " + what + std::string(kAllowed);
  std::ranges::replace_if(
      why, [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; }, '?');
  return make_error("", why);
}

bool read_port(std::string_view text, std::uint16_t* port) {
  *port = whole_number<std::uint16_t>(text).value_or(0);
  return *port != 0;
}

Status read_from(std::string_view text, std::string_view from, InterceptRule& rule) {
  if (from.starts_with("unix:")) {
    rule.from_host = from.substr(5);
    if (rule.from_host.size() < 2 || (rule.from_host[0] != '/' && rule.from_host[0] != '@')) {
      return wrong(text, "a unix socket is named by /PATH or @NAME");
    }
    return Ok{};
  }
  const std::size_t colon = from.rfind(':');
  if (colon != std::string_view::npos) {
    std::string_view host = from.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) {
      host = host.substr(1, host.size() - 2);
    }
    rule.from_host = host == "*" ? "" : host;
    const bool address =
        std::all_of(rule.from_host.begin(), rule.from_host.end(), [](unsigned char letter) {
          return (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'f') ||
                 (letter >= 'A' && letter <= 'F') || letter == '.' || letter == ':';
        });
    if (!address) {
      return wrong(text, "\"" + rule.from_host + "\" is no address");
    }
  }
  const std::string_view port = colon == std::string_view::npos ? from : from.substr(colon + 1);
  if (!read_port(port, &rule.from_port)) {
    return wrong(text, "\"" + std::string(port) + "\" is no port");
  }
  return Ok{};
}

}  // namespace

Result<InterceptRule> parse_intercept_rule(std::string_view text) {
  const std::size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size()) {
    return wrong(text, "neither a way to intercept nor a rule");
  }
  InterceptRule rule;
  if (Status from = read_from(text, text.substr(0, equals), rule); !from) {
    return from.error();
  }
  const std::string_view to = text.substr(equals + 1);
  if (!read_port(to, &rule.to_port)) {
    rule.to_port = 0;
    rule.to_name = to;
    if (to.find_first_not_of("0123456789") == std::string_view::npos) {
      return wrong(text, "\"" + std::string(to) + "\" is no port");
    }
  }
  return rule;
}

}  // namespace einhorn::os
