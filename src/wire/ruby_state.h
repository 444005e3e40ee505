// The state of a pool as Ruby's Einhorn knows it.
//
// This is what the `state` command shows, `{:state: {...}}`, and what one master leaves to the next
// at a re-exec (`--with-state-fd`): the same with `:persistent_descriptors`, the command server,
// its clients and the running ACK timers. Keys and their order, names of classes and kinds of
// values are Ruby's, so either program can take over from the other.
//
// Encoding never fails. Decoding is lenient, since the writer may be another version: a key that is
// missing or whose value makes no sense leaves the default in place, a child or a descriptor that
// is damaged loses only itself, an unknown key is kept aside; all three are listed. Only a document
// without `:state` is an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "base/result.h"
#include "wire/value.h"
#include "wire/yaml.h"

namespace einhorn::wire {

struct RubyChild {
  // A state passer is the short-lived process that writes the state into the pipe for the
  // successor; it has a pid and nothing else, and must be reaped without being counted.
  enum class Type { kWorker, kStatePasser };

  Pid pid = 0;  // the child's key
  Type type = Type::kWorker;
  std::int64_t version = 0;
  bool acked = false;
  std::vector<std::string> signaled;  // names without SIG, in the order they were sent first
  std::optional<WallTime> last_signaled_at;
  std::int64_t index = 0;
  std::optional<WallTime> spinup_time;
  std::optional<WallTime> pinged_at;       // written only after a ping
  std::optional<Value> pinged_request_id;  // likewise; of any kind
};

// `seconds`, and the times of ACKs below, are written as Ruby writes them: 1 as an integer, every
// other number as a real.
struct RubyConfig {
  std::int64_t number = 1;
  std::int64_t backlog = 100;
  double seconds = 1;
  std::optional<std::int64_t> max_unacked;  // these three are written only if given
  std::optional<std::int64_t> max_upgrade_additional;
  std::optional<bool> gc_before_fork;
};

struct RubyBind {
  std::string host;
  std::int64_t port = 0;
  std::vector<std::string> flags;
};

struct RubyAckMode {
  std::string type = "timer";         // a symbol: timer, manual
  std::optional<double> timeout = 1;  // seconds; written only if given
};

struct RubyNice {
  std::optional<std::int64_t> master;
  std::optional<std::int64_t> worker;
  std::string renice_cmd = "/usr/bin/renice";
};

// The defaults are Ruby's.
struct RubyState {
  std::vector<RubyChild> children;
  RubyConfig config;
  Map versions;  // both unused by Ruby, and kept by it
  std::int64_t version = 0;
  Map sockets;
  std::optional<std::vector<std::string>> orig_cmd;
  std::vector<RubyBind> bind;
  std::vector<std::int64_t> bind_fds;
  std::vector<std::int64_t> bound_ports;
  std::optional<std::vector<std::string>> cmd;
  std::optional<std::string> script_name;
  bool respawn = true;
  bool upgrading = false;
  bool smooth_upgrade = false;
  bool reloading_for_upgrade = false;
  std::optional<std::string> path;
  std::optional<std::string> cmd_name;
  std::int64_t verbosity = 1;
  std::int64_t generation = 0;
  std::optional<WallTime> last_spinup;
  RubyAckMode ack_mode;
  bool kill_children_on_exit = false;
  bool command_socket_as_fd = false;
  std::optional<std::string> socket_path;
  std::optional<std::string> pidfile;
  std::optional<std::string> lockfile;
  std::int64_t consecutive_deaths_before_ack = 0;
  std::optional<WallTime> last_upgraded;
  RubyNice nice;
  std::optional<std::vector<std::string>> reexec_commandline;
  std::vector<std::string> drop_environment_variables;
  std::optional<double> signal_timeout;  // written as an integer if it is whole
  bool preloaded = false;

  Map extra;  // keys of our own, written behind Ruby's; a Ruby master drops them
};

struct RubyCommandServer {
  std::int64_t server = -1;  // the listening descriptor
};

struct RubySubscription {
  std::string tag;   // a symbol: upgrade, reload
  Value request_id;  // of any kind
};

struct RubyConnection {
  std::int64_t socket = -1;
  std::string read_buffer;   // bytes of a request that has not ended yet; written only if any
  std::string write_buffer;  // bytes of replies not sent yet; written only if any
  std::vector<RubySubscription> subscriptions;
};

struct RubyAckTimer {
  double time = 1;  // seconds from `start`
  std::optional<WallTime> start;
  Pid pid = 0;
};

struct RubyHandoff {
  RubyState state;
  std::vector<RubyCommandServer> servers;
  std::vector<RubyConnection> connections;
  std::vector<RubyAckTimer> ack_timers;
};

// What a document had that this program did not expect. Places are paths of keys: "config.number",
// "children.6395.index", "persistent_descriptors.2".
struct RubyFindings {
  std::vector<std::string> missing;  // the default was taken
  std::vector<std::string> unknown;  // left alone
  std::vector<std::string>
      invalid;  // not of the right kind: the default was taken, or the item lost
};

struct RubyStateRead {
  RubyState state;  // `extra` is empty: unknown keys are in `unknown`
  Map unknown;      // of the state itself, as they were
  RubyFindings findings;
};

struct RubyHandoffRead {
  RubyHandoff handoff;
  Map unknown;               // of the state itself
  List unknown_descriptors;  // of classes this program does not know
  RubyFindings findings;
};

// `{:state: {...}}`.
[[nodiscard]] Value encode_ruby_state(const RubyState& state);
// Contract of the document: a map with `:state`; other keys beside it are not looked at.
[[nodiscard]] Result<RubyStateRead> decode_ruby_state(const Value& document);

// `{:state: {...}, :persistent_descriptors: [...]}`. The caller raises `generation`, as Ruby does.
[[nodiscard]] Value encode_ruby_handoff(const RubyHandoff& handoff);
// A document without `:persistent_descriptors` is one with none of them; this is among the missing.
[[nodiscard]] Result<RubyHandoffRead> decode_ruby_handoff(const Value& document);

// For reading these documents: Ruby writes them with anchors and aliases, and a pool may be large.
[[nodiscard]] YamlLimits ruby_state_limits();

}  // namespace einhorn::wire
