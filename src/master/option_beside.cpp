#include "master/option_beside.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "base/numbers.h"
#include "master/option_values.h"
#include "master/shell_words.h"
#include "os/intercept.h"

namespace einhorn::master {

Status apply_intercept(Options& options, const std::string& value) {
  using Intercept = Options::Intercept;
  if (value.empty() || value == "auto") {
    options.intercept = Intercept::kAuto;
  } else if (value == "seccomp") {
    options.intercept = Intercept::kSeccomp;
  } else if (value == "preload") {
    options.intercept = Intercept::kPreload;
  } else {
    if (Result<os::InterceptRule> rule = os::parse_intercept_rule(value); !rule) {
      return rule.error();
    }
    options.settings.intercept_rules.push_back(value);
    if (options.intercept == Intercept::kOff) {
      options.intercept = Intercept::kAuto;
    }
  }
  return Ok{};
}

Status apply_listen_probe(Options& options, const std::string& value) {
  const bool printable = std::all_of(value.begin(), value.end(),
                                     [](char letter) { return letter > ' ' && letter < 0x7f; });
  if (value != "tcp" && !(value.starts_with("http:/") && printable)) {
    return wrong(value, "is no probe (allowed: tcp, http:/PATH)");
  }
  options.settings.listen_probe = value;
  return Ok{};
}

Status apply_intercept_all(Options& options, const std::string&) {
  options.settings.intercept_all = true;
  if (options.intercept == Options::Intercept::kOff) {
    options.intercept = Options::Intercept::kAuto;
  }
  return Ok{};
}

Status apply_intercept_fd(Options& options, const std::string& value) {
  Status status =
      assign(parse_integer(value, 0, std::numeric_limits<std::int32_t>::max()), options.state_fd);
  if (status) {
    options.mode = Options::Mode::kWatch;
  }
  return status;
}

Status apply_capture(Options& options, const std::string& value) {
  options.settings.capture = true;
  options.settings.capture_file = value;
  return Ok{};
}

Status apply_capture_fd(Options& options, const std::string& value) {
  Status status =
      assign(parse_integer(value, 0, std::numeric_limits<std::int32_t>::max()), options.state_fd);
  if (status) {
    options.mode = Options::Mode::kRead;
  }
  return status;
}

// HOST, HOST:PORT, [IPV6], [IPV6]:PORT, unix:/PATH; kept as einhorn-agent --listen takes it.
Status apply_agent(Options& options, const std::string& value) {
  constexpr std::string_view kPort = ":9100";
  const auto refuse = [&value] {
    return wrong(value, "is no address (allowed: HOST[:PORT], [IPV6][:PORT], unix:/PATH)");
  };
  if (value.starts_with("unix:")) {
    if (!value.starts_with("unix:/")) {
      return refuse();
    }
    options.settings.agent = value;
    return Ok{};
  }
  const std::size_t bracket = value.starts_with('[') ? value.find(']') : 0;
  if (bracket == std::string::npos) {
    return refuse();
  }
  const std::size_t colon = value.find(':', bracket);
  const std::string host = value.substr(0, colon);
  const bool bracketed = bracket > 0;
  if (host.empty() || (bracketed && host.size() != bracket + 1) ||
      host.find_first_of(" \t") != std::string::npos) {
    return refuse();
  }
  if (colon != std::string::npos && !whole_number<std::uint16_t>(value.substr(colon + 1))) {
    return refuse();
  }
  options.settings.agent =
      host + (colon == std::string::npos ? std::string(kPort) : value.substr(colon));
  return Ok{};
}

Status apply_agent_args(Options& options, const std::string& value) {
  Result<std::vector<std::string>> words = split_shell_words(value);
  if (!words) {
    return wrong(value, words.error().message());
  }
  options.settings.agent_arguments = std::move(*words);
  return Ok{};
}

// 300M, 1.5G, 1048576.
Result<std::uint64_t> parse_memory(const std::string& value) {
  constexpr double kMostBytes = 1e15;
  const std::string allowed = "(allowed: bytes, or a number with K, M, G or T, such as 300M)";
  const std::size_t unit = std::string_view("KMGT").find(value.empty() ? '\0' : value.back());
  const bool has_unit = unit != std::string_view::npos;
  const std::optional<double> number =
      whole_number<double>(std::string_view(value).substr(0, value.size() - (has_unit ? 1 : 0)));
  if (!number || !std::isfinite(*number)) {
    return wrong(value, "is no amount of memory " + allowed);
  }
  double bytes = *number;
  for (std::size_t i = 0; has_unit && i <= unit; ++i) {
    bytes *= 1024;
  }
  if (bytes < 1 || bytes > kMostBytes) {
    return wrong(value, "is out of range " + allowed);
  }
  return static_cast<std::uint64_t>(bytes);
}

Status apply_cgroup(Options& options, const std::string& value) {
  if (value != "worker" && value != "pool") {
    return wrong(value, "says not who shares a control group (allowed: worker, pool)");
  }
  options.settings.cgroup_per_worker = value == "worker";
  return Ok{};
}

Status apply_cgroup_cpu(Options& options, const std::string& value) {
  constexpr std::int64_t kMostPercent = 1'000'000;
  if (!value.ends_with('%')) {
    return wrong(value, "is no share of CPU time (allowed: percent of one CPU, such as 150%)");
  }
  return assign(parse_integer(value.substr(0, value.size() - 1), 1, kMostPercent),
                options.settings.cgroup_cpu);
}

}  // namespace einhorn::master
