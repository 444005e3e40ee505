#include "master/option_values.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "base/numbers.h"
#include "master/expression.h"
#include "os/cpus.h"
#include "wire/text.h"

namespace einhorn::master {
namespace {

constexpr double kMostSeconds = 1e9;

bool is_whole_number(std::string_view text) {
  if (text.starts_with('-')) {
    text.remove_prefix(1);
  }
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

Error wrong(const std::string& value, const std::string& why) {
  return make_error("", wire::text::ruby_quoted(value) + ' ' + why);
}

Result<std::int64_t> parse_integer(const std::string& value, std::int64_t least,
                                   std::int64_t most) {
  const std::string allowed =
      "(allowed: " + std::to_string(least) + " to " + std::to_string(most) + ")";
  if (!is_whole_number(value)) {
    return wrong(value, "is not a whole number " + allowed);
  }
  const std::optional<std::int64_t> number = whole_number<std::int64_t>(value);
  if (!number || *number < least || *number > most) {
    return wrong(value, "is out of range " + allowed);
  }
  return *number;
}

Result<std::int64_t> parse_count(const std::string& value) {
  if (!is_expression(value)) {
    return parse_integer(value, 1, limits::kMaxWorkers);
  }
  Result<std::int64_t> number = evaluate(value, os::usable_cpus());
  if (number && (*number < 1 || *number > limits::kMaxWorkers)) {
    return wrong(value, "is " + std::to_string(*number) +
                            " here, which is out of range (allowed: 1 to " +
                            std::to_string(limits::kMaxWorkers) + ")");
  }
  return number;
}

std::vector<std::string> split_list(const std::string& value) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  while (true) {
    const std::size_t end = std::min(value.find(',', start), value.size());
    parts.push_back(value.substr(start, end - start));
    if (end == value.size()) {
      return parts;
    }
    start = end + 1;
  }
}

Result<Duration> parse_seconds(const std::string& value, Zero zero) {
  const std::string allowed = std::string("(allowed: ") +
                              (zero == Zero::kAllowed ? "0" : "more than 0") +
                              " to 1000000000 seconds)";
  const std::optional<double> seconds = whole_number<double>(value);
  if (!seconds || !std::isfinite(*seconds)) {
    return wrong(value, "is not a number " + allowed);
  }
  // Less than a nanosecond is nothing.
  const Duration duration = from_seconds(*seconds + 0.5e-9);
  const bool too_small =
      std::signbit(*seconds) || (zero == Zero::kRefused && duration == Duration::zero());
  if (too_small || *seconds > kMostSeconds) {
    return wrong(value, "is out of range " + allowed);
  }
  return duration;
}

}  // namespace einhorn::master
