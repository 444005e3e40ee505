#include <cmath>

#include "wire/ruby_fields.h"
#include "wire/ruby_state.h"

namespace einhorn::wire {
namespace {

class Encoder {
 public:
  static constexpr std::size_t kMostOfAState = 48;
  static constexpr std::size_t kMostOfAChild = 9;

  Encoder() = default;
  explicit Encoder(std::size_t expected) { map_.reserve(expected); }

  template <typename T>
  void field(const char* name, const T& value) {
    put(map_, Symbol{name}, to_value(value));
  }
  template <typename T>
  void given(const char* name, const std::optional<T>& value) {
    if (value) {
      field(name, *value);
    }
  }
  // Ruby's default is the integer 1; what users give is a Float.
  void interval(const char* name, double value) {
    if (value == 1) {
      put(map_, Symbol{name}, std::int64_t{1});
    } else {
      put(map_, Symbol{name}, value);
    }
  }
  void interval(const char* name, const std::optional<double>& value) {
    if (value) {
      interval(name, *value);
    }
  }
  void nonempty(const char* name, const std::string& value) {
    if (!value.empty()) {
      field(name, value);
    }
  }
  void symbol(const char* name, const std::string& value) {
    put(map_, Symbol{name}, Symbol{value});
  }
  void set(const char* name, const std::vector<std::string>& elements) {
    put(map_, Symbol{name}, Set{List(elements.begin(), elements.end())});
  }
  [[nodiscard]] Map take() { return std::move(map_); }

 private:
  // What a Value is made of in its place, wherever that does.
  static const Value& to_value(const Value& value) { return value; }
  static const Map& to_value(const Map& value) { return value; }
  static bool to_value(bool value) { return value; }
  static std::int64_t to_value(std::int64_t value) { return value; }
  static Pid to_value(Pid value) { return value; }
  static Value to_value(double value) {
    constexpr double kExact = 9e15;
    if (!(std::abs(value) < kExact)) {
      return value;
    }
    const auto whole = static_cast<std::int64_t>(value);
    return static_cast<double>(whole) == value ? Value(whole) : Value(value);
  }
  static const std::string& to_value(const std::string& value) { return value; }
  static WallTime to_value(WallTime value) { return value; }
  template <typename T>
  static Value to_value(const std::optional<T>& value) {
    return value ? to_value(*value) : Value();
  }
  template <typename T>
  static Value to_value(const std::vector<T>& values) {
    List list;
    list.reserve(values.size());
    for (const T& value : values) {
      list.emplace_back(to_value(value));
    }
    return list;
  }
  static Value to_value(const RubyBind& bind) {
    return List{bind.host, bind.port, to_value(bind.flags)};
  }
  static Value to_value(const RubyConfig& config) {
    Encoder fields;
    visit_config(fields, config);
    return fields.take();
  }
  static Value to_value(const RubyAckMode& mode) {
    Encoder fields;
    visit_ack_mode(fields, mode);
    return fields.take();
  }
  static Value to_value(const RubyNice& nice) {
    Encoder fields;
    visit_nice(fields, nice);
    return fields.take();
  }
  static Map to_value(const RubyChild& child) {
    Encoder fields(kMostOfAChild);
    switch (child.type) {
      case RubyChild::Type::kWorker:
        fields.symbol("type", "worker");
        visit_worker(fields, child);
        break;
      case RubyChild::Type::kStatePasser:
        fields.symbol("type", "state_passer");
        break;
    }
    return fields.take();
  }
  static Map to_value(const std::vector<RubyChild>& children) {
    Map map;
    map.reserve(children.size());
    for (const RubyChild& child : children) {
      put(map, child.pid, to_value(child));
    }
    return map;
  }
  static Value to_value(const std::vector<RubySubscription>& subscriptions) {
    Map map;
    for (const RubySubscription& subscription : subscriptions) {
      put(map, Symbol{subscription.tag}, subscription.request_id);
    }
    return map;
  }

  Map map_;
};

Map encode_state_map(const RubyState& state) {
  Encoder fields(Encoder::kMostOfAState);
  visit_state(fields, state);
  Map map = fields.take();
  map.insert(map.end(), state.extra.begin(), state.extra.end());
  return map;
}

}  // namespace

Value encode_ruby_state(const RubyState& state) {
  Map document;
  put(document, Symbol{"state"}, encode_state_map(state));
  return document;
}

Value encode_ruby_handoff(const RubyHandoff& handoff) {
  List descriptors;
  const auto add = [&descriptors](std::string_view class_name, const auto& visit) {
    Encoder fields;
    fields.field("class", std::string(class_name));
    visit(fields);
    descriptors.emplace_back(fields.take());
  };
  for (const RubyCommandServer& server : handoff.servers) {
    add(kServerClass, [&](Encoder& fields) { fields.field("server", server.server); });
  }
  for (const RubyConnection& connection : handoff.connections) {
    add(kConnectionClass, [&](Encoder& fields) { visit_connection(fields, connection); });
  }
  for (const RubyAckTimer& timer : handoff.ack_timers) {
    add(kTimerClass, [&](Encoder& fields) { visit_timer(fields, timer); });
  }
  Map document;
  put(document, Symbol{"state"}, encode_state_map(handoff.state));
  put(document, Symbol{"persistent_descriptors"}, std::move(descriptors));
  return document;
}

}  // namespace einhorn::wire
