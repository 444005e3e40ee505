#include "master/commands.h"

#include <algorithm>

#include "base/limits.h"
#include "base/numbers.h"
#include "base/signals.h"
#include "wire/json.h"
#include "wire/yaml.h"

namespace einhorn::master {
namespace {

std::string pid_list(const std::vector<Pid>& pids) {
  std::string text = "[";
  for (const Pid pid : pids) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(pid);
  }
  return text + "]";
}

std::string count_of(std::size_t count) { return std::to_string(count); }

std::string text_or_empty(const wire::Value* value) {
  if (value == nullptr || value->is_null()) {
    return "";
  }
  if (const std::string* text = value->as_string()) {
    return *text;
  }
  return value->inspect();
}

// Whether a command leaves everything as it is, so that it is no event.
bool only_asks(std::string_view command) {
  for (const std::string_view each :
       {"ehlo", "help", "state", "status", "subscribe", "guard:takeover"}) {
    if (command == each) {
      return true;
    }
  }
  return command.starts_with("worker:");
}

// As upstream: upper case, "SIG" in front is optional.
std::string normalize_signal(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char letter) {
    return static_cast<char>(letter >= 'a' && letter <= 'z' ? letter - 'a' + 'A' : letter);
  });
  return name.starts_with("SIG") ? name.substr(3) : name;
}

}  // namespace

const std::vector<Commands::Spec>& Commands::table() {
  static const std::vector<Spec> kTable = {
      {"config", "Merge in a new set of config options (args: YAML hash).", &Commands::config},
      {"dec", "Decrement the number of Einhorn child processes", &Commands::dec},
      {"die",
       "Send SIGNAL (default: SIGUSR2) to all workers, stop spawning new ones, and exit once all "
       "workers die (args: [SIGNAL])",
       &Commands::die},
      {"ehlo", "", &Commands::ehlo},
      {"guard:takeover", "", &Commands::guard_takeover},
      {"help", "Print out available commands", &Commands::help},
      {"inc", "Increment the number of Einhorn child processes", &Commands::inc},
      {"louder", "Increase verbosity", &Commands::louder},
      {"quieter", "Decrease verbosity", &Commands::quieter},
      {"reload", "Reload Einhorn", &Commands::reload},
      {"rollback", "Go back to the previous version of the workers", &Commands::rollback},
      {"set_workers", "Set the number of Einhorn child processes (args: N)",
       &Commands::set_workers},
      {"signal", "Send one or more signals to all workers (args: SIG1 [SIG2 ...])",
       &Commands::signal},
      {"state", "Get a dump of Einhorn's current state (args: [json])", &Commands::state},
      {"status", "Show the pool to people, on one screen", &Commands::status},
      {"stop_worker",
       "Replace one worker: another one starts, then it is told to stop (args: PID or INDEX)",
       &Commands::stop_worker},
      {"subscribe", "Follow the pool's events, one JSON line each (docs/events.md)",
       &Commands::subscribe},
      {"upgrade",
       "Upgrade all Einhorn workers smoothly. This causes Einhorn to reload its own code as well. "
       "(args: [--no-rollback] [--to-ruby])",
       &Commands::upgrade},
      {"upgrade_fleet",
       "Upgrade all Einhorn workers a fleet at a time. This causes Einhorn to reload its own code "
       "as well. (args: [--no-rollback] [--to-ruby])",
       &Commands::upgrade_fleet},
      {"worker:ack", "", &Commands::worker_ack},
      {"worker:ping", "", &Commands::worker_ping},
  };
  return kTable;
}

void Commands::handle(CommandServer& server, Connection& connection, const wire::Request& request) {
  Call call{server, connection, request, {}, false};
  const wire::Value* id = request.document.find("id");
  std::optional<wire::Value> request_id;
  if (id != nullptr && !id->is_null() && (id->as_bool() == nullptr || *id->as_bool())) {
    request_id = *id;
  }
  const auto answer = [&](const Answer& given) {
    if (given.message) {
      server.reply(connection, {*given.message, request_id, false, given.status}, request.language);
    }
  };
  const wire::Value* command = request.document.find("command");
  if (command == nullptr || command->is_null() ||
      (command->as_bool() != nullptr && !*command->as_bool())) {
    answer(error("No \"command\" parameter provided; not sure what you want me to do."));
    return;
  }
  const std::string* name = command->as_string();
  const auto& specs = table();
  const auto spec = std::find_if(specs.begin(), specs.end(), [name](const Spec& candidate) {
    return name != nullptr && candidate.name == *name;
  });
  if (spec == specs.end()) {
    answer(error("Unrecognized command: " + command->inspect() + "\n\n" + descriptions() + "\n"));
    return;
  }
  if (!connection.privileged && !spec->name.starts_with("worker:")) {
    answer(error("Permission denied: only root and the user that Einhorn runs as may say \"" +
                 *name + "\""));
    return;
  }
  if (!only_asks(*name)) {
    target_.commanded(connection, *name, request.document.find("args"));
  }
  answer((this->*spec->run)(call));
}

std::string Commands::descriptions() const {
  std::string text;
  for (const Spec& spec : table()) {
    if (!spec.help.empty()) {
      text += (text.empty() ? "" : "\n") + std::string(spec.name) + ": " + std::string(spec.help);
    }
  }
  return text;
}

std::optional<Commands::Answer> Commands::check_args(Call& call) const {
  const wire::Value* args = call.request.document.find("args");
  if (args == nullptr || args->is_null()) {
    return error("No args provided");
  }
  const wire::List* list = args->as_list();
  if (list == nullptr) {
    return error("Args must be an array");
  }
  for (const wire::Value& value : *list) {
    const std::string* text = value.as_string();
    if (text == nullptr) {
      return error("Argument is a " + std::string(value.ruby_class()) +
                   ", not a string: " + value.inspect());
    }
    call.args.push_back(*text);
  }
  return std::nullopt;
}

Commands::Answer Commands::ehlo(Call& call) {
  const std::string& name = target_.settings().name;
  return {"Welcome, " + text_or_empty(call.request.document.find("user")) +
          "! You are speaking to Einhorn Master Process " + std::to_string(target_.public_pid()) +
          (name.empty() ? "" : " (" + name + ")") + ".\nThis is Einhorn " EINHORN_VERSION ".\n"};
}

Commands::Answer Commands::help(Call& /*call*/) {
  return {
      "You are speaking to the Einhorn command socket. You can run the following commands:\n\n" +
      descriptions() + "\n"};
}

Commands::Answer Commands::state(Call& call) {
  static_cast<void>(check_args(call));
  if (call.args.empty()) {
    return {target_.report("state")};
  }
  if (call.args.size() == 1 && call.args[0] == "json") {
    return {target_.report("json")};
  }
  return error("state takes no argument or \"json\"");
}

Commands::Answer Commands::status(Call& /*call*/) { return {target_.report("status")}; }

Commands::Answer Commands::inc(Call& /*call*/) { return change_number(true); }

Commands::Answer Commands::dec(Call& /*call*/) { return change_number(false); }

Commands::Answer Commands::change_number(bool up) {
  const std::uint32_t old = target_.pool().config().number;
  if (up && old + 1 >= limits::kMaxWorkers) {
    return refuse("Can't increase number of workers (already at " + std::to_string(old) + ").");
  }
  if (!up && old <= 1) {
    return refuse("Can't decrease number of workers (already at " + std::to_string(old) +
                  ").  Run kill " + std::to_string(target_.public_pid()) +
                  " if you really want to kill einhorn.");
  }
  const std::uint32_t wanted = up ? old + 1 : old - 1;
  if (const std::string outside = outside_of_scaling(wanted); !outside.empty()) {
    return refuse(outside);
  }
  const std::string text = std::string(up ? "Incrementing" : "Decrementing") +
                           " number of workers from " + std::to_string(old) + " -> " +
                           std::to_string(wanted);
  target_.tell({Level::kInfo, "number_changed", text});
  target_.apply(pool::event::SetNumber{wanted});
  return {text};
}

// Why there can't be so many workers, with --workers MIN:MAX; "" if there can.
std::string Commands::outside_of_scaling(std::uint32_t wanted) const {
  const pool::Config& config = target_.pool().config();
  if (config.workers_max == 0 || (wanted >= config.workers_min && wanted <= config.workers_max)) {
    return "";
  }
  return "Can't set the number of workers to " + std::to_string(wanted) + " (--workers allows " +
         std::to_string(config.workers_min) + " to " + std::to_string(config.workers_max) + ").";
}

// An error that is worth a line in the log too.
Commands::Answer Commands::refuse(std::string message) {
  target_.tell({Level::kError, "refused", message});
  return error(std::move(message));
}

Commands::Answer Commands::set_workers(Call& call) {
  if (auto wrong = check_args(call)) {
    return *wrong;
  }
  const std::string given = call.args.empty() ? "" : call.args[0];
  const std::optional<std::uint32_t> count = whole_number<std::uint32_t>(given);
  if (!count || *count < 1 || *count >= limits::kMaxWorkers) {
    return error("Invalid count: '" + given + "'. Must be an integer in [1," +
                 std::to_string(limits::kMaxWorkers) + ").");
  }
  const std::uint32_t old = target_.pool().config().number;
  if (*count == old) {
    return {""};
  }
  if (const std::string outside = outside_of_scaling(*count); !outside.empty()) {
    return error(outside);
  }
  const std::string text =
      "Altering worker count, " + std::to_string(old) + " -> " + std::to_string(*count) +
      ". Will " + (old < *count ? "spin up additional workers." : "gracefully terminate workers.");
  target_.tell({Level::kInfo, "set_workers", text});
  target_.apply(pool::event::SetNumber{*count});
  return {text};
}

Commands::Answer Commands::quieter(Call& /*call*/) {
  const std::int32_t verbosity = std::min(2, target_.settings().verbosity + 1);
  target_.set_verbosity(verbosity);
  const std::string text = "Verbosity set to " + std::to_string(verbosity);
  target_.tell({Level::kInfo, "verbosity", text});
  return {text};
}

Commands::Answer Commands::louder(Call& /*call*/) {
  const std::int32_t verbosity = std::max(0, target_.settings().verbosity - 1);
  target_.set_verbosity(verbosity);
  const std::string text = "Verbosity set to " + std::to_string(verbosity);
  target_.tell({Level::kInfo, "verbosity", text});
  return {text};
}

Commands::Answer Commands::signal(Call& call) {
  if (auto wrong = check_args(call)) {
    return *wrong;
  }
  if (call.args.empty()) {
    return error("No args provided");
  }
  std::vector<int> signals;
  for (const std::string& arg : call.args) {
    const std::string name = normalize_signal(arg);
    const std::optional<int> number = parse_signal(name);
    if (!number) {
      return error("Invalid signal: " + wire::Value(name).inspect());
    }
    signals.push_back(*number);
  }
  std::string text;
  for (const int number : signals) {
    const std::vector<Pid> pids = target_.signal_all(number);
    text += (text.empty() ? "" : "\n") + std::string("Successfully sent ") + signal_name(number) +
            "s to " + count_of(pids.size()) + " processes: " + pid_list(pids);
  }
  return {text};
}

Commands::Answer Commands::die(Call& call) {
  if (auto wrong = check_args(call)) {
    return *wrong;
  }
  int number = target_.pool().config().stop_signal;
  if (!call.args.empty()) {
    const std::string name = normalize_signal(call.args[0]);
    const std::optional<int> parsed = parse_signal(name);
    if (!parsed) {
      return error("Invalid signal: " + wire::Value(name).inspect());
    }
    number = *parsed;
  }
  const std::vector<Pid> pids = target_.worker_pids();
  target_.apply(pool::event::Stop{number, false});
  return {"Einhorn is going down! Successfully sent " + signal_name(number) + "s to " +
          count_of(pids.size()) + " processes: " + pid_list(pids)};
}

// "4711", "2", "pid=4711", "index=2". Errors are the answer to whoever asked.
Result<const pool::Worker*> Commands::find_worker(const std::string& given) const {
  const std::size_t equals = given.find('=');
  const std::string what = equals == std::string::npos ? "" : given.substr(0, equals);
  const std::optional<std::uint32_t> number =
      whole_number<std::uint32_t>(equals == std::string::npos ? given : given.substr(equals + 1));
  if (!number || (!what.empty() && what != "pid" && what != "index")) {
    return make_error("Invalid worker: '" + given + "'", "give its pid or its index, a number");
  }
  const pool::Worker* with_pid = nullptr;
  const pool::Worker* with_index = nullptr;
  if (what != "index" && *number != 0) {
    if (const auto worker = target_.worker_with(static_cast<Pid>(*number))) {
      with_pid = target_.pool().find(*worker);
    }
  }
  if (what != "pid") {
    for (const pool::Worker* worker : target_.pool().workers()) {
      with_index = worker->id.slot.value == *number ? worker : with_index;
    }
  }
  if (with_pid != nullptr && with_index != nullptr && with_pid != with_index) {
    return make_error(given + " is the pid of one worker and the index of another",
                      "say pid=" + given + " or index=" + given);
  }
  if (with_pid == nullptr && with_index == nullptr) {
    return make_error("No worker has " +
                          (what.empty() ? "the pid or index " : "the " + what + " ") +
                          std::to_string(*number),
                      "status lists them");
  }
  return with_pid != nullptr ? with_pid : with_index;
}

Commands::Answer Commands::stop_worker(Call& call) {
  if (auto wrong = check_args(call)) {
    return *wrong;
  }
  if (call.args.size() != 1) {
    return error("stop_worker takes one argument: the pid or the index of a worker");
  }
  const Result<const pool::Worker*> found = find_worker(call.args[0]);
  if (!found) {
    return error(found.error().message());
  }
  const pool::Worker worker = **found;
  const auto& ledger = target_.pool().ledger();
  const Pid pid = target_.pid_of(worker.id);
  const std::string who = "Worker " + (pid != 0 ? std::to_string(pid) + " " : std::string()) +
                          "(index " + std::to_string(worker.id.slot.value) + ")";
  if (!ledger.respawn) {
    return error(who + " goes anyway: Einhorn is going down");
  }
  if (ledger.failed) {
    return error(who + " stays: no workers are started any more, so nobody would take its place");
  }
  if (worker.stopping()) {
    return {who + " is stopping already"};
  }
  const bool serves = worker.state == pool::WorkerState::kReady;
  if (serves && worker.version != ledger.version) {
    return {who + " is one of the old version, which is being replaced; it stops with the others"};
  }
  if (serves && worker.ailment != pool::Ailment::kNone) {
    return {who + " is to be replaced already: " + worker.complaint};
  }
  target_.tell({Level::kInfo, "stop_worker", who + " is to be replaced, as commanded"});
  target_.apply(pool::event::Replace{worker.id});
  if (!serves) {
    return {who + " was not up yet: it is told to stop, and another one is started"};
  }
  const pool::Worker* now = target_.pool().find(worker.id);
  if (now != nullptr && now->recycling) {
    return {who +
            " is being replaced: another one starts, and when that is up this one is told to "
            "stop"};
  }
  return {who + " will be replaced " +
          (ledger.upgrade ? "when the upgrade is over"
                          : "when its turn comes: others are being "
                            "replaced")};
}

Commands::Answer Commands::upgrade(Call& call) { return start_upgrade(call, true); }

Commands::Answer Commands::upgrade_fleet(Call& call) { return start_upgrade(call, false); }

Commands::Answer Commands::start_upgrade(Call& call, bool smooth) {
  static_cast<void>(check_args(call));
  bool rollback = true;
  bool to_ruby = false;
  for (const std::string& arg : call.args) {
    if (arg == "--no-rollback") {
      rollback = false;
    } else if (arg == "--to-ruby") {
      to_ruby = true;
    } else {
      return {"Unknown argument " + wire::Value(arg).inspect() +
                  "; an upgrade takes only --no-rollback and --to-ruby",
              "could_not_start"};
    }
  }
  if (!target_.pool().ledger().respawn) {
    return {"Not upgrading because Einhorn is going down", "could_not_start"};
  }
  const std::string first =
      smooth ? "Upgrading smoothly, as commanded" : "Upgrading fleet, as commanded";
  const wire::Value* id = call.request.document.find("id");
  const bool waits = id != nullptr && !id->is_null();
  if (waits) {
    // Noted first: whoever was told that more follows gets it, also from the next master.
    call.server.subscribe(call.connection, {*id, call.request.language});
    call.server.reply(call.connection, {first, *id, true, ""}, call.request.language);
  } else {
    call.server.reply(call.connection, {first, std::nullopt, false, ""}, call.request.language);
  }
  if (Status begun =
          to_ruby ? target_.begin_leaving_to_ruby(smooth) : target_.begin_upgrade(smooth, rollback);
      !begun && waits) {
    call.server.refuse(call.connection, "Could not start the upgrade: " + begun.error().message(),
                       "could_not_start");
  }
  return {std::nullopt};
}

Commands::Answer Commands::rollback(Call& call) {
  const auto& ledger = target_.pool().ledger();
  if (!ledger.respawn) {
    return error("Not rolling back because Einhorn is going down");
  }
  if (!ledger.upgrade && !ledger.previous) {
    return error("Can't roll back: there is no version before this one");
  }
  if (ledger.upgrade && ledger.upgrade->going_back) {
    return error("Can't roll back: a roll-back is already under way");
  }
  const wire::Value* id = call.request.document.find("id");
  if (id != nullptr && !id->is_null()) {
    call.server.subscribe(call.connection, {*id, call.request.language});
    call.server.reply(call.connection, {"Rolling back, as commanded", *id, true, ""},
                      call.request.language);
  } else {
    call.server.reply(call.connection, {"Rolling back, as commanded", std::nullopt, false, ""},
                      call.request.language);
  }
  target_.apply(pool::event::RollBack{});
  return {std::nullopt};
}

Commands::Answer Commands::reload(Call& /*call*/) {
  if (Status begun = target_.reload_config(); !begun) {
    return error("Could not reload: " + begun.error().message());
  }
  return {"Reloading, as commanded"};
}

Commands::Answer Commands::worker_ack(Call& call) {
  const wire::Value* pid = call.request.document.find("pid");
  if (pid != nullptr && pid->as_integer() != nullptr) {
    target_.ack(call.connection.peer, static_cast<Pid>(*pid->as_integer()));
  } else {
    target_.tell({Level::kError, "bad_request",
                  "Invalid request (no pid): " + call.request.document.inspect()});
  }
  call.server.close_after_output(call.connection);
  return {std::nullopt};
}

Commands::Answer Commands::worker_ping(Call& call) {
  const wire::Value* pid = call.request.document.find("pid");
  if (pid != nullptr && pid->as_integer() != nullptr) {
    const wire::Value* request_id = call.request.document.find("request_id");
    std::string text = request_id != nullptr ? wire::encode_json(*request_id) : "null";
    if (text.size() > limits::kMaxRequestIdBytes) {
      const std::string* whole = request_id->as_string();
      text = wire::encode_json(wire::Value(
          (whole != nullptr ? *whole : text).substr(0, limits::kMaxRequestIdBytes / 6)));
    }
    WorkerPing said{std::move(text), std::nullopt};
    const wire::Value* busy = call.request.document.find("busy");
    if (busy != nullptr && busy->as_bool() != nullptr) {
      said.busy = *busy->as_bool();
    }
    target_.ping(call.connection.peer, static_cast<Pid>(*pid->as_integer()), std::move(said));
  } else {
    target_.tell({Level::kError, "bad_request",
                  "Invalid request (no pid): " + call.request.document.inspect()});
  }
  call.server.close_after_output(call.connection);
  return {std::nullopt};
}

Commands::Answer Commands::guard_takeover(Call& call) {
  if (target_.hand_over(call.connection)) {
    return {std::nullopt};
  }
  return error("A guard is alive: pid " + std::to_string(target_.public_pid()));
}

}  // namespace einhorn::master
