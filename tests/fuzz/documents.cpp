#include "documents.h"

#include <algorithm>
#include <string>
#include <vector>

#include "wire/json.h"
#include "wire/yaml_writers.h"

namespace einhorn::fuzz {
namespace {

using wire::Value;

// What one reads oneself has been within limits; what it becomes when written may be longer.
constexpr wire::YamlLimits kWide{1000, 10'000'000, std::size_t{1} << 30U, false};

struct Measured {
  int depth = 0;  // of collections
  std::size_t nodes = 0;
  std::size_t longest = 0;
};

void measure(const Value& value, int depth, Measured& measured) {
  ++measured.nodes;
  const auto take_text = [&measured](const std::string& text) {
    measured.longest = std::max(measured.longest, text.size());
  };
  const auto take_list = [&](const std::vector<Value>& list) {
    measured.depth = std::max(measured.depth, depth + 1);
    for (const Value& element : list) {
      measure(element, depth + 1, measured);
    }
  };
  if (const std::string* text = value.as_string()) {
    take_text(*text);
  } else if (const wire::Symbol* symbol = value.as_symbol()) {
    take_text(symbol->name);
  } else if (const wire::List* list = value.as_list()) {
    take_list(*list);
  } else if (const wire::Set* set = value.as_set()) {
    take_list(set->elements);
  } else if (const wire::Map* map = value.as_map()) {
    measured.depth = std::max(measured.depth, depth + 1);
    for (const wire::Member& member : *map) {
      measure(member.first, depth + 1, measured);
      measure(member.second, depth + 1, measured);
    }
  }
}

}  // namespace

void holds_within(const Value& value, const wire::YamlLimits& limits) {
  Measured measured;
  measure(value, 0, measured);
  holds(measured.depth <= limits.nesting, "nesting is limited", std::to_string(measured.depth));
  holds(measured.nodes <= limits.nodes, "nodes are limited", std::to_string(measured.nodes));
  holds(measured.longest <= limits.scalar_bytes, "scalars are limited",
        std::to_string(measured.longest));
}

bool has_unstable_symbol(const Value& value) {
  const auto in_list = [](const std::vector<Value>& list) {
    return std::any_of(list.begin(), list.end(), has_unstable_symbol);
  };
  if (const wire::Symbol* symbol = value.as_symbol()) {
    return symbol->name.starts_with('"') || symbol->name.starts_with('\'') ||
           symbol->name.find('\n') != std::string::npos;
  }
  if (const wire::List* list = value.as_list()) {
    return in_list(*list);
  }
  if (const wire::Set* set = value.as_set()) {
    return in_list(set->elements);
  }
  const wire::Map* map = value.as_map();
  return map != nullptr && std::any_of(map->begin(), map->end(), [](const wire::Member& member) {
           return has_unstable_symbol(member.first) || has_unstable_symbol(member.second);
         });
}

void holds_round_trips(const Value& value) {
  const std::string yaml = wire::encode_yaml(value);
  holds(yaml == wire::write_yaml_by_libyaml(value), "both YAML writers give the same bytes", yaml);
  const Result<Value> read = wire::parse_yaml(yaml, kWide);
  holds(read.has_value(), "YAML of ours can be read", read ? "" : read.error().message());
  holds(wire::encode_yaml(*read) == yaml || has_unstable_symbol(value),
        "YAML reads back as the same", yaml);

  const std::string json = wire::encode_json(value);
  holds(json.find('\n') == std::string::npos, "JSON is one line", json);
  const Result<Value> again = wire::parse_json(json, kWide);
  holds(again.has_value(), "JSON of ours can be read", again ? json : again.error().message());
  holds(wire::encode_json(*again) == json, "JSON reads back as the same", json);
  holds(!value.inspect().empty(), "every value can be shown");
}

}  // namespace einhorn::fuzz
