// Members of events and states, whatever else stands there.
#include "client/pool_model.h"
#include "wire/scalar_scanner.h"

namespace einhorn::client {

std::int64_t integer_of(const wire::Value& map, std::string_view key) {
  const wire::Value* value = map.find(key);
  if (value == nullptr) {
    return 0;
  }
  if (const std::int64_t* integer = value->as_integer()) {
    return *integer;
  }
  const double* real = value->as_real();
  return real != nullptr && *real > -9e18 && *real < 9e18 ? static_cast<std::int64_t>(*real) : 0;
}

double real_of(const wire::Value& map, std::string_view key) {
  const wire::Value* value = map.find(key);
  if (value == nullptr) {
    return 0;
  }
  if (const std::int64_t* integer = value->as_integer()) {
    return static_cast<double>(*integer);
  }
  const double* real = value->as_real();
  return real != nullptr ? *real : 0;
}

std::string text_of(const wire::Value& map, std::string_view key) {
  const wire::Value* value = map.find(key);
  const std::string* text = value != nullptr ? value->as_string() : nullptr;
  return text != nullptr ? *text : "";
}

bool flag_of(const wire::Value& map, std::string_view key) {
  const wire::Value* value = map.find(key);
  return value != nullptr && value->as_bool() != nullptr && *value->as_bool();
}

double time_of(const wire::Value& map, std::string_view key) {
  const std::string text = text_of(map, key);
  if (text.empty()) {
    return real_of(map, key);
  }
  // 2026-11-22T03:29:20.794054719Z
  const wire::Value scanned = wire::scan_scalar(text).value;
  const WallTime* wall = scanned.as_time();
  return wall != nullptr ? static_cast<double>(wall->nanoseconds) / 1e9 : 0;
}

}  // namespace einhorn::client
