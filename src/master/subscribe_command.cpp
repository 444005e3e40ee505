// The `subscribe` command: what a client may ask of the event stream.
#include <cmath>

#include "base/limits.h"
#include "base/numbers.h"
#include "master/commands.h"

namespace einhorn::master {
namespace {

Error wrong(std::string_view key, const wire::Value& value, std::string_view allowed) {
  return make_error("subscribe", std::string(key) + " is " + value.inspect() + "; it must be " +
                                     std::string(allowed));
}

Status take_since(EventStream::Wish& wish, const wire::Value& value) {
  constexpr std::string_view kAllowed = "the number of an event: an integer from 0 on";
  if (const std::int64_t* number = value.as_integer(); number != nullptr && *number >= 0) {
    wish.since = static_cast<std::uint64_t>(*number);
    return Ok{};
  }
  const std::string* text = value.as_string();
  const auto number = whole_number<std::uint64_t>(text != nullptr ? *text : "");
  if (!number) {
    return wrong("since", value, kAllowed);
  }
  wish.since = *number;
  return Ok{};
}

Status take_sample(EventStream::Wish& wish, const wire::Value& value) {
  double seconds = -1;
  if (const std::int64_t* integer = value.as_integer()) {
    seconds = static_cast<double>(*integer);
  } else if (const double* real = value.as_real()) {
    seconds = *real;
  } else if (const std::string* text = value.as_string(); text != nullptr) {
    seconds = whole_number<double>(*text).value_or(-1);
  }
  if (!std::isfinite(seconds) || (seconds != 0 && seconds < limits::kLeastSampleInterval) ||
      seconds > limits::kMostSampleInterval) {
    return wrong("sample", value, "the seconds between samples: 0 (none), or from 0.1 to 3600");
  }
  wish.interval = from_seconds(seconds);
  return Ok{};
}

Status take(EventStream::Wish& wish, std::string_view key, const wire::Value& value) {
  if (key == "since") {
    return take_since(wish, value);
  }
  if (key == "sample") {
    return take_sample(wish, value);
  }
  const std::string* text = value.as_string();
  if (text == nullptr) {
    return wrong("stream", value, "the name of a stream, as its snapshot gives it");
  }
  wish.stream = *text;
  return Ok{};
}

}  // namespace

Commands::Answer Commands::subscribe(Call& call) {
  EventStream::Wish wish;
  for (const std::string_view key : {"since", "stream", "sample"}) {
    const wire::Value* value = call.request.document.find(key);
    if (value == nullptr || value->is_null()) {
      continue;
    }
    if (Status taken = take(wish, key, *value); !taken) {
      return error(taken.error().message());
    }
  }
  static_cast<void>(check_args(call));
  for (const std::string& arg : call.args) {
    const std::size_t equals = std::min(arg.find('='), arg.size());
    const std::string key = arg.substr(0, equals);
    if (equals == arg.size() || (key != "since" && key != "stream" && key != "sample")) {
      return error("subscribe takes since=NUMBER, stream=NAME and sample=SECONDS, and not " +
                   wire::Value(arg).inspect());
    }
    if (Status taken = take(wish, key, wire::Value(arg.substr(equals + 1))); !taken) {
      return error(taken.error().message());
    }
  }
  if (!target_.subscribe(call.server, call.connection, wish, call.request)) {
    return error("Too many subscribers: " + std::to_string(limits::kMaxEventSubscribers) +
                 " are the most");
  }
  return {std::nullopt};
}

}  // namespace einhorn::master
