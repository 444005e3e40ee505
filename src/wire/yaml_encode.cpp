// Writes what Psych writes. Psych only chooses a style for each scalar; which style can be kept,
// where lines are folded and what is indented is libyaml's doing, there as here.
#include <yaml.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "wire/scalar_scanner.h"
#include "wire/text.h"
#include "wire/yaml.h"

namespace einhorn::wire {
namespace {

// How a scalar may be written: `plain` and `quoted` say whether its kind can still be told when it
// has no tag.
struct Spelling {
  const char* tag = nullptr;
  bool plain = true;
  bool quoted = false;
  yaml_scalar_style_t style = YAML_ANY_SCALAR_STYLE;
};

// Whether some line begins with other than a word character and ends before the next `"`.
// Ruby: /^[^[:word:]][^"]*$/
bool has_line_of_other_start(std::string_view text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (at > 0 && text[at - 1] != '\n') {
      continue;
    }
    const text::CodePoint point = text::decode_utf8(text, at);
    if (text::is_word(point.code)) {
      continue;
    }
    const std::string_view rest = text.substr(at + point.bytes);
    if (rest.find('"') == std::string_view::npos || rest.find('\n') < rest.find('"')) {
      return true;
    }
  }
  return false;
}

// A newline that is followed by more than one last newline.
bool has_inner_newline(std::string_view text) {
  const std::size_t newline = text.find('\n');
  return newline != std::string_view::npos && newline + 1 < text.size() &&
         text.substr(newline + 1) != "\n";
}

bool looks_like_decimal_in_octal(std::string_view text) {
  if (!text.starts_with('0')) {
    return false;
  }
  const std::size_t end = text.find_first_not_of("01234567");
  return end != std::string_view::npos && (text[end] == '8' || text[end] == '9');
}

Spelling spell_string(std::string_view text) {
  if (has_inner_newline(text)) {
    return {nullptr, true, true, YAML_LITERAL_SCALAR_STYLE};
  }
  if (text == "<<") {
    return {YAML_STR_TAG, false, false, YAML_SINGLE_QUOTED_SCALAR_STYLE};
  }
  if (text == "y" || text == "n" || has_line_of_other_start(text)) {
    return {nullptr, true, true, YAML_DOUBLE_QUOTED_SCALAR_STYLE};
  }
  const ScannedScalar scanned = scan_scalar(text);
  if (scanned.other_than_string || scanned.value.as_string() == nullptr ||
      looks_like_decimal_in_octal(text)) {
    return {nullptr, true, true, YAML_SINGLE_QUOTED_SCALAR_STYLE};
  }
  return {nullptr, true, true, YAML_PLAIN_SCALAR_STYLE};
}

yaml_char_t* bytes_of(std::string& text) {
  // libyaml takes pointers to what it only reads.
  return reinterpret_cast<yaml_char_t*>(text.data());
}

yaml_char_t* bytes_of(const char* text) {
  return reinterpret_cast<yaml_char_t*>(const_cast<char*>(text));
}

class Emitter {
 public:
  Emitter() {
    CHECK(yaml_emitter_initialize(&emitter_) == 1);
    yaml_emitter_set_output(&emitter_, &Emitter::append, &out_);
    yaml_emitter_set_unicode(&emitter_, 1);
    yaml_emitter_set_indent(&emitter_, 2);
  }
  ~Emitter() { yaml_emitter_delete(&emitter_); }
  Emitter(const Emitter&) = delete;
  Emitter& operator=(const Emitter&) = delete;

  std::string write_document(const Value& value) {
    yaml_event_t event;
    emit(event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
    emit(event, yaml_document_start_event_initialize(&event, nullptr, nullptr, nullptr, 0));
    visit(value);
    emit(event, yaml_document_end_event_initialize(&event, 1));
    emit(event, yaml_stream_end_event_initialize(&event));
    return std::move(out_);
  }

 private:
  static int append(void* out, unsigned char* bytes, std::size_t size) {
    static_cast<std::string*>(out)->append(reinterpret_cast<const char*>(bytes), size);
    return 1;
  }

  void visit(const Value& value) {
    std::visit([this](const auto& held) { write(held); }, value.storage());
  }

  void write(const Null&) { scalar("", {.tag = YAML_NULL_TAG}); }
  void write(bool value) { scalar(value ? "true" : "false", {}); }
  void write(std::int64_t value) { scalar(std::to_string(value), {}); }
  void write(double value) {
    if (std::isnan(value)) {
      scalar(".nan", {});
    } else if (std::isinf(value)) {
      scalar(value > 0 ? ".inf" : "-.inf", {});
    } else {
      scalar(text::ruby_real(value), {});
    }
  }
  void write(const std::string& value) {
    if (text::is_utf8(value)) {
      scalar(value, spell_string(value));
    } else {
      scalar(text::encode_base64(value), {"!binary", false, false, YAML_LITERAL_SCALAR_STYLE});
    }
  }
  void write(const Symbol& value) {
    if (value.name.empty()) {
      scalar("", {.tag = "!ruby/symbol", .plain = false});
    } else {
      scalar(':' + text::to_utf8(value.name), {});
    }
  }
  void write(const WallTime& value) {
    const text::CivilTime civil = text::to_civil(value);
    scalar(text::civil_date(civil) + ' ' + text::civil_clock(civil) + '.' +
               text::civil_fraction(civil) + " +00:00",
           {});
  }
  void write(const List& value) {
    yaml_event_t event;
    emit(event, yaml_sequence_start_event_initialize(&event, nullptr, nullptr, 1,
                                                     YAML_BLOCK_SEQUENCE_STYLE));
    for (const Value& element : value) {
      visit(element);
    }
    emit(event, yaml_sequence_end_event_initialize(&event));
  }
  void write(const Map& value) {
    begin_map(nullptr);
    for (const auto& [key, member] : value) {
      visit(key);
      visit(member);
    }
    end_map();
  }
  void write(const Set& value) {
    begin_map("!ruby/object:Set");
    scalar("hash", {});
    begin_map(nullptr);
    for (const Value& element : value.elements) {
      visit(element);
      scalar("true", {});
    }
    end_map();
    end_map();
  }

  void begin_map(const char* tag) {
    yaml_event_t event;
    emit(event,
         yaml_mapping_start_event_initialize(&event, nullptr, bytes_of(tag), tag == nullptr ? 1 : 0,
                                             YAML_BLOCK_MAPPING_STYLE));
  }
  void end_map() {
    yaml_event_t event;
    emit(event, yaml_mapping_end_event_initialize(&event));
  }

  void scalar(std::string text, const Spelling& spelling) {
    yaml_event_t event;
    emit(event,
         yaml_scalar_event_initialize(&event, nullptr, bytes_of(spelling.tag), bytes_of(text),
                                      static_cast<int>(text.size()), spelling.plain ? 1 : 0,
                                      spelling.quoted ? 1 : 0, spelling.style));
  }

  // The text is valid UTF-8 and the events are in order, so only memory can be wanting.
  void emit(yaml_event_t& event, int initialized) {
    CHECK(initialized == 1);
    CHECK(yaml_emitter_emit(&emitter_, &event) == 1);
  }

  yaml_emitter_t emitter_{};
  std::string out_;
};

}  // namespace

std::string encode_yaml(const Value& value) {
  Emitter emitter;
  return emitter.write_document(value);
}

}  // namespace einhorn::wire
