// One JSON object in one line, written field by field: what the event stream is made of.
//
// Nothing is parsed, looked up or allocated but the line itself, so that a line costs about a
// microsecond. Text is written as plain JSON: bytes that are not UTF-8 become U+FFFD, control
// characters \uXXXX, everything else stands as it is.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/instant.h"

namespace einhorn::wire {

class JsonLine {
 public:
  JsonLine& field(std::string_view key, std::string_view text);
  JsonLine& field(std::string_view key, const char* text) {
    return field(key, std::string_view(text));
  }
  JsonLine& field(std::string_view key, bool value);
  JsonLine& field(std::string_view key, double) = delete;  // would be taken for a bool
  template <std::integral Integer>
  JsonLine& field(std::string_view key, Integer value) {
    this->key(key);
    out_ += std::to_string(value);
    return *this;
  }
  JsonLine& field(std::string_view key, Version version) { return field(key, version.value); }
  // In seconds, to the microsecond: 1.5, 0.000123.
  JsonLine& field(std::string_view key, Duration duration);
  // Seconds since 1970, to the microsecond.
  JsonLine& field(std::string_view key, WallTime time);
  JsonLine& null_field(std::string_view key);
  // A value that is JSON already.
  JsonLine& json(std::string_view key, std::string_view value);

  // A collection, filled between the two calls; the elements of a list come through `element`.
  JsonLine& open_list(std::string_view key);
  JsonLine& close_list();
  JsonLine& open_object(std::string_view key);
  JsonLine& open_object();  // as an element
  JsonLine& close_object();
  JsonLine& element(std::string_view text);
  JsonLine& element(std::uint64_t value);
  JsonLine& json_element(std::string_view value);

  // The object, closed, with its newline. The line is of no use afterwards.
  [[nodiscard]] std::string take();

 private:
  void separate();
  void key(std::string_view name);  // names are ours: never escaped
  void text(std::string_view bytes);
  void micros(std::int64_t nanoseconds);

  std::string out_ = "{";
};

}  // namespace einhorn::wire
