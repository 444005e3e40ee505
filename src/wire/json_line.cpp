#include "wire/json_line.h"

#include "wire/text.h"

namespace einhorn::wire {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

bool is_plain(char letter) {
  const auto code = static_cast<unsigned char>(letter);
  return code >= 0x20 && code < 0x7f && letter != '"' && letter != '\\';
}

}  // namespace

void JsonLine::separate() {
  if (const char last = out_.back(); last != '{' && last != '[') {
    out_ += ',';
  }
}

void JsonLine::key(std::string_view name) {
  separate();
  out_ += '"';
  out_ += name;
  out_ += "\":";
}

void JsonLine::text(std::string_view bytes) {
  out_ += '"';
  for (std::size_t at = 0; at < bytes.size();) {
    if (is_plain(bytes[at])) {
      out_ += bytes[at++];
      continue;
    }
    const text::CodePoint point = text::decode_utf8(bytes, at);
    if (point.code == text::CodePoint::kInvalid) {
      out_ += "\xef\xbf\xbd";
    } else if (point.code == '"' || point.code == '\\') {
      out_ += '\\';
      out_ += bytes[at];
    } else if (point.code < 0x20 || point.code == 0x7f) {
      out_ += "\\u00";
      out_ += kHex[point.code >> 4U];
      out_ += kHex[point.code & 15U];
    } else {
      out_ += bytes.substr(at, point.bytes);
    }
    at += point.bytes;
  }
  out_ += '"';
}

void JsonLine::micros(std::int64_t nanoseconds) {
  std::int64_t micros = nanoseconds / 1000;
  if (micros < 0) {
    out_ += '-';
    micros = -micros;
  }
  out_ += std::to_string(micros / 1'000'000);
  if (const std::int64_t rest = micros % 1'000'000; rest != 0) {
    std::string digits = std::to_string(rest);
    digits.insert(0, 6 - digits.size(), '0');
    digits.erase(digits.find_last_not_of('0') + 1);
    out_ += '.';
    out_ += digits;
  }
}

JsonLine& JsonLine::field(std::string_view key, std::string_view text) {
  this->key(key);
  this->text(text);
  return *this;
}

JsonLine& JsonLine::field(std::string_view key, bool value) {
  this->key(key);
  out_ += value ? "true" : "false";
  return *this;
}

JsonLine& JsonLine::field(std::string_view key, Duration duration) {
  this->key(key);
  micros(duration.count());
  return *this;
}

JsonLine& JsonLine::field(std::string_view key, WallTime time) {
  this->key(key);
  micros(time.nanoseconds);
  return *this;
}

JsonLine& JsonLine::null_field(std::string_view key) {
  this->key(key);
  out_ += "null";
  return *this;
}

JsonLine& JsonLine::json(std::string_view key, std::string_view value) {
  this->key(key);
  out_ += value;
  return *this;
}

JsonLine& JsonLine::open_list(std::string_view key) {
  this->key(key);
  out_ += '[';
  return *this;
}

JsonLine& JsonLine::close_list() {
  out_ += ']';
  return *this;
}

JsonLine& JsonLine::open_object(std::string_view key) {
  this->key(key);
  out_ += '{';
  return *this;
}

JsonLine& JsonLine::open_object() {
  separate();
  out_ += '{';
  return *this;
}

JsonLine& JsonLine::close_object() {
  out_ += '}';
  return *this;
}

JsonLine& JsonLine::element(std::string_view text) {
  separate();
  this->text(text);
  return *this;
}

JsonLine& JsonLine::element(std::uint64_t value) {
  separate();
  out_ += std::to_string(value);
  return *this;
}

JsonLine& JsonLine::json_element(std::string_view value) {
  separate();
  out_ += value;
  return *this;
}

std::string JsonLine::take() {
  out_ += "}\n";
  return std::move(out_);
}

}  // namespace einhorn::wire
