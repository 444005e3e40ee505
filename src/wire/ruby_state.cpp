#include "wire/ruby_state.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/limits.h"

namespace einhorn::wire {
namespace {

constexpr std::string_view kServerClass = "Einhorn::Event::CommandServer";
constexpr std::string_view kConnectionClass = "Einhorn::Event::Connection";
constexpr std::string_view kTimerClass = "Einhorn::Event::ACKTimer";

// --- the fields, in Ruby's order, once for both directions
// ------------------------------------------ `field` is always written; `given` only when there is
// something to write.

template <typename Fields, typename Config>
void visit_config(Fields& fields, Config& config) {
  fields.field("number", config.number);
  fields.field("backlog", config.backlog);
  fields.interval("seconds", config.seconds);
  fields.given("max_unacked", config.max_unacked);
  fields.given("max_upgrade_additional", config.max_upgrade_additional);
  fields.given("gc_before_fork", config.gc_before_fork);
}

template <typename Fields, typename AckMode>
void visit_ack_mode(Fields& fields, AckMode& mode) {
  fields.symbol("type", mode.type);
  fields.interval("timeout", mode.timeout);
}

template <typename Fields, typename Nice>
void visit_nice(Fields& fields, Nice& nice) {
  fields.field("master", nice.master);
  fields.field("worker", nice.worker);
  fields.field("renice_cmd", nice.renice_cmd);
}

template <typename Fields, typename Child>
void visit_worker(Fields& fields, Child& child) {
  fields.field("version", child.version);
  fields.field("acked", child.acked);
  fields.set("signaled", child.signaled);
  fields.field("last_signaled_at", child.last_signaled_at);
  fields.field("index", child.index);
  fields.field("spinup_time", child.spinup_time);
  fields.given("pinged_at", child.pinged_at);
  fields.given("pinged_request_id", child.pinged_request_id);
}

template <typename Fields, typename State>
void visit_state(Fields& fields, State& state) {
  fields.field("children", state.children);
  fields.field("config", state.config);
  fields.field("versions", state.versions);
  fields.field("version", state.version);
  fields.field("sockets", state.sockets);
  fields.field("orig_cmd", state.orig_cmd);
  fields.field("bind", state.bind);
  fields.field("bind_fds", state.bind_fds);
  fields.field("bound_ports", state.bound_ports);
  fields.field("cmd", state.cmd);
  fields.field("script_name", state.script_name);
  fields.field("respawn", state.respawn);
  fields.field("upgrading", state.upgrading);
  fields.field("smooth_upgrade", state.smooth_upgrade);
  fields.field("reloading_for_upgrade", state.reloading_for_upgrade);
  fields.field("path", state.path);
  fields.field("cmd_name", state.cmd_name);
  fields.field("verbosity", state.verbosity);
  fields.field("generation", state.generation);
  fields.field("last_spinup", state.last_spinup);
  fields.field("ack_mode", state.ack_mode);
  fields.field("kill_children_on_exit", state.kill_children_on_exit);
  fields.field("command_socket_as_fd", state.command_socket_as_fd);
  fields.field("socket_path", state.socket_path);
  fields.field("pidfile", state.pidfile);
  fields.field("lockfile", state.lockfile);
  fields.field("consecutive_deaths_before_ack", state.consecutive_deaths_before_ack);
  fields.field("last_upgraded", state.last_upgraded);
  fields.field("nice", state.nice);
  fields.field("reexec_commandline", state.reexec_commandline);
  fields.field("drop_environment_variables", state.drop_environment_variables);
  fields.field("signal_timeout", state.signal_timeout);
  fields.field("preloaded", state.preloaded);
}

template <typename Fields, typename Connection>
void visit_connection(Fields& fields, Connection& connection) {
  fields.field("socket", connection.socket);
  fields.nonempty("read_buffer", connection.read_buffer);
  fields.nonempty("write_buffer", connection.write_buffer);
  fields.field("subscriptions", connection.subscriptions);
}

template <typename Fields, typename Timer>
void visit_timer(Fields& fields, Timer& timer) {
  fields.interval("time", timer.time);
  fields.field("start", timer.start);
  fields.field("pid", timer.pid);
}

// --- encoding
// ---------------------------------------------------------------------------------------

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
    field(name, value == 1 ? Value(1) : Value(value));
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

// --- decoding
// ---------------------------------------------------------------------------------------

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
        findings_.unknown.push_back(path_ + name);
        put(unknown, key, value);
      }
    }
    return unknown;
  }

 private:
  const Value* look_up(const char* name) {
    known_.emplace_back(name);
    for (auto member = map_.rbegin(); member != map_.rend(); ++member) {
      const bool named =
          member->first.as_symbol() != nullptr || member->first.as_string() != nullptr;
      if (named && key_name(member->first) == name) {
        return &member->second;
      }
    }
    return nullptr;
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

Value encode_ruby_state(const RubyState& state) {
  Map document;
  put(document, Symbol{"state"}, encode_state_map(state));
  return document;
}

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
