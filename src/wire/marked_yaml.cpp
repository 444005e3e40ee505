// A reader over libyaml's events; the depth of its recursion is bounded by the limit on nesting.
#include "wire/marked_yaml.h"

#include <yaml.h>

#include <algorithm>
#include <map>
#include <utility>

#include "wire/value.h"

namespace einhorn::wire {
namespace {

std::string place(const Mark& mark) {
  return std::to_string(mark.line) + ":" + std::to_string(mark.column);
}

Error error_at(const Mark& mark, std::string problem) {
  return make_error(place(mark), std::move(problem));
}

Mark mark_of(const yaml_mark_t& mark) { return {mark.line + 1, mark.column + 1}; }

class Event {
 public:
  Event() = default;
  ~Event() { yaml_event_delete(&event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  [[nodiscard]] yaml_event_t* raw() { return &event_; }
  [[nodiscard]] yaml_event_type_t type() const { return event_.type; }
  [[nodiscard]] Mark at() const { return mark_of(event_.start_mark); }
  [[nodiscard]] std::string_view text() const {
    return {reinterpret_cast<const char*>(event_.data.scalar.value), event_.data.scalar.length};
  }
  [[nodiscard]] bool is_plain() const {
    return event_.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  }
  // What YAML can say and a config file has no use for.
  [[nodiscard]] const char* oddity() const {
    const yaml_char_t* anchor = nullptr;
    const yaml_char_t* tag = nullptr;
    switch (event_.type) {
      case YAML_ALIAS_EVENT:
        return "aliases (*NAME) are not allowed here";
      case YAML_SCALAR_EVENT:
        anchor = event_.data.scalar.anchor;
        tag = event_.data.scalar.tag;
        break;
      case YAML_SEQUENCE_START_EVENT:
        anchor = event_.data.sequence_start.anchor;
        tag = event_.data.sequence_start.tag;
        break;
      case YAML_MAPPING_START_EVENT:
        anchor = event_.data.mapping_start.anchor;
        tag = event_.data.mapping_start.tag;
        break;
      default:
        break;
    }
    return anchor != nullptr ? "anchors (&NAME) are not allowed here"
           : tag != nullptr  ? "tags (!NAME) are not allowed here"
                             : nullptr;
  }

 private:
  yaml_event_t event_{};
};

bool is_null(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

class Reader {
 public:
  Reader(std::string_view text, const MarkedLimits& limits) : text_(text), limits_(limits) {
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

  Result<MarkedNode> read() {
    if (!initialized_) {
      return error_at({}, "out of memory");
    }
    MarkedNode document;
    bool found = false;
    for (;;) {
      Event event;
      if (Status read = next(event); !read) {
        return std::move(read).error();
      }
      switch (event.type()) {
        case YAML_STREAM_END_EVENT:
          return document;
        case YAML_DOCUMENT_START_EVENT:
          if (std::exchange(found, true)) {
            return error_at(event.at(), "a second document begins; there may be only one");
          }
          break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
          break;
        default: {
          Result<MarkedNode> node = read_node(event, 0);
          if (!node) {
            return node;
          }
          document = std::move(*node);
        }
      }
    }
  }

 private:
  Status next(Event& event) {
    if (yaml_parser_parse(&parser_, event.raw()) == 1) {
      return Ok{};
    }
    const std::string problem = parser_.problem != nullptr ? parser_.problem : "out of memory";
    if (parser_.error == YAML_READER_ERROR) {
      return error_at(mark_of_byte(parser_.problem_offset), "not YAML: " + problem);
    }
    const std::string context =
        parser_.context != nullptr ? std::string(parser_.context) + ", " : "";
    return error_at(mark_of(parser_.problem_mark), "not YAML: " + context + problem);
  }

  [[nodiscard]] Mark mark_of_byte(std::size_t offset) const {
    const std::string_view before = text_.substr(0, std::min(offset, text_.size()));
    const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    return {static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n')) + 1,
            before.size() - line_start + 1};
  }

  // `depth`: how many collections are open around the node.
  Result<MarkedNode> read_node(const Event& event, int depth) {
    if (const char* odd = event.oddity()) {
      return error_at(event.at(), odd);
    }
    if (++nodes_ > limits_.nodes) {
      return error_at(event.at(), "the document is too large (allowed: " +
                                      std::to_string(limits_.nodes) + " values)");
    }
    MarkedNode node;
    node.at = event.at();
    if (event.type() == YAML_SCALAR_EVENT) {
      node.quoted = !event.is_plain();
      node.text = event.text();
      node.kind =
          !node.quoted && is_null(node.text) ? MarkedNode::Kind::kNull : MarkedNode::Kind::kScalar;
      return node;
    }
    if (depth >= limits_.nesting) {
      return error_at(event.at(), "nested too deeply (allowed: " + std::to_string(limits_.nesting) +
                                      " levels)");
    }
    const bool is_map = event.type() == YAML_MAPPING_START_EVENT;
    node.kind = is_map ? MarkedNode::Kind::kMap : MarkedNode::Kind::kList;
    if (Status read = is_map ? read_map(node, depth) : read_list(node, depth); !read) {
      return std::move(read).error();
    }
    return node;
  }

  Status read_list(MarkedNode& list, int depth) {
    for (;;) {
      Event event;
      if (Status read = next(event); !read) {
        return read;
      }
      if (event.type() == YAML_SEQUENCE_END_EVENT) {
        return Ok{};
      }
      Result<MarkedNode> item = read_node(event, depth + 1);
      if (!item) {
        return std::move(item).error();
      }
      list.items.push_back(std::move(*item));
    }
  }

  Status read_map(MarkedNode& map, int depth) {
    std::map<std::string, Mark> seen;
    for (;;) {
      Event event;
      if (Status read = next(event); !read) {
        return read;
      }
      if (event.type() == YAML_MAPPING_END_EVENT) {
        return Ok{};
      }
      if (event.type() != YAML_SCALAR_EVENT && event.oddity() == nullptr) {
        return error_at(event.at(), "a key must be a plain word");
      }
      Result<MarkedNode> key = read_node(event, depth + 1);
      if (!key) {
        return std::move(key).error();
      }
      const auto [first, is_new] = seen.emplace(key->text, key->at);
      if (!is_new) {
        return error_at(key->at, Value(key->text).inspect() + " is there twice (first in line " +
                                     std::to_string(first->second.line) + ")");
      }
      Event behind;
      if (Status read = next(behind); !read) {
        return read;
      }
      Result<MarkedNode> item = read_node(behind, depth + 1);
      if (!item) {
        return std::move(item).error();
      }
      map.keys.push_back(std::move(*key));
      map.items.push_back(std::move(*item));
    }
  }

  std::string_view text_;
  const MarkedLimits& limits_;
  yaml_parser_t parser_{};
  bool initialized_ = false;
  std::size_t nodes_ = 0;
};

}  // namespace

Result<MarkedNode> parse_marked_yaml(std::string_view text, const MarkedLimits& limits) {
  return Reader(text, limits).read();
}

}  // namespace einhorn::wire
