#include "intercept/rules.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>

namespace einhorn::intercept {
namespace {

using Kind = SocketAddress::Kind;

bool is_inet(const SocketAddress& address) {
  return address.kind == Kind::kInet || address.kind == Kind::kInet6;
}

bool names_host(const os::InterceptRule& rule, const SocketAddress& address) {
  if (rule.from_host.empty()) {
    return true;
  }
  SocketAddress host;
  host.kind = Kind::kInet;
  if (inet_pton(AF_INET, rule.from_host.c_str(), host.ip.data()) != 1) {
    host.kind = Kind::kInet6;
    if (inet_pton(AF_INET6, rule.from_host.c_str(), host.ip.data()) != 1) {
      return false;
    }
  }
  return as_ipv6(host) == as_ipv6(address);
}

bool names(const os::InterceptRule& rule, const SocketAddress& address) {
  switch (address.kind) {
    case Kind::kInet:
    case Kind::kInet6:
      return rule.from_port != 0 && rule.from_port == address.port && names_host(rule, address);
    case Kind::kPath:
      return rule.from_host == address.path;
    case Kind::kAbstract:
      return rule.from_host == "@" + address.path;
    case Kind::kOther:
      return false;
  }
  return false;
}

// Smaller is better; none: not this one.
std::optional<int> distance(const Wanted& wanted, const Shared& shared) {
  const SocketAddress& asked = wanted.address;
  if (!is_inet(asked)) {
    if (asked.kind == shared.address.kind && asked.path == shared.address.path) {
      return 0;
    }
    return std::nullopt;
  }
  const bool same_family = (shared.address.kind == Kind::kInet6) == wanted.inet6;
  if (as_ipv6(asked) == as_ipv6(shared.address)) {
    return 0;
  }
  if (is_wildcard(shared.address)) {
    return same_family ? 1 : 2;
  }
  return same_family ? 3 : 4;
}

Decision impossible(const Shared& shared, std::string reason) {
  Decision decision;
  decision.kind = Decision::Kind::kImpossible;
  decision.index = shared.index;
  decision.reason = std::move(reason);
  return decision;
}

// In the family that the program's socket has.
Decision give(const Wanted& wanted, const Shared& shared) {
  Decision decision;
  decision.kind = Decision::Kind::kShared;
  decision.index = shared.index;
  decision.form = own_form(shared);
  if (!is_inet(shared.address)) {
    if (is_inet(wanted.address)) {
      return impossible(shared, "it is a unix socket");
    }
    return decision;
  }
  if (!is_inet(wanted.address)) {
    return impossible(shared, "it is no unix socket");
  }
  const bool wildcard = is_wildcard(shared.address);
  if (!wanted.inet6) {
    if (shared.address.kind == Kind::kInet) {
      return decision;
    }
    const bool mapped = is_mapped(shared.address.ip);
    if (shared.v6_only || (!wildcard && !mapped)) {
      return impossible(shared, "the program asks for IPv4, and it is for IPv6 only");
    }
    decision.form = {};
    decision.form.address.kind = Kind::kInet;
    decision.form.address.port = shared.address.port;
    if (mapped) {
      std::copy_n(shared.address.ip.begin() + 12, 4, decision.form.address.ip.begin());
    }
    return decision;
  }
  if (shared.address.kind == Kind::kInet) {
    if (wanted.v6_only) {
      return impossible(shared, "the program asks for IPv6 only, and it is for IPv4");
    }
    decision.form.inet6 = true;
    decision.form.address.kind = Kind::kInet6;
    decision.form.address.ip = as_ipv6(shared.address);
    return decision;
  }
  // All addresses: of IPv6 alone, or of both, as the program says.
  if (wildcard && wanted.v6_only) {
    decision.form.v6_only = true;
  }
  return decision;
}

}  // namespace

Form own_form(const Shared& shared) {
  Form form;
  form.inet6 = shared.address.kind == Kind::kInet6;
  form.v6_only = shared.v6_only;
  form.address = shared.address;
  return form;
}

Decision decide(const Wanted& wanted, const std::vector<Shared>& shared,
                const std::vector<os::InterceptRule>& rules) {
  Wanted asked = wanted;
  const auto rule = std::find_if(rules.begin(), rules.end(), [&](const os::InterceptRule& each) {
    return names(each, wanted.address);
  });
  if (rule != rules.end() && !rule->to_name.empty()) {
    const auto named = std::find_if(shared.begin(), shared.end(), [&](const Shared& each) {
      return each.name == rule->to_name && each.datagram == wanted.datagram;
    });
    return named != shared.end() ? give(wanted, *named) : Decision{};
  }
  if (rule != rules.end() && is_inet(asked.address)) {
    asked.address.port = rule->to_port;
  }
  if (asked.address.kind == Kind::kOther || (is_inet(asked.address) && asked.address.port == 0)) {
    return {};
  }
  const Shared* best = nullptr;
  int least = 0;
  for (const Shared& each : shared) {
    if (each.datagram != asked.datagram || is_inet(each.address) != is_inet(asked.address) ||
        each.address.port != asked.address.port) {
      continue;
    }
    const std::optional<int> away = distance(asked, each);
    if (away && (best == nullptr || *away < least)) {
      best = &each;
      least = *away;
    }
  }
  if (best == nullptr) {
    return {};
  }
  Decision decision = give(asked, *best);
  // A second socket, for IPv6 only, beside a -b that is for IPv4: it is none of ours.
  if (decision.kind == Decision::Kind::kImpossible && asked.v6_only) {
    return {};
  }
  return decision;
}

}  // namespace einhorn::intercept
