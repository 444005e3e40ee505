#include "master/probe_target.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/numbers.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

constexpr std::string_view kAddress = "{addr}";
constexpr std::string_view kNames =
    "the worker's own address names {index}, {N+index} or {pid}, as 127.0.0.1:{9100+index} or "
    "unix:/run/app.{index}.sock";

// What a placeholder stands for; none if it is no placeholder of ours.
std::optional<std::string> value_of(std::string_view name, Slot index, Pid pid) {
  if (name == "index") {
    return std::to_string(index.value);
  }
  if (name == "pid") {
    return pid != 0 ? std::optional(std::to_string(pid)) : std::nullopt;
  }
  constexpr std::string_view kPlus = "+index";
  if (name.ends_with(kPlus)) {
    name.remove_suffix(kPlus.size());
    if (const auto base = whole_number<std::uint64_t>(name)) {
      return std::to_string(*base + index.value);
    }
  }
  return std::nullopt;
}

bool is_own(const std::string& pattern) {
  return fill_pattern(pattern, Slot{1}, 1) != fill_pattern(pattern, Slot{2}, 2);
}

Error refuse(std::string option, std::string_view why) {
  return make_error(std::move(option), std::string(why));
}

bool is_one_line(const std::string& text) { return text.find('\n') == std::string::npos; }

// HOST:PORT or unix:PATH, as far as that can be told before the pattern is filled.
bool is_address(const std::string& pattern) {
  const std::string filled = fill_pattern(pattern, Slot{1}, 1);
  if (filled.starts_with("unix:")) {
    return filled.size() > 5;
  }
  const std::size_t colon = filled.rfind(':');
  if (colon == std::string::npos || colon + 1 == filled.size()) {
    return false;
  }
  return whole_number<std::uint16_t>(std::string_view(filled).substr(colon + 1)).value_or(0) > 0;
}

}  // namespace

std::string fill_pattern(std::string_view pattern, Slot index, Pid pid) {
  std::string filled;
  while (!pattern.empty()) {
    const std::size_t open = std::min(pattern.find('{'), pattern.size());
    filled += pattern.substr(0, open);
    pattern.remove_prefix(open);
    const std::size_t close = pattern.find('}');
    if (close == std::string_view::npos) {
      return filled + std::string(pattern);
    }
    const auto value = value_of(pattern.substr(1, close - 1), index, pid);
    filled += value ? *value : std::string(pattern.substr(0, close + 1));
    pattern.remove_prefix(close + 1);
  }
  return filled;
}

Result<ProbeTarget> parse_probe(const std::string& probe, const std::string& address,
                                const std::string& command) {
  using Kind = ProbeTarget::Kind;
  ProbeTarget target;
  target.address = address;
  if (!is_one_line(probe) || !is_one_line(address) || !is_one_line(command)) {
    return refuse("--probe", "it has to be one line");
  }
  if (!address.empty() && !(is_own(address) && is_address(address))) {
    return refuse("--probe-address", wire::text::ruby_quoted(address) +
                                         (is_own(address) ? " is no HOST:PORT and no unix:PATH"
                                                          : " is the same for every worker") +
                                         " (" + std::string(kNames) + ")");
  }
  if (!command.empty()) {
    if (!probe.empty()) {
      return refuse("--probe-command", "there is --probe already; only one of them is possible");
    }
    target.kind = Kind::kCommand;
    target.command = command;
    return target;
  }
  if (probe.empty()) {
    if (!address.empty()) {
      return refuse("--probe-address", "it needs --probe or --probe-command");
    }
    return target;
  }
  constexpr std::string_view kHttp = "http://";
  constexpr std::string_view kTcp = "tcp://";
  std::string own;
  if (probe == "tcp") {
    target.kind = Kind::kTcp;
    own = kAddress;
  } else if (probe.starts_with(kTcp)) {
    target.kind = Kind::kTcp;
    own = probe.substr(kTcp.size());
  } else if (probe.starts_with(kHttp)) {
    target.kind = Kind::kHttp;
    const std::size_t slash = probe.find('/', kHttp.size());
    own = probe.substr(kHttp.size(), slash - kHttp.size());
    target.path = slash == std::string::npos ? "/" : probe.substr(slash);
  } else {
    return refuse("--probe", wire::text::ruby_quoted(probe) +
                                 " is no probe (allowed: http://ADDRESS/PATH, tcp://ADDRESS, tcp; "
                                 "for everything else --probe-command)");
  }
  if (own == kAddress) {
    if (address.empty()) {
      return refuse("--probe",
                    "{addr} would be the shared socket, which can't tell which worker "
                    "answered; say --probe-address (" +
                        std::string(kNames) + ")");
    }
    return target;
  }
  target.address = own;
  if (target.kind == Kind::kHttp && is_own(own) && own.find(':') == std::string::npos) {
    target.address += ":80";
  }
  if (!is_own(own)) {
    return refuse("--probe", wire::text::ruby_quoted(own) +
                                 " is the same for every worker, and a shared socket can't tell "
                                 "which one answered (" +
                                 std::string(kNames) + ")");
  }
  if (!is_address(target.address)) {
    return refuse("--probe", wire::text::ruby_quoted(own) + " is no HOST:PORT and no unix:PATH (" +
                                 std::string(kNames) + ")");
  }
  return target;
}

}  // namespace einhorn::master
