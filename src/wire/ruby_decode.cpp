#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/limits.h"
#include "wire/ruby_fields.h"
#include "wire/ruby_state.h"

namespace einhorn::wire {
namespace {

// The text of a key: of a symbol or a string its name.
std::string key_name(const Value& key) {
  if (const Symbol* symbol = key.as_symbol()) {
    return symbol->name;
  }
  const std::string* text = key.as_string();
  return text != nullptr ? *text : key.inspect();
}

// Reads the members of one map. `path` is its place, for the findings, empty or ending in a dot.
class Decoder {
 public:
  Decoder(const Map& map, std::string path, RubyFindings& findings)
      : map_(map), path_(std::move(path)), findings_(findings) {}

  template <typename T>
  void field(const char* name, T& out) {
    if (const Value* value = look_up(name); value == nullptr) {
      findings_.missing.push_back(path_ + name);
    } else {
      read_member(name, *value, out);
    }
  }
  template <typename T>
  void given(const char* name, std::optional<T>& out) {
    if (const Value* value = look_up(name); value == nullptr) {
      out.reset();
    } else {
      read_member(name, *value, out);
    }
  }
  void interval(const char* name, double& out) { field(name, out); }
  void interval(const char* name, std::optional<double>& out) { given(name, out); }
  void nonempty(const char* name, std::string& out) {
    if (const Value* value = look_up(name)) {
      read_member(name, *value, out);
    }
  }
  void symbol(const char* name, std::string& out) {
    const Value* value = look_up(name);
    if (value == nullptr) {
      findings_.missing.push_back(path_ + name);
    } else if (const Symbol* symbol = value->as_symbol()) {
      out = symbol->name;
    } else {
      read_member(name, *value, out);
    }
  }
  void set(const char* name, std::vector<std::string>& out) {
    const Value* value = look_up(name);
    if (value == nullptr) {
      findings_.missing.push_back(path_ + name);
    } else if (const Set* set = value->as_set()) {
      read_member(name, Value(set->elements), out);
    } else {
      read_member(name, *value, out);
    }
  }

  // The members nobody asked for; their names are listed.
  [[nodiscard]] Map take_unknown() {
    Map unknown;
    for (const auto& [key, value] : map_) {
      const std::string name = key_name(key);
      if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
        findings_.unknown.push_back(path_ + (name.empty() ? key.inspect() : name));
        put(unknown, key, value);
      }
    }
    return unknown;
  }

 private:
  const Value* look_up(const char* name) {
    known_.emplace_back(name);
    const auto found = std::find_if(map_.rbegin(), map_.rend(), [name](const auto& member) {
      const Value& key = member.first;
      return (key.as_symbol() != nullptr || key.as_string() != nullptr) && key_name(key) == name;
    });
    return found != map_.rend() ? &found->second : nullptr;
  }

  template <typename T>
  void read_member(const char* name, const Value& value, T& out) {
    T read = out;
    if (from_value(value, path_ + name, read)) {
      out = std::move(read);
    } else {
      findings_.invalid.push_back(path_ + name);
    }
  }

  static bool from_value(const Value& value, const std::string&, Value& out) {
    out = value;
    return true;
  }
  template <typename T>
  static bool copy(const T* held, T& out) {
    if (held != nullptr) {
      out = *held;
    }
    return held != nullptr;
  }
  static bool from_value(const Value& value, const std::string&, Map& out) {
    return copy(value.as_map(), out);
  }
  static bool from_value(const Value& value, const std::string&, bool& out) {
    // Ruby takes nil for false.
    if (value.is_null()) {
      out = false;
      return true;
    }
    return copy(value.as_bool(), out);
  }
  static bool from_value(const Value& value, const std::string&, std::int64_t& out) {
    return copy(value.as_integer(), out);
  }
  static bool from_value(const Value& value, const std::string&, Pid& out) {
    const std::int64_t* integer = value.as_integer();
    if (integer == nullptr || *integer < 1 || *integer > std::numeric_limits<Pid>::max()) {
      return false;
    }
    out = static_cast<Pid>(*integer);
    return true;
  }
  static bool from_value(const Value& value, const std::string&, double& out) {
    if (const std::int64_t* integer = value.as_integer()) {
      out = static_cast<double>(*integer);
      return true;
    }
    const double* real = value.as_real();
    return real != nullptr && std::isfinite(*real) && copy(real, out);
  }
  static bool from_value(const Value& value, const std::string&, std::string& out) {
    return copy(value.as_string(), out);
  }
  static bool from_value(const Value& value, const std::string&, WallTime& out) {
    return copy(value.as_time(), out);
  }
  template <typename T>
  bool from_value(const Value& value, const std::string& path, std::optional<T>& out) {
    if constexpr (!std::is_same_v<T, Value>) {
      if (value.is_null()) {
        out.reset();
        return true;
      }
    }
    T read{};
    const bool valid = from_value(value, path, read);
    if (valid) {
      out = std::move(read);
    }
    return valid;
  }
  template <typename T>
  bool from_value(const Value& value, const std::string& path, std::vector<T>& out) {
    const List* list = value.as_list();
    if (list == nullptr) {
      return false;
    }
    out.clear();
    for (std::size_t at = 0; at < list->size(); ++at) {
      T read{};
      if (!from_value((*list)[at], path + '.' + std::to_string(at), read)) {
        return false;
      }
      out.push_back(std::move(read));
    }
    return true;
  }
  bool from_value(const Value& value, const std::string& path, RubyBind& out) {
    const List* list = value.as_list();
    return list != nullptr && list->size() == 3 && from_value((*list)[0], path, out.host) &&
           from_value((*list)[1], path, out.port) && from_value((*list)[2], path, out.flags);
  }
  // A map of its own with `visit(decoder)` reading it.
  template <typename Visit>
  bool from_map(const Value& value, const std::string& path, Visit visit) {
    const Map* map = value.as_map();
    if (map == nullptr) {
      return false;
    }
    Decoder fields(*map, path + '.', findings_);
    visit(fields);
    static_cast<void>(fields.take_unknown());
    return true;
  }
  bool from_value(const Value& value, const std::string& path, RubyConfig& out) {
    return from_map(value, path, [&](Decoder& fields) { visit_config(fields, out); });
  }
  bool from_value(const Value& value, const std::string& path, RubyAckMode& out) {
    return from_map(value, path, [&](Decoder& fields) { visit_ack_mode(fields, out); });
  }
  bool from_value(const Value& value, const std::string& path, RubyNice& out) {
    return from_map(value, path, [&](Decoder& fields) { visit_nice(fields, out); });
  }
  bool from_value(const Value& value, const std::string& path, RubyChild& out) {
    bool known_type = true;
    const bool is_map = from_map(value, path, [&](Decoder& fields) {
      std::string type = "worker";
      fields.symbol("type", type);
      known_type = type == "worker" || type == "state_passer";
      if (type == "worker") {
        visit_worker(fields, out);
      } else {
        out.type = RubyChild::Type::kStatePasser;
      }
    });
    return is_map && known_type;
  }
  bool from_value(const Value& value, const std::string& path, std::vector<RubyChild>& out) {
    const Map* map = value.as_map();
    if (map == nullptr) {
      return false;
    }
    out.clear();
    for (const auto& [key, member] : *map) {
      const std::string place = path + '.' + key_name(key);
      RubyChild child;
      if (from_value(key, place, child.pid) && from_value(member, place, child)) {
        out.push_back(std::move(child));
      } else {
        findings_.invalid.push_back(place);
      }
    }
    return true;
  }
  bool from_value(const Value& value, const std::string&, std::vector<RubySubscription>& out) {
    const Map* map = value.as_map();
    if (map == nullptr) {
      return false;
    }
    out.clear();
    for (const auto& [key, request_id] : *map) {
      out.push_back({key_name(key), request_id});
    }
    return true;
  }

  const Map& map_;
  std::string path_;
  RubyFindings& findings_;
  std::vector<std::string> known_;
};

// Sorts one of `:persistent_descriptors` into the hand-off.
void decode_descriptor(const Value& descriptor, const std::string& path, RubyHandoffRead& read) {
  const Map* map = descriptor.as_map();
  const Value* class_value = descriptor.find("class");
  if (map == nullptr || class_value == nullptr || class_value->as_string() == nullptr) {
    read.findings.invalid.push_back(path);
    return;
  }
  Decoder fields(*map, path + '.', read.findings);
  std::string class_name;
  fields.field("class", class_name);
  bool usable = true;  // a descriptor is nothing without its number, a timer without its pid
  if (class_name == kServerClass) {
    RubyCommandServer server;
    fields.field("server", server.server);
    usable = server.server >= 0;
    if (usable) {
      read.handoff.servers.push_back(server);
    }
  } else if (class_name == kConnectionClass) {
    RubyConnection connection;
    visit_connection(fields, connection);
    usable = connection.socket >= 0;
    if (usable) {
      read.handoff.connections.push_back(std::move(connection));
    }
  } else if (class_name == kTimerClass) {
    RubyAckTimer timer;
    visit_timer(fields, timer);
    usable = timer.pid > 0;
    if (usable) {
      read.handoff.ack_timers.push_back(timer);
    }
  } else {
    read.findings.unknown.push_back(path);
    read.unknown_descriptors.push_back(descriptor);
    return;
  }
  if (usable) {
    static_cast<void>(fields.take_unknown());
  } else {
    read.findings.invalid.push_back(path);
  }
}

}  // namespace

Result<RubyStateRead> decode_ruby_state(const Value& document) {
  const Value* state = document.find("state");
  const Map* map = state != nullptr ? state->as_map() : nullptr;
  if (map == nullptr) {
    return make_error("read a Ruby state", "no :state in it");
  }
  RubyStateRead read;
  Decoder fields(*map, "", read.findings);
  visit_state(fields, read.state);
  read.unknown = fields.take_unknown();
  return read;
}

Result<RubyHandoffRead> decode_ruby_handoff(const Value& document) {
  Result<RubyStateRead> state = decode_ruby_state(document);
  if (!state) {
    return std::move(state).error();
  }
  RubyHandoffRead read;
  read.handoff.state = std::move(state->state);
  read.unknown = std::move(state->unknown);
  read.findings = std::move(state->findings);
  constexpr const char* kKey = "persistent_descriptors";
  const Value* descriptors = document.find(kKey);
  const List* list = descriptors != nullptr ? descriptors->as_list() : nullptr;
  if (list == nullptr) {
    (descriptors == nullptr ? read.findings.missing : read.findings.invalid).emplace_back(kKey);
    return read;
  }
  for (std::size_t at = 0; at < list->size(); ++at) {
    decode_descriptor((*list)[at], kKey + ('.' + std::to_string(at)), read);
  }
  return read;
}

YamlLimits ruby_state_limits() {
  constexpr std::size_t kNodesAWorker = 40;  // the child, its keys and values, and its ACK timer
  YamlLimits limits;
  limits.nodes = limits::kMaxDocumentNodes + limits::kMaxWorkers * kNodesAWorker;
  limits.scalar_bytes = limits::kMaxPendingOutput;
  limits.aliases = true;
  return limits;
}

}  // namespace einhorn::wire
