// The `config` command: changing options of a running pool.
#include <cmath>
#include <functional>

#include "base/limits.h"
#include "base/signals.h"
#include "master/commands.h"
#include "wire/yaml.h"

namespace einhorn::master {
namespace {

std::optional<double> as_number(const wire::Value& value) {
  if (const std::int64_t* integer = value.as_integer()) {
    return static_cast<double>(*integer);
  }
  if (const double* real = value.as_real()) {
    return *real;
  }
  return std::nullopt;
}

Error wrong(std::string_view key, const wire::Value& value, std::string_view allowed) {
  return make_error("Invalid value for config key '" + std::string(key) + "': " + value.inspect(),
                    "must be " + std::string(allowed));
}

Status set_duration(std::optional<Duration>& into, std::string_view key, const wire::Value& value,
                    double least) {
  if (value.is_null()) {
    into.reset();
    return Ok{};
  }
  const std::optional<double> number = as_number(value);
  if (!number || !std::isfinite(*number) || *number < least) {
    return wrong(key, value, "a number of seconds, at least " + std::to_string(least));
  }
  into = from_seconds(*number);
  return Ok{};
}

Status set_count(std::uint32_t& into, std::string_view key, const wire::Value& value,
                 std::int64_t least) {
  const std::int64_t* number = value.as_integer();
  if (number == nullptr || *number < least || *number >= limits::kMaxWorkers) {
    return wrong(key, value,
                 "an integer from " + std::to_string(least) + " to " +
                     std::to_string(limits::kMaxWorkers - 1));
  }
  into = static_cast<std::uint32_t>(*number);
  return Ok{};
}

Status set_plain_duration(Duration& into, std::string_view key, const wire::Value& value) {
  std::optional<Duration> duration;
  if (Status set = set_duration(duration, key, value, 0.0); !set) {
    return set;
  }
  if (!duration) {
    return wrong(key, value, "a number of seconds");
  }
  into = *duration;
  return Ok{};
}

}  // namespace

Status merge_config(pool::Config& config, std::string_view key, const wire::Value& value) {
  constexpr double kLeastSeconds = 0.001;
  if (key == "number") {
    return set_count(config.number, key, value, 1);
  }
  if (key == "seconds") {
    return set_duration(config.seconds, key, value, kLeastSeconds);
  }
  if (key == "max_unacked") {
    config.max_unacked_given = true;
    return set_count(config.max_unacked, key, value, 1);
  }
  if (key == "max_upgrade_additional") {
    if (value.is_null()) {
      config.max_upgrade_additional.reset();
      return Ok{};
    }
    std::uint32_t count = 0;
    Status set = set_count(count, key, value, 0);
    if (set) {
      config.max_upgrade_additional = count;
    }
    return set;
  }
  if (key == "signal_timeout") {
    return set_duration(config.signal_timeout, key, value, kLeastSeconds);
  }
  if (key == "drain_timeout") {
    return set_duration(config.drain_timeout, key, value, kLeastSeconds);
  }
  if (key == "upgrade_timeout") {
    return set_duration(config.upgrade_timeout, key, value, kLeastSeconds);
  }
  if (key == "ack_timeout") {
    return set_plain_duration(config.ack_timeout, key, value);
  }
  if (key == "canary_seconds") {
    return set_plain_duration(config.canary_seconds, key, value);
  }
  if (key == "give_up") {
    return set_count(config.give_up, key, value, 0);
  }
  if (key == "canary") {
    return set_count(config.canary, key, value, 0);
  }
  if (key == "upgrade_failures") {
    return set_count(config.upgrade_failures, key, value, 0);
  }
  if (key == "stop_signal") {
    const std::string* name = value.as_string();
    const std::optional<int> number = name != nullptr ? parse_signal(*name) : std::nullopt;
    if (!number) {
      return wrong(key, value, "the name of a signal, such as USR2 or TERM");
    }
    config.stop_signal = *number;
    return Ok{};
  }
  return make_error("Unknown config key '" + std::string(key) + "'",
                    "known are: number, seconds, max_unacked, max_upgrade_additional, "
                    "signal_timeout, drain_timeout, ack_timeout, give_up, stop_signal, canary, "
                    "canary_seconds, upgrade_failures, upgrade_timeout, verbosity");
}

Commands::Answer Commands::config(Call& call) {
  if (auto wrong_args = check_args(call)) {
    return *wrong_args;
  }
  if (call.args.empty()) {
    return error("Must pass in a YAML-encoded hash");
  }
  std::string text;
  for (const std::string& arg : call.args) {
    text += (text.empty() ? "" : " ") + arg;  // joined, so that nobody needs to quote
  }
  Result<wire::Value> parsed = wire::parse_yaml(text);
  if (!parsed) {
    return error("Could not parse argument. Must be a YAML-encoded hash");
  }
  const wire::Map* map = parsed->as_map();
  if (map == nullptr) {
    return error("Parsed argument is a " + std::string(parsed->ruby_class()) + ", not a hash");
  }
  pool::Config changed = target_.pool().config();
  std::optional<std::int32_t> verbosity;
  // One level of :config, as in `state`, or the keys themselves; symbols or strings.
  const std::function<Status(const wire::Map&)> merge = [&](const wire::Map& members) -> Status {
    for (const auto& [key, value] : members) {
      const std::string name = key.as_symbol() != nullptr   ? key.as_symbol()->name
                               : key.as_string() != nullptr ? *key.as_string()
                                                            : key.inspect();
      if (name == "config" && value.as_map() != nullptr && &members == map) {
        if (Status inner = merge(*value.as_map()); !inner) {
          return inner;
        }
        continue;
      }
      if (name == "verbosity") {
        const std::int64_t* level = value.as_integer();
        if (level == nullptr || *level < 0 || *level > 2) {
          return wrong(name, value, "0 (debug), 1 (info) or 2 (errors)");
        }
        verbosity = static_cast<std::int32_t>(*level);
        continue;
      }
      if (Status merged = merge_config(changed, name, value); !merged) {
        return merged;
      }
    }
    return Ok{};
  };
  if (Status merged = merge(*map); !merged) {
    return error(merged.error().message());
  }
  if (const std::string outside = outside_of_scaling(changed.number);
      changed.number != target_.pool().config().number && !outside.empty()) {
    return error(outside);
  }
  if (verbosity) {
    target_.set_verbosity(*verbosity);
  }
  target_.apply(pool::event::Reconfigured{changed});
  return {"Successfully merged in config: " + parsed->inspect()};
}

}  // namespace einhorn::master
