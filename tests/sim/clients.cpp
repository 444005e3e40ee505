#include "sim/clients.h"

#include <algorithm>

#include "wire/message.h"

namespace einhorn::sim {
namespace {

using Kind = os::Transfer::Kind;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

}  // namespace

Clients::ClientPtr Clients::arrive(bool polite) {
  if (clients_.size() >= kMost || (world_.faults && next_id_ > kMostRequests)) {
    return nullptr;  // a life in which nothing else happens any more shows nothing new
  }
  const ProcessPtr process = world_.start_process(ProcessKind::kClient, 1);
  const std::size_t capacity =
      static_cast<std::size_t>(world_.random.chance(300) ? world_.random.between(64, 600) : 65536);
  std::shared_ptr<Stream> stream = workers_.connect(process->pid, capacity);
  if (stream == nullptr) {
    world_.end(process, {1, 0});
    return nullptr;
  }
  auto client = std::make_shared<Client>();
  client->number = next_number_++;
  client->pid = process->pid;
  client->stream = std::move(stream);
  client->polite = polite;
  client->reads_from = world_.now();
  client->leaves_at = world_.now() + minutes{60};
  client->slow = world_.random.chance(200);
  clients_[client->number] = client;
  plan(client, world_.random.skewed(microseconds{10}, milliseconds{20}));
  return client;
}

void Clients::add_request(Client& client, const std::string& command,
                          const std::string& arguments) {
  const bool anonymous = command != "upgrade" && command != "upgrade_fleet" &&
                         command != "rollback" && world_.random.chance(100);
  const bool json = world_.random.chance(500);
  const std::string quote = json ? "\"" : "";
  std::string line = "{" + quote + "command" + quote + ": " + quote + command + quote;
  if (!arguments.empty()) {
    line += ", " + quote + "args" + quote + ": [" + arguments + "]";
  }
  if (anonymous) {
    ++client.anonymous;
  } else {
    line += ", " + quote + "id" + quote + ": " + std::to_string(next_id_);
    client.requests[next_id_++] = {command + " " + arguments, false, false, false};
  }
  client.outbox += line + "}\n";
  world_.note("client", std::to_string(client.number) + " will ask " + line);
}

std::pair<std::string, std::string> Clients::random_command() {
  Random& random = world_.random;
  const std::string count = "\"" + std::to_string(random.between(1, 12)) + "\"";
  static const std::vector<std::string> kConfigs = {"\"{max_unacked: 2}\"",
                                                    "\"{signal_timeout: 5}\"",
                                                    "\"{signal_timeout: }\"",
                                                    "\"{canary: 2}\"",
                                                    "\"{canary_seconds: 1}\"",
                                                    "\"{upgrade_failures: 2}\"",
                                                    "\"{drain_timeout: 20}\"",
                                                    "\"{drain_timeout: }\"",
                                                    "\"{seconds: 0.5}\"",
                                                    "\"{seconds: }\"",
                                                    "\"{number: 5}\"",
                                                    "\"{nonsense: 1}\"",
                                                    "\"{upgrade_timeout: 45}\"",
                                                    "\"{upgrade_timeout: }\"",
                                                    "\"{max_unacked: 0}\"",
                                                    "\"{max_upgrade_additional: 1}\"",
                                                    "\"{max_upgrade_additional: }\"",
                                                    "\"[]\""};
  switch (random.below(16)) {
    case 0:
      return {"inc", ""};
    case 1:
      return {"dec", ""};
    case 2:
      return {"set_workers", count};
    case 3:
      return {"signal", random.chance(900) ? "\"USR1\"" : "\"TERM\""};
    case 4:
    case 5:
      return {"config", random.pick(kConfigs)};
    case 6:
      return {"ehlo", ""};
    case 7:
      return {"help", ""};
    case 8:
      return {"louder", ""};
    case 9:
      return {"quieter", ""};
    case 10:
      return {random.chance(300) ? "rollback" : "status", ""};
    case 11:
      return {random.chance(300) ? "reload" : "state", ""};
    case 12:
      return random.chance(700) ? std::pair<std::string, std::string>{"stop_worker", count}
                                : std::pair<std::string, std::string>{"no_such_command", ""};
    case 13:
      return {"state", "\"json\""};
    case 14:
      return {"signal", "\"USR9\""};
    default:
      return {"state", ""};
  }
}

void Clients::request(const std::string& command, const std::string& arguments) {
  if (const ClientPtr client = arrive(true)) {
    add_request(*client, command, arguments);
  }
}

void Clients::random_requests(std::size_t count, Duration silence) {
  if (const ClientPtr client = arrive(true)) {
    client->reads_from = world_.now() + silence;
    for (std::size_t i = 0; i < count; ++i) {
      const auto [command, arguments] = random_command();
      add_request(*client, command, arguments);
    }
  }
}

void Clients::garbage() {
  const ClientPtr client = arrive(false);
  if (client == nullptr) {
    return;
  }
  Random& random = world_.random;
  static const std::vector<std::string> kPieces = {"{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   ": ",
                                                   ", ",
                                                   "\"",
                                                   "\n",
                                                   "command",
                                                   "state",
                                                   "id",
                                                   "&a ",
                                                   "*a ",
                                                   "--- ",
                                                   "!ruby/object:Set ",
                                                   "%0A",
                                                   "%25",
                                                   "%",
                                                   "\xff\xfe",
                                                   "null",
                                                   "inc",
                                                   "- ",
                                                   "'",
                                                   "\t",
                                                   "|",
                                                   ">",
                                                   "\r\n",
                                                   "#",
                                                   "1e999",
                                                   "0x1",
                                                   "args",
                                                   "?",
                                                   "~",
                                                   std::string("\0x", 2)};
  const auto pieces = random.between(1, 60);
  for (std::int64_t i = 0; i < pieces; ++i) {
    client->outbox += random.pick(kPieces);
  }
  if (random.chance(150)) {
    client->outbox += std::string(static_cast<std::size_t>(random.between(60'000, 80'000)), 'x');
  }
  if (random.chance(500)) {
    client->outbox += "\n";
  }
  client->leaves_at = world_.now() + random.skewed(milliseconds{1}, seconds{60});
  world_.note("client", std::to_string(client->number) + " talks garbage");
}

void Clients::stranger() {
  constexpr std::uint32_t kNobody = 65534;
  const std::vector<ProcessPtr> workers = workers_.living();
  if (workers.empty() || clients_.size() >= kMost) {
    return;
  }
  // Rather one for whom it would count: who has not said itself that it is up.
  const auto silent = std::ranges::find_if(
      workers, [](const ProcessPtr& worker) { return worker->known && !worker->said_up; });
  const Pid target = silent != workers.end() && world_.random.chance(700)
                         ? (*silent)->pid
                         : world_.random.pick(workers)->pid;
  const ProcessPtr stranger = world_.random.pick(workers);
  const Pid from = stranger->pid;
  std::shared_ptr<Stream> stream = from == target ? nullptr : workers_.connect(from, 4096, kNobody);
  if (stream == nullptr) {
    return;
  }
  stranger->strange = true;
  stream->write(world_.random.chance(300)
                    ? "{\"command\": \"die\", \"args\": []}\n"
                    : "{\"command\": \"worker:ack\", \"pid\": " + std::to_string(target) + "}\n");
  world_.note("client", "process " + std::to_string(from) + " asks for what it may not");
  world_.after(world_.random.skewed(milliseconds{1}, seconds{5}), [stream] {});
}

void Clients::vanish() {
  const ClientPtr client = arrive(false);
  if (client == nullptr) {
    return;
  }
  const auto [command, arguments] = random_command();
  add_request(*client, world_.random.chance(100) ? "upgrade" : command, arguments);
  client->leaves_at = world_.now() + world_.random.skewed(Duration::zero(), milliseconds{50});
  world_.after(client->leaves_at - world_.now(), [this, client] { leave(client); });
}

void Clients::upgrade() {
  if (const ClientPtr client = arrive(true)) {
    const bool no_rollback = world_.random.chance(200);
    add_request(*client, world_.random.chance(600) ? "upgrade" : "upgrade_fleet",
                no_rollback ? "\"--no-rollback\"" : "");
  }
}

void Clients::plan(const ClientPtr& client, Duration delay) {
  if (!client->planned) {
    client->planned = true;
    world_.after(delay, [this, client] {
      client->planned = false;
      step(client);
    });
  }
}

void Clients::poke() {
  for (const auto& [number, client] : clients_) {
    if (client->stream->readable() && world_.now() >= client->reads_from) {
      plan(client, world_.random.skewed(microseconds{10}, milliseconds{5}));
    }
  }
}

bool Clients::satisfied(const Client& client) {
  return client.outbox.empty() && client.anonymous == 0 &&
         std::all_of(client.requests.begin(), client.requests.end(),
                     [](const auto& entry) { return entry.second.final_answer; });
}

void Clients::step(const ClientPtr& client) {
  if (!clients_.contains(client->number)) {
    return;
  }
  while (!client->outbox.empty()) {
    const std::size_t most = client->slow || world_.random.chance(100) ? 1 + world_.random.below(20)
                                                                       : client->outbox.size();
    const os::Transfer sent = client->stream->write(client->outbox.substr(0, most));
    client->outbox.erase(0, sent.bytes);
    if (sent.kind != Kind::kDone || most < client->outbox.size()) {
      break;
    }
  }
  if (world_.now() >= client->reads_from) {
    std::string bytes;
    for (;;) {
      const os::Transfer got = client->stream->read(4096, bytes);
      if (got.kind == Kind::kClosed) {
        on_end(*client);
        leave(client);
        return;
      }
      if (got.kind == Kind::kWouldBlock) {
        break;
      }
      client->inbox += bytes;
    }
    std::size_t end = 0;
    while ((end = client->inbox.find('\n')) != std::string::npos) {
      const std::string line = client->inbox.substr(0, end);
      client->inbox.erase(0, end + 1);
      on_line(*client, line);
    }
  }
  if (world_.now() >= client->leaves_at || (client->polite && satisfied(*client))) {
    leave(client);
    return;
  }
  if (!client->outbox.empty() || !client->polite || world_.now() < client->reads_from) {
    const Duration pause =
        client->slow ? world_.random.duration(milliseconds{5}, milliseconds{900}) : milliseconds{5};
    plan(client,
         client->outbox.empty() ? std::max(pause, client->reads_from - world_.now()) : pause);
  }
}

void Clients::on_line(Client& client, const std::string& line) {
  if (!client.polite) {
    return;
  }
  const Result<wire::Reply> reply = wire::parse_reply(line);
  world_.expect(reply.has_value(), "answered-once", "an answer can't be read: " + line);
  world_.note("client", std::to_string(client.number) + " hears " + line.substr(0, 120));
  for (const std::string_view misheard : {"Could not parse command", "No \"command\" parameter"}) {
    world_.expect(
        !reply->message.starts_with(misheard), "answered-once",
        "client " + std::to_string(client.number) + " was not heard as it spoke: " + line);
  }
  const std::int64_t* id = reply->request_id ? reply->request_id->as_integer() : nullptr;
  if (id == nullptr) {
    world_.expect(client.anonymous > 0, "answered-once",
                  "client " + std::to_string(client.number) + " got an answer to nothing: " + line);
    --client.anonymous;
    return;
  }
  const auto request = client.requests.find(*id);
  world_.expect(request != client.requests.end(), "answered-once",
                "an answer to a request that was never made: " + line);
  world_.expect(!request->second.final_answer || request->second.orphaned, "answered-once",
                "request " + std::to_string(*id) + " (" + request->second.what +
                    ") was answered again after its last answer: " + line);
  request->second.waiting = true;
  request->second.final_answer = request->second.final_answer || !reply->wait;
}

void Clients::on_end(Client& client) {
  if (client.polite && !satisfied(client)) {
    for (const auto& [id, request] : client.requests) {
      world_.expect(request.final_answer || request.orphaned, "answered-once",
                    "the connection of client " + std::to_string(client.number) +
                        " was closed without an answer to request " + std::to_string(id) + " (" +
                        request.what + ")");
    }
    world_.expect(client.anonymous == 0, "answered-once",
                  "a connection was closed without an answer");
  }
}

void Clients::leave(const ClientPtr& client) {
  if (clients_.erase(client->number) > 0) {
    client->stream.reset();
    if (const ProcessPtr process = world_.find(client->pid)) {
      world_.end(process, {1, 0});
    }
  }
}

// What a dead master had read is lost; but whoever was told that more would follow still gets it.
void Clients::on_master_killed() {
  for (const auto& [number, client] : clients_) {
    bool lost = client->anonymous > 0 || !client->outbox.empty() || client->requests.empty() ||
                client->stream->mid_line() || world_.snapshot_lossy ||
                (!client->inbox.empty() && client->inbox.back() != '\n');
    for (auto& [id, request] : client->requests) {
      request.orphaned = true;
      lost = lost || (!request.final_answer && !request.waiting);
    }
    if (lost) {
      client->polite = false;
      client->leaves_at = std::min(client->leaves_at, world_.now() + seconds{60});
      plan(client, milliseconds{5});
    }
  }
}

std::string Clients::unanswered() const {
  for (const auto& [number, client] : clients_) {
    if (client->polite && !satisfied(*client)) {
      for (const auto& [id, request] : client->requests) {
        if (!request.final_answer) {
          return "client " + std::to_string(number) + " waits for the answer to request " +
                 std::to_string(id) + " (" + request.what + ")";
        }
      }
      return "client " + std::to_string(number) + " waits";
    }
  }
  return "";
}

void Clients::clear() {
  while (!clients_.empty()) {
    const ClientPtr client = clients_.begin()->second;  // leaving takes it out of the map
    leave(client);
  }
}

}  // namespace einhorn::sim
