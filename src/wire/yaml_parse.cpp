// A reader over libyaml's events. Whether a collection may be opened is decided at its first event,
// so the depth of this recursion is bounded by the limit on nesting.
#include <yaml.h>

#include <algorithm>
#include <map>

#include "wire/scalar_scanner.h"
#include "wire/text.h"
#include "wire/yaml.h"

namespace einhorn::wire {
namespace {

// What a node costs against the limits; a copy of it costs the same again.
struct Size {
  std::size_t nodes = 0;
  std::size_t bytes = 0;  // of strings
  int height = 0;         // collections within each other, the node itself included
};

struct Node {
  Value value;
  Size size;
};

class Event {
 public:
  Event() = default;
  ~Event() { yaml_event_delete(&event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  [[nodiscard]] yaml_event_t* raw() { return &event_; }
  [[nodiscard]] const yaml_event_t& operator*() const { return event_; }
  [[nodiscard]] yaml_event_type_t type() const { return event_.type; }

  [[nodiscard]] std::string_view tag() const {
    switch (event_.type) {
      case YAML_SCALAR_EVENT:
        return text_of(event_.data.scalar.tag);
      case YAML_SEQUENCE_START_EVENT:
        return text_of(event_.data.sequence_start.tag);
      case YAML_MAPPING_START_EVENT:
        return text_of(event_.data.mapping_start.tag);
      default:
        return {};
    }
  }
  [[nodiscard]] std::string_view anchor() const {
    switch (event_.type) {
      case YAML_SCALAR_EVENT:
        return text_of(event_.data.scalar.anchor);
      case YAML_SEQUENCE_START_EVENT:
        return text_of(event_.data.sequence_start.anchor);
      case YAML_MAPPING_START_EVENT:
        return text_of(event_.data.mapping_start.anchor);
      case YAML_ALIAS_EVENT:
        return text_of(event_.data.alias.anchor);
      default:
        return {};
    }
  }
  [[nodiscard]] std::string_view scalar() const {
    return {reinterpret_cast<const char*>(event_.data.scalar.value), event_.data.scalar.length};
  }

 private:
  static std::string_view text_of(const yaml_char_t* text) {
    return text == nullptr ? std::string_view{} : reinterpret_cast<const char*>(text);
  }

  yaml_event_t event_{};
};

enum class Tag { kNone, kString, kBinary, kSymbol, kReal, kSet, kUnknown };

// The tags of YAML's own kinds say nothing that the text does not say: Psych resolves it all the
// same.
Tag classify_tag(std::string_view tag, yaml_event_type_t type) {
  constexpr std::string_view kCore = "tag:yaml.org,2002:";
  const std::string_view core = tag.starts_with(kCore) ? tag.substr(kCore.size()) : "";
  if (tag.empty() || tag == "!") {
    return Tag::kNone;
  }
  if (type == YAML_SEQUENCE_START_EVENT) {
    return core == "seq" ? Tag::kNone : Tag::kUnknown;
  }
  if (type == YAML_MAPPING_START_EVENT) {
    const bool set =
        core == "set" || tag == "!set" || tag == "!ruby/set" || tag == "!ruby/object:Set";
    return core == "map" ? Tag::kNone : set ? Tag::kSet : Tag::kUnknown;
  }
  if (core == "str" || tag == "!str" || tag == "!ruby/string") {
    return Tag::kString;
  }
  if (core == "binary" || tag == "!binary") {
    return Tag::kBinary;
  }
  if (tag == "!ruby/symbol" || tag == "!ruby/sym") {
    return Tag::kSymbol;
  }
  if (core == "float" || tag == "!float") {
    return Tag::kReal;
  }
  const bool resolved = core == "int" || core == "bool" || core == "null" || core == "timestamp";
  return resolved ? Tag::kNone : Tag::kUnknown;
}

class Reader {
 public:
  Reader(std::string_view text, const YamlLimits& limits) : limits_(limits) {
    initialized_ = yaml_parser_initialize(&parser_) == 1;
    if (initialized_) {
      yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
      yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()),
                                   text.size());
    }
  }
  ~Reader() {
    if (initialized_) {
      yaml_parser_delete(&parser_);
    }
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Result<Value> read_document() {
    if (!initialized_) {
      return make_error("parse YAML", "out of memory");
    }
    for (;;) {
      Event event;
      if (Status read = next(event); !read) {
        return std::move(read).error();
      }
      if (event.type() == YAML_STREAM_END_EVENT) {
        return Value();
      }
      if (event.type() != YAML_STREAM_START_EVENT && event.type() != YAML_DOCUMENT_START_EVENT) {
        Result<Node> node = read_node(event, 0);
        if (!node) {
          return std::move(node).error();
        }
        // What a plain scalar turns out not to be able to stand before is noticed behind it.
        Event end;
        if (Status read = next(end); !read) {
          return std::move(read).error();
        }
        return std::move(node->value);
      }
    }
  }

 private:
  Status next(Event& event) {
    if (yaml_parser_parse(&parser_, event.raw()) == 1) {
      return Ok{};
    }
    const char* problem = parser_.problem != nullptr ? parser_.problem : "out of memory";
    const yaml_mark_t& mark = parser_.problem_mark;
    if (parser_.error == YAML_READER_ERROR) {
      return make_error("parse YAML", problem + std::string(" at byte ") +
                                          std::to_string(parser_.problem_offset + 1));
    }
    return make_error("parse YAML", problem + place(mark));
  }

  static std::string place(const yaml_mark_t& mark) {
    return " at line " + std::to_string(mark.line + 1) + ", column " +
           std::to_string(mark.column + 1);
  }
  static Error error_at(const Event& event, const std::string& problem) {
    return make_error("parse YAML", problem + place((*event).start_mark));
  }

  // `depth`: how many collections are open around the node.
  Result<Node> read_node(const Event& event, int depth) {
    if (event.type() == YAML_ALIAS_EVENT) {
      return read_alias(event, depth);
    }
    if (++nodes_ > limits_.nodes) {
      return error_at(event, "too many nodes");
    }
    const std::string anchor(event.anchor());
    if (!anchor.empty() && !limits_.aliases) {
      return error_at(event, "anchors are not allowed");
    }
    const Tag tag = classify_tag(event.tag(), event.type());
    if (tag == Tag::kUnknown) {
      return error_at(event, "unknown tag " + Value(event.tag()).inspect());
    }
    Result<Node> node = event.type() == YAML_SCALAR_EVENT ? read_scalar(event, tag)
                                                          : read_collection(event, tag, depth);
    if (node && !anchor.empty()) {
      anchors_[anchor] = *node;
    }
    return node;
  }

  Result<Node> read_alias(const Event& event, int depth) {
    if (!limits_.aliases) {
      return error_at(event, "aliases are not allowed");
    }
    const auto anchored = anchors_.find(event.anchor());
    if (anchored == anchors_.end()) {
      return error_at(event, "unknown alias");
    }
    const Size& size = anchored->second.size;
    nodes_ += size.nodes;
    copied_bytes_ += size.bytes;
    if (nodes_ > limits_.nodes || copied_bytes_ > limits_.scalar_bytes) {
      return error_at(event, "aliases stand for too much");
    }
    if (depth + size.height > limits_.nesting) {
      return error_at(event, "nested too deeply");
    }
    return anchored->second;
  }

  Result<Node> read_scalar(const Event& event, Tag tag) {
    const std::string_view text = event.scalar();
    if (text.size() > limits_.scalar_bytes) {
      return error_at(event, "a scalar is too long");
    }
    const Size size{1, text.size(), 0};
    const bool quoted = (*event).data.scalar.quoted_implicit == 1;
    switch (tag) {
      case Tag::kString:
        return Node{text, size};
      case Tag::kBinary:
        return Node{text::decode_base64(text), size};
      case Tag::kSymbol:
        return Node{Symbol{std::string(text)}, size};
      case Tag::kReal: {
        Value value = scan_scalar(text).value;
        if (const std::int64_t* integer = value.as_integer()) {
          value = static_cast<double>(*integer);
        }
        return Node{std::move(value), size};
      }
      case Tag::kNone:
      case Tag::kSet:
      case Tag::kUnknown:
        break;
    }
    return Node{quoted ? Value(text) : scan_scalar(text).value, size};
  }

  Result<Node> read_collection(const Event& start, Tag tag, int depth) {
    if (depth >= limits_.nesting) {
      return error_at(start, "nested too deeply");
    }
    const bool is_map = start.type() == YAML_MAPPING_START_EVENT;
    Size size{1, 0, 0};
    List items;
    for (;;) {
      Event event;
      if (Status read = next(event); !read) {
        return std::move(read).error();
      }
      if (event.type() == YAML_SEQUENCE_END_EVENT || event.type() == YAML_MAPPING_END_EVENT) {
        break;
      }
      Result<Node> item = read_node(event, depth + 1);
      if (!item) {
        return item;
      }
      size.nodes += item->size.nodes;
      size.bytes += item->size.bytes;
      size.height = std::max(size.height, item->size.height);
      items.push_back(std::move(item->value));
    }
    ++size.height;
    if (!is_map) {
      return Node{std::move(items), size};
    }
    Map map;
    map.reserve(items.size() / 2);
    for (std::size_t at = 0; at + 1 < items.size(); at += 2) {
      put(map, std::move(items[at]), std::move(items[at + 1]));
    }
    return Node{tag == Tag::kSet ? to_set(std::move(map)) : Value(std::move(map)), size};
  }

  // Ruby writes a set as an object with a `hash` whose keys are the elements; YAML's own has them
  // as its keys.
  static Value to_set(Map map) {
    if (map.size() == 1 && map[0].first == Value("hash")) {
      if (Map* elements = map[0].second.as_map()) {
        Map inner = std::move(*elements);
        map = std::move(inner);
      }
    }
    Set set;
    for (auto& [element, present] : map) {
      set.elements.push_back(std::move(element));
    }
    return set;
  }

  const YamlLimits& limits_;
  yaml_parser_t parser_{};
  bool initialized_ = false;
  std::map<std::string, Node, std::less<>> anchors_;
  std::size_t nodes_ = 0;
  std::size_t copied_bytes_ = 0;
};

}  // namespace

Result<Value> parse_yaml(std::string_view text, const YamlLimits& limits) {
  return Reader(text, limits).read_document();
}

}  // namespace einhorn::wire
