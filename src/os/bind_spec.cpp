#include "os/bind_spec.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/numbers.h"

namespace einhorn::os {
namespace {

// Why something was refused; none if it was fine.
using Problem = std::optional<std::string>;

// The kinds of address an option may stand with, as bits.
enum Kind : unsigned {
  kTcpAddress = 1,
  kUdpAddress = 2,
  kSocketFile = 4,
  kAbstractName = 8,
  kHandedIn = 16,
};
constexpr unsigned kInternet = kTcpAddress | kUdpAddress;
constexpr unsigned kUnix = kSocketFile | kAbstractName;
constexpr unsigned kEverywhere = kInternet | kUnix | kHandedIn;

struct OptionRule {
  std::string_view key;
  std::string_view value;   // what the value is called in messages; empty: it takes none
  unsigned kinds;           // where it makes sense
  std::string_view reason;  // why it makes no sense elsewhere
};

constexpr std::string_view kReuseReason = "it is about binding an internet address here";
constexpr std::string_view kTcpReason = "it is for TCP";
constexpr std::string_view kFileReason = "it is about the file of a unix: socket";

constexpr std::array kRules = {
    OptionRule{"r", "", kInternet, kReuseReason},
    OptionRule{"so_reuseaddr", "", kInternet, kReuseReason},
    OptionRule{"n", "", kEverywhere, ""},
    OptionRule{"o_nonblock", "", kEverywhere, ""},
    OptionRule{"reuseport", "", kInternet, kReuseReason},
    OptionRule{"backlog", "N", kTcpAddress | kUnix | kHandedIn,
               "there are no connections to queue"},
    OptionRule{"defer", "", kTcpAddress | kHandedIn, kTcpReason},
    OptionRule{"fastopen", "N", kTcpAddress | kHandedIn, kTcpReason},
    OptionRule{"nodelay", "", kTcpAddress | kHandedIn, kTcpReason},
    OptionRule{"v6only", "", kInternet, "it is about binding an IPv6 address here"},
    OptionRule{"name", "NAME", kEverywhere, ""},
    OptionRule{"stdin", "", kEverywhere, ""},
    OptionRule{"mode", "OCTAL", kSocketFile, kFileReason},
    OptionRule{"user", "NAME", kSocketFile, kFileReason},
    OptionRule{"group", "NAME", kSocketFile, kFileReason},
};

constexpr std::size_t kMaxNameBytes = 255;  // as systemd has it for FileDescriptorName=
constexpr std::size_t kMaxHostBytes = 253;  // of the domain name system
constexpr std::uint32_t kMaxMode = 0777;
constexpr std::size_t kMaxSocketPathBytes = sizeof(sockaddr_un::sun_path) - 1;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_alphanumeric(char c) { return is_digit(c) || (to_lower(c) >= 'a' && to_lower(c) <= 'z'); }

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

bool is_control_or_space(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte <= 0x20 || byte == 0x7f;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), to_lower);
  return result;
}

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (is_control_or_space(c) && c != ' ') {
      constexpr std::string_view kHex = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(c);
      result += "\\x";
      result += kHex[byte >> 4u];
      result += kHex[byte & 15u];
    } else {
      result += c;
    }
  }
  return result + '"';
}

// Digits only, no sign, at most `most`.
std::optional<std::uint32_t> parse_number(std::string_view text, int base, std::uint32_t most) {
  const auto number = whole_number<std::uint32_t>(text, base);
  return all_digits(text) && number && *number <= most ? number : std::nullopt;
}

bool is_ipv6(std::string_view text) {
  in6_addr address{};
  return inet_pton(AF_INET6, std::string(text).c_str(), &address) == 1;
}

bool is_ipv4(std::string_view text) {
  in_addr address{};
  return inet_pton(AF_INET, std::string(text).c_str(), &address) == 1;
}

Problem parse_port(BindSpec& spec, std::string_view text) {
  constexpr std::string_view kIndex = "+index";
  if (text.ends_with(kIndex)) {
    text.remove_suffix(kIndex.size());
    spec.per_worker = true;
  }
  if (text.empty()) {
    return "the port is missing (0 lets the system choose one)";
  }
  if (!all_digits(text)) {
    return "the port " + quoted(text) + " is not a decimal number";
  }
  const auto port = parse_number(text, 10, std::numeric_limits<std::uint16_t>::max());
  if (!port) {
    return "the port " + quoted(text) + " is not in 0..65535";
  }
  spec.port = static_cast<std::uint16_t>(*port);
  return std::nullopt;
}

// A name whose last label looks like a number would be read as an IPv4 address in one of the forms
// of old ("127.1", "0x7f.1"); those are refused, so that nothing binds an address nobody meant.
bool looks_like_ipv4(std::string_view host) {
  const std::string_view last = host.substr(host.rfind('.') + 1);
  return all_digits(last) || lower(last.substr(0, 2)) == "0x";
}

Problem check_host(std::string_view host) {
  if (host.size() > kMaxHostBytes) {
    return "the host name is longer than " + std::to_string(kMaxHostBytes) + " bytes";
  }
  const auto fits = [](char c) { return is_alphanumeric(c) || c == '-' || c == '_' || c == '.'; };
  if (!std::all_of(host.begin(), host.end(), fits)) {
    return quoted(host) + " is neither an address nor a host name";
  }
  if (host.front() == '.' || host.find("..") != std::string_view::npos) {
    return "the host name " + quoted(host) + " has an empty part";
  }
  if (looks_like_ipv4(host) && !is_ipv4(host)) {
    return quoted(host) + " is not an IPv4 address";
  }
  return std::nullopt;
}

Problem parse_bracketed(BindSpec& spec, std::string_view address) {
  const std::size_t close = address.find(']');
  if (close == std::string_view::npos) {
    return "the bracket is not closed; an IPv6 address looks like [::1]:80";
  }
  const std::string_view literal = address.substr(1, close - 1);
  const std::string_view rest = address.substr(close + 1);
  const std::size_t percent = literal.find('%');
  const std::string_view zone =
      percent == std::string_view::npos ? std::string_view{} : literal.substr(percent + 1);
  const bool zone_is_bad = percent != std::string_view::npos &&
                           (zone.empty() || zone.find_first_of("%[/") != std::string_view::npos);
  if (!is_ipv6(literal.substr(0, percent)) || zone_is_bad) {
    return quoted(literal) + " is not an IPv6 address; brackets are for those only";
  }
  if (!rest.empty() && rest.front() != ':') {
    return "behind the bracket comes :PORT, not " + quoted(rest);
  }
  spec.host = literal;
  return parse_port(spec, rest.empty() ? rest : rest.substr(1));
}

Problem parse_inet(BindSpec& spec, std::string_view address) {
  spec.family = BindSpec::Family::kInet;
  if (address.empty()) {
    return "the address is empty";
  }
  if (address.front() == '[') {
    return parse_bracketed(spec, address);
  }
  const std::size_t colon = address.find(':');
  if (colon == std::string_view::npos) {
    if (all_digits(address)) {
      return parse_port(spec, address);
    }
    return "the port is missing; it looks like HOST:PORT";
  }
  if (address.find(':', colon + 1) != std::string_view::npos) {
    if (address.find("://") != std::string_view::npos) {
      return "this is a URL; an address looks like HOST:PORT or unix:/PATH";
    }
    return "too many colons; an IPv6 address needs brackets, as in [::1]:80";
  }
  const std::string_view host = address.substr(0, colon);
  if (!host.empty() && host != "*") {
    if (Problem problem = check_host(host)) {
      return problem;
    }
    spec.host = host;
  }
  return parse_port(spec, address.substr(colon + 1));
}

Problem parse_unix(BindSpec& spec, std::string_view path) {
  spec.family = BindSpec::Family::kUnix;
  if (path.empty() || (path.front() != '/' && path.front() != '@')) {
    return "behind unix: comes an absolute path or @NAME";
  }
  if (path == "@" || path == "/") {
    return "the path behind unix: names no socket";
  }
  // An abstract name has a zero byte in the place of its @ and no zero at its end.
  const std::size_t most = path.front() == '@' ? kMaxSocketPathBytes + 1 : kMaxSocketPathBytes;
  if (path.size() > most) {
    return "the path has " + std::to_string(path.size()) + " bytes; a unix socket's has at most " +
           std::to_string(most);
  }
  if (path.back() == '/') {
    return "the path ends in a slash";
  }
  spec.host = path;
  return std::nullopt;
}

// A name must survive LISTEN_FDNAMES (joined by colons) and {fd:NAME}, and not look like a number.
Problem check_name(std::string_view name) {
  if (name.size() > kMaxNameBytes) {
    return "the name is longer than " + std::to_string(kMaxNameBytes) + " bytes";
  }
  const auto fits = [](char c) {
    return c > ' ' && c < '\x7f' && c != ':' && c != '{' && c != '}';
  };
  if (!std::all_of(name.begin(), name.end(), fits)) {
    return "the name " + quoted(name) +
           " has other characters than printable ASCII without : { and }";
  }
  if (all_digits(name)) {
    return "the name " + quoted(name) + " is a number; a name needs another character";
  }
  return std::nullopt;
}

Problem parse_inherited(BindSpec& spec, std::string_view which) {
  spec.family = BindSpec::Family::kInherited;
  if (which.empty()) {
    return "behind fd: comes a descriptor's number or a name of LISTEN_FDNAMES";
  }
  spec.host = which;
  if (all_digits(which)) {
    constexpr auto kMost = static_cast<std::uint32_t>(std::numeric_limits<int>::max());
    if (!parse_number(which, 10, kMost)) {
      return quoted(which) + " is not a descriptor's number";
    }
    return std::nullopt;
  }
  return check_name(which);
}

Problem parse_address(BindSpec& spec, std::string_view address) {
  if (address.starts_with("unix:")) {
    return parse_unix(spec, address.substr(5));
  }
  if (address.starts_with("fd:")) {
    return parse_inherited(spec, address.substr(3));
  }
  if (address.starts_with("udp:")) {
    spec.protocol = BindSpec::Protocol::kUdp;
    const std::string_view rest = address.substr(4);
    if (rest.starts_with("unix:") || rest.starts_with("fd:") || rest.starts_with("udp:")) {
      return "behind udp: comes HOST:PORT or PORT, not " + quoted(rest);
    }
    return parse_inet(spec, rest);
  }
  return parse_inet(spec, address);
}

Kind kind_of(const BindSpec& spec) {
  switch (spec.family) {
    case BindSpec::Family::kInet:
      return spec.protocol == BindSpec::Protocol::kUdp ? kUdpAddress : kTcpAddress;
    case BindSpec::Family::kUnix:
      return spec.host.front() == '@' ? kAbstractName : kSocketFile;
    case BindSpec::Family::kInherited:
      return kHandedIn;
  }
  return kHandedIn;
}

std::string_view describe(Kind kind) {
  switch (kind) {
    case kTcpAddress:
      return "a TCP address";
    case kUdpAddress:
      return "a UDP address";
    case kSocketFile:
      return "a unix socket";
    case kAbstractName:
      return "an abstract unix socket";
    case kHandedIn:
      return "a socket that is handed in";
  }
  return "this address";
}

std::string written(const OptionRule& rule) {
  std::string text(rule.key);
  if (!rule.value.empty()) {
    text += '=';
    text += rule.value;
  }
  return text;
}

std::string allowed_options() {
  std::string list;
  for (const OptionRule& rule : kRules) {
    list += list.empty() ? "" : ", ";
    list += written(rule);
  }
  return list;
}

Problem set_number(std::optional<int>& target, std::string_view key, std::string_view value) {
  const auto number = parse_number(value, 10, 65535);
  if (!number || *number == 0) {
    return std::string(key) + "=" + std::string(value) + ": must be a number in 1..65535";
  }
  target = static_cast<int>(*number);
  return std::nullopt;
}

Problem set_valued(BindSpec& spec, std::string_view key, std::string_view value) {
  if (key == "backlog") {
    return set_number(spec.backlog, key, value);
  }
  if (key == "fastopen") {
    return set_number(spec.fast_open, key, value);
  }
  if (key == "mode") {
    spec.mode = parse_number(value, 8, kMaxMode);
    return spec.mode ? Problem{}
                     : "mode=" + std::string(value) + ": must be an octal number up to 0777";
  }
  if (key == "name") {
    spec.name = value;
    return check_name(value);
  }
  (key == "user" ? spec.user : spec.group) = value;
  return std::nullopt;
}

void set_flag(BindSpec& spec, std::string_view key) {
  if (key == "r" || key == "so_reuseaddr") {
    spec.reuse_address = true;
  } else if (key == "n" || key == "o_nonblock") {
    spec.nonblock = true;
  } else if (key == "reuseport") {
    spec.reuse_port = true;
  } else if (key == "defer") {
    spec.defer_accept = true;
  } else if (key == "nodelay") {
    spec.no_delay = true;
  } else if (key == "stdin") {
    spec.as_stdin = true;
  } else {
    spec.v6_only = true;
  }
}

bool has_flag_with_key(const BindSpec& spec, std::string_view key) {
  return std::any_of(spec.flags.begin(), spec.flags.end(), [key](const std::string& flag) {
    return flag.starts_with(key) && flag.substr(key.size()).starts_with('=');
  });
}

Problem parse_option(BindSpec& spec, std::string_view option) {
  if (option.empty()) {
    return "an option is empty; there is a comma too many";
  }
  const std::size_t equals = option.find('=');
  const bool has_value = equals != std::string_view::npos;
  const std::string key = lower(option.substr(0, equals));
  const std::string_view value = has_value ? option.substr(equals + 1) : std::string_view{};

  const auto rule = std::find_if(kRules.begin(), kRules.end(),
                                 [&key](const OptionRule& r) { return r.key == key; });
  if (rule == kRules.end()) {
    return "unknown option " + quoted(option) + "; allowed are " + allowed_options();
  }
  if (rule->value.empty() && has_value) {
    return "option " + quoted(key) + " takes no value";
  }
  if (!rule->value.empty() && value.empty()) {
    return "option " + quoted(key) + " needs a value: " + written(*rule);
  }
  const Kind kind = kind_of(spec);
  if ((rule->kinds & kind) == 0) {
    return "option " + quoted(key) + " makes no sense for " + std::string(describe(kind)) + ": " +
           std::string(rule->reason);
  }
  if (key == "v6only" && spec.host.find(':') == std::string::npos) {
    return R"(option "v6only" makes no sense without an IPv6 address, as in [::]:80)";
  }
  if (has_value && has_flag_with_key(spec, key)) {
    return "option " + quoted(key) + " is given twice";
  }
  spec.flags.push_back(has_value ? key + "=" + std::string(value) : key);
  if (has_value) {
    return set_valued(spec, key, value);
  }
  set_flag(spec, key);
  return std::nullopt;
}

// `rn` and `nr` are both letters at once.
Problem parse_options(BindSpec& spec, std::string_view options) {
  while (true) {
    const std::size_t comma = options.find(',');
    const std::string_view option = options.substr(0, comma);
    const std::string key = lower(option);
    if (key == "rn" || key == "nr") {
      for (const char letter : key) {
        if (Problem problem = parse_option(spec, std::string_view(&letter, 1))) {
          return problem;
        }
      }
    } else if (Problem problem = parse_option(spec, option)) {
      return problem;
    }
    if (comma == std::string_view::npos) {
      return std::nullopt;
    }
    options.remove_prefix(comma + 1);
  }
}

Problem parse_all(BindSpec& spec, std::string_view text) {
  if (text.empty()) {
    return "the address is empty; it looks like 127.0.0.1:80, :80, unix:/path, udp:PORT or fd:3";
  }
  if (std::any_of(text.begin(), text.end(), is_control_or_space)) {
    return "white space and control characters are not allowed";
  }
  const std::size_t comma = text.find(',');
  if (Problem problem = parse_address(spec, text.substr(0, comma))) {
    return problem;
  }
  if (comma == std::string_view::npos) {
    return std::nullopt;
  }
  return parse_options(spec, text.substr(comma + 1));
}

// Workers' own sockets are opened while the pool runs, which waits for no lookup of a name.
Problem check_per_worker(const BindSpec& spec) {
  if (!spec.per_worker) {
    return std::nullopt;
  }
  const bool is_address =
      spec.host.empty() || is_ipv4(spec.host) || spec.host.find(':') != std::string::npos;
  if (spec.protocol == BindSpec::Protocol::kUdp) {
    return "+index is not for udp:";
  }
  if (spec.port == 0) {
    return "+index needs a port, 1 or higher";
  }
  if (!is_address) {
    return "+index needs an address, not the name " + quoted(spec.host);
  }
  return std::nullopt;
}

Problem parse_and_check(BindSpec& spec, std::string_view text) {
  Problem problem = parse_all(spec, text);
  return problem ? problem : check_per_worker(spec);
}

}  // namespace

Result<BindSpec> parse_bind_spec(std::string_view text) {
  BindSpec spec;
  spec.text = text;
  if (Problem problem = parse_and_check(spec, text)) {
    const bool plain = !text.empty() && std::none_of(text.begin(), text.end(), is_control_or_space);
    return make_error("-b " + (plain ? spec.text : quoted(text)), std::move(*problem));
  }
  return spec;
}

std::optional<SrvArgument> find_srv_argument(std::string_view argument) {
  constexpr std::string_view kMark = "srv:";
  const std::size_t equals = argument.rfind("=srv:");
  std::size_t start = 0;
  if (equals != std::string_view::npos) {
    start = equals + 1;
  } else if (!argument.starts_with(kMark)) {
    return std::nullopt;
  }
  const std::string_view spec = argument.substr(start + kMark.size());
  if (std::any_of(spec.begin(), spec.end(), is_control_or_space)) {
    return std::nullopt;
  }
  const std::string_view address = spec.substr(0, spec.find(','));
  const std::size_t colon = address.rfind(':');
  const bool ends_in_port =
      all_digits(colon == std::string_view::npos ? address : address.substr(colon + 1));
  if (!ends_in_port && !address.starts_with("unix:/") && !address.starts_with("unix:@") &&
      !(address.starts_with("fd:") && address.size() > 3)) {
    return std::nullopt;
  }
  return SrvArgument{std::string(argument.substr(0, start)), std::string(spec)};
}

}  // namespace einhorn::os
