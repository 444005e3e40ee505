#include "wire/json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <exception>

#include <nlohmann/json.hpp>

#include "wire/text.h"

namespace einhorn::wire {
namespace {

using Json = nlohmann::json;

// Builds the Value while nlohmann's parser, which keeps its own stack, reports tokens. A callback
// that returns false ends the parsing; `problem_` then says why.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const YamlLimits& limits) : limits_(limits) {}

  bool null() override { return add(Value()); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(std::int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    constexpr auto kMost = static_cast<number_unsigned_t>(INT64_MAX);
    return value <= kMost ? add(static_cast<std::int64_t>(value)) : add(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return fits(value) && add(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary data"); }
  bool start_object(std::size_t) override { return open(Map{}); }
  bool key(string_t& value) override {
    if (!fits(value) || !count()) {
      return false;
    }
    stack_.back().key = std::move(value);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(List{}); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
    return fail("not JSON at byte " + std::to_string(position));
  }

  [[nodiscard]] const std::string& problem() const { return problem_; }
  [[nodiscard]] Value take() { return std::move(document_); }

 private:
  struct Open {
    Value collection;
    std::string key;  // of the member that comes next, in a map
  };

  bool fail(std::string why) {
    if (problem_.empty()) {
      problem_ = std::move(why);
    }
    return false;
  }
  bool count() { return ++nodes_ <= limits_.nodes || fail("too many nodes"); }
  bool fits(const std::string& text) {
    return text.size() <= limits_.scalar_bytes || fail("a string is too long");
  }

  bool add(Value value) { return count() && place(std::move(value)); }

  bool place(Value value) {
    if (stack_.empty()) {
      document_ = std::move(value);
      return true;
    }
    Open& parent = stack_.back();
    if (Map* map = parent.collection.as_map(); map != nullptr) {
      put(*map, std::move(parent.key), std::move(value));
    } else if (List* list = parent.collection.as_list(); list != nullptr) {
      list->push_back(std::move(value));
    }
    return true;
  }

  bool open(Value collection) {
    if (stack_.size() >= static_cast<std::size_t>(limits_.nesting)) {
      return fail("nested too deeply");
    }
    stack_.push_back({std::move(collection), {}});
    return count();
  }

  bool close() {
    Value collection = std::move(stack_.back().collection);
    stack_.pop_back();
    return place(std::move(collection));
  }

  const YamlLimits& limits_;
  std::vector<Open> stack_;
  std::size_t nodes_ = 0;
  Value document_;
  std::string problem_;
};

class Writer {
 public:
  std::string take() { return std::move(out_); }

  void visit(const Value& value) {
    std::visit([this](const auto& held) { write(held); }, value.storage());
  }

 private:
  void write(const Null&) { out_ += "null"; }
  void write(bool value) { out_ += value ? "true" : "false"; }
  void write(std::int64_t value) { out_ += std::to_string(value); }
  void write(double value) {
    if (!std::isfinite(value)) {
      out_ += "null";
      return;
    }
    std::string digits = text::ruby_real(value);
    if (digits.find("e+") != std::string::npos) {
      // A whole number. A `+` may not be written, and to YAML a number with an exponent but without
      // its sign is text.
      std::array<char, 512> buffer{};
      const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                     std::chars_format::fixed);
      digits.assign(buffer.data(), end.ptr);
      digits += ".0";
    }
    out_ += digits;
  }
  void write(const std::string& value) { write_string(value); }
  void write(const Symbol& value) { write_string(value.name); }
  void write(const WallTime& value) {
    const text::CivilTime civil = text::to_civil(value);
    out_ += '"' + text::civil_date(civil) + 'T' + text::civil_clock(civil) + '.' +
            text::civil_fraction(civil) + "Z\"";
  }
  void write(const List& value) {
    out_ += '[';
    const char* separator = "";
    for (const Value& element : value) {
      out_ += separator;
      visit(element);
      separator = ",";
    }
    out_ += ']';
  }
  void write(const Set& value) { write(value.elements); }
  void write(const Map& value) {
    out_ += '{';
    const char* separator = "";
    for (const auto& [key, member] : value) {
      out_ += separator;
      write_key(key);
      out_ += ':';
      visit(member);
      separator = ",";
    }
    out_ += '}';
  }

  void write_key(const Value& key) {
    if (const std::string* text = key.as_string()) {
      write_string(*text);
    } else if (const Symbol* symbol = key.as_symbol()) {
      write_string(symbol->name);
    } else if (key.as_time() != nullptr) {
      visit(key);
    } else {
      write_string(key.inspect());
    }
  }

  void write_string(std::string_view bytes) {
    out_ += '"';
    for (std::size_t at = 0; at < bytes.size();) {
      const text::CodePoint point = text::decode_utf8(bytes, at);
      if (point.code >= 0x10000 && point.code != text::CodePoint::kInvalid) {
        out_ += bytes.substr(at, point.bytes);
      } else {
        write_character(point.code == text::CodePoint::kInvalid ? 0xfffd : point.code);
      }
      at += point.bytes;
    }
    out_ += '"';
  }

  void write_character(std::uint32_t code) {
    constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t";
    constexpr std::string_view kLetters = "\"\\bfnrt";
    const std::size_t escape =
        code < 0x80 ? kEscaped.find(static_cast<char>(code)) : std::string_view::npos;
    if (escape != std::string_view::npos) {
      out_ += {'\\', kLetters[escape]};
    } else if (code < 0x20 || code > 0x7e || code == '%' || code == '+') {
      write_unit(code);
    } else {
      out_ += static_cast<char>(code);
    }
  }

  void write_unit(std::uint32_t unit) {
    constexpr std::string_view kHex = "0123456789abcdef";
    out_ += "\\u";
    for (const unsigned shift : {12U, 8U, 4U, 0U}) {
      out_ += kHex[(unit >> shift) & 15U];
    }
  }

  std::string out_;
};

}  // namespace

Result<Value> parse_json(std::string_view text, const YamlLimits& limits) {
  // nlohmann takes a NUL for the end of its input.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return make_error("parse JSON", "a NUL at byte " + std::to_string(nul + 1));
  }
  Builder builder(limits);
  try {
    if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
      return make_error("parse JSON", builder.problem());
    }
  } catch (const std::exception& exception) {
    return make_error("parse JSON", exception.what());
  }
  return builder.take();
}

std::string encode_json(const Value& value) {
  Writer writer;
  writer.visit(value);
  return writer.take();
}

}  // namespace einhorn::wire
