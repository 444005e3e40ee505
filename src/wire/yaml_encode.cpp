// Writes what Psych writes. Psych only chooses a style for each scalar; which style can be kept,
// where lines are folded and what is indented is libyaml's doing, there as here.
#include <yaml.h>

#include "base/check.h"
#include "wire/text.h"
#include "wire/yaml.h"
#include "wire/yaml_spelling.h"
#include "wire/yaml_writers.h"

namespace einhorn::wire {
namespace {

yaml_scalar_style_t style_of(ScalarStyle style) {
  switch (style) {
    case ScalarStyle::kPlain:
      return YAML_PLAIN_SCALAR_STYLE;
    case ScalarStyle::kSingleQuoted:
      return YAML_SINGLE_QUOTED_SCALAR_STYLE;
    case ScalarStyle::kDoubleQuoted:
      return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    case ScalarStyle::kLiteral:
      return YAML_LITERAL_SCALAR_STYLE;
  }
  return YAML_ANY_SCALAR_STYLE;
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
  void write(double value) { scalar(spell_real(value), {}); }
  void write(const std::string& value) {
    if (text::is_utf8(value)) {
      scalar(value, spell_string(value));
    } else {
      scalar(text::encode_base64(value), {"!binary", false, false, ScalarStyle::kLiteral});
    }
  }
  void write(const Symbol& value) {
    if (value.name.empty()) {
      scalar("", {.tag = "!ruby/symbol", .plain = false});
    } else {
      scalar(':' + text::to_utf8(value.name), {});
    }
  }
  void write(const WallTime& value) { scalar(spell_time(value), {}); }
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
    begin_map(kSetTag.data());
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
                                      spelling.quoted ? 1 : 0, style_of(spelling.style)));
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

std::string write_yaml_by_libyaml(const Value& value) {
  Emitter emitter;
  return emitter.write_document(value);
}

std::string encode_yaml(const Value& value) {
  std::optional<std::string> written = write_yaml_by_hand(value);
  return written ? *std::move(written) : write_yaml_by_libyaml(value);
}

}  // namespace einhorn::wire
