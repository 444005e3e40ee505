// People and tools on the command socket, as models: polite, silent, vanishing, hostile.
//
// A polite one keeps account: every request that it could send as a whole is answered exactly once,
// unless the connection was closed because the master died.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/files.h"
#include "sim/workers.h"
#include "sim/world.h"

namespace einhorn::sim {

class Clients {
 public:
  Clients(World& world, Workers& workers) : world_(world), workers_(workers) {}

  void request(const std::string& command, const std::string& arguments);
  void random_requests(std::size_t count, Duration silence);
  void garbage();
  // Somebody without rights: tries to end the pool, or to ACK for a worker that it is not.
  void stranger();
  void vanish();
  void upgrade();

  // After every turn of a master: something may have been answered.
  void poke();
  // What a dead master had read is lost.
  void on_master_killed();
  // Whoever still waits for an answer.
  [[nodiscard]] std::string unanswered() const;
  void clear();

 private:
  struct Request {
    std::string what;
    bool final_answer = false;
    bool waiting = false;  // it was told that more would follow
    bool orphaned =
        false;  // a master died while it had it: it may be answered again by the next one
  };
  struct Client {
    std::uint64_t number = 0;
    Pid pid = 0;
    std::shared_ptr<Stream> stream;
    std::string outbox;
    std::string inbox;
    std::map<std::int64_t, Request> requests;  // by id
    std::size_t anonymous = 0;                 // answers still to come to requests without id
    bool polite = true;
    bool planned = false;
    bool slow = false;   // sends its requests bit by bit
    Instant reads_from;  // silent until then
    Instant leaves_at;
  };
  using ClientPtr = std::shared_ptr<Client>;

  static constexpr std::size_t kMost = 40;
  static constexpr std::int64_t kMostRequests = 4000;  // in one life

  ClientPtr arrive(bool polite);
  void add_request(Client& client, const std::string& command, const std::string& arguments);
  void plan(const ClientPtr& client, Duration delay);
  void step(const ClientPtr& client);
  void on_line(Client& client, const std::string& line);
  void on_end(Client& client);
  void leave(const ClientPtr& client);
  [[nodiscard]] static bool satisfied(const Client& client);
  std::pair<std::string, std::string> random_command();

  World& world_;
  Workers& workers_;
  std::map<std::uint64_t, ClientPtr> clients_;
  std::uint64_t next_number_ = 1;
  std::int64_t next_id_ = 1;
};

}  // namespace einhorn::sim
