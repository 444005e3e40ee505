// Zygotes: a process per version, in the application's own language, that has the version's code
// loaded and forks its workers (docs/preload.md has the messages).
//
// The master never waits for one: a fork that was asked for comes back as a message, and everything
// has its deadline. A zygote's socket is kept by the guard under "zygote:NUMBER", so that a new
// master goes on with the same zygote. Of what a zygote or a new worker says, the kernel vouches for
// the sender.
//
// What is never lost: a message stays in its socket until what it says has been written down, and a
// request has a number (its fork id) that is written down before it is sent, so that it can be
// repeated after a master's death. The numbers grow in the order of the requests, which is not that
// of the workers' epochs: a hook may hold one up. A zygote that dies takes nobody along: its workers
// are the guard's children.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "master/guard_link.h"
#include "master/log.h"
#include "os/kernel.h"
#include "pool/event.h"
#include "wire/snapshot.h"

namespace einhorn::master {

class Zygotes {
 public:
  static constexpr std::uint64_t kSocketToken = std::uint64_t{8} << 40U;
  static constexpr std::uint64_t kDeathToken = std::uint64_t{9} << 40U;

  // Of one zygote: preloading, preloaded, preload_failed, zygote_lost.
  struct Happening {
    std::string_view event;
    Version version;
    Pid pid = 0;
    std::string reason;
    std::optional<Duration> took;
  };

  struct Hooks {
    std::function<os::SpawnSpec(Version)> spec;  // how one is started, but for its socket
    std::function<std::vector<std::string>(WorkerId)> variables;  // each worker's own
    std::function<void(const std::string&)> note;                 // an entry for the journal
    std::function<void(WorkerId)> note_worker;                    // with its request()
    std::function<bool(WorkerId)> wanted;       // whether it is still to be started
    std::function<bool(Pid)> knows;             // whether that is a worker already
    std::function<std::set<Version>()> needed;  // versions that have workers, or get some
    std::function<bool(Version)> current;       // ones that get some at any time
    // A worker runs. `foreign`: it is nobody's child that we could ask. Returns whether it was still
    // there.
    std::function<bool(WorkerId, Pid, bool foreign)> forked;
    std::function<void(WorkerId)> lost;  // it was gone already and nobody said how it ended
    std::function<void(WorkerId, std::string reason, pool::event::Blame)> failed;
    // The version can't be preloaded: is it to be executed instead? Then `execute` starts a worker.
    std::function<bool(Version)> fall_back;
    std::function<void(WorkerId, Version)> execute;
    std::function<void(const Happening&)> told;  // for the event stream
  };

  // Of a zygote, for a worker: by what number, and of which zygote (its number). 0: not yet.
  struct Request {
    std::uint64_t fork_id = 0;
    std::uint64_t zygote = 0;
  };

  // What others may see.
  struct View {
    Version version;
    Pid pid = 0;
    bool loaded = false;
    std::string status;
  };

  Zygotes(os::Kernel& kernel, GuardLink& guard, Log& log, const wire::Settings& settings,
          Hooks hooks);
  ~Zygotes();
  Zygotes(const Zygotes&) = delete;
  Zygotes& operator=(const Zygotes&) = delete;

  // What the last master has left: a zygote's record, its socket, workers that were to be forked.
  void adopt(const wire::ZygoteRecord& record);
  bool adopt(std::string_view name, int fd);  // false: it is none of ours
  void expect(WorkerId worker, Version version, Request request);
  // Goes on. `same_guard`: adopted zygotes are its children; else they are of no more use.
  struct Place {
    int keep_below = 0;
    Pid guard = 0;
    bool same_guard = true;
    int death_signal = 0;  // what workers get when the guard dies; 0: nothing
  };
  void start(Instant now, const Place& place);

  // Its outcome comes as `forked` or `failed`. Behind number(), which is to be written down first.
  void fork(WorkerId worker, Version version, Instant now);
  void number(WorkerId worker) { requests_[worker.epoch] = {next_fork_id_++, 0}; }
  [[nodiscard]] Request request(WorkerId worker) const;

  void on_socket(std::uint64_t number, const os::Ready& ready, Instant now);
  void on_death(std::uint64_t number, Instant now);
  // What waits in their sockets was said before anything that is heard of elsewhere.
  void hear_all(Instant now);
  // How a child of the guard ended. False: it was no zygote.
  bool on_ended(Pid pid, os::Ended how, Instant now);
  void on_guard_lost(Instant now);

  // Versions may have come or gone.
  void review() { review_ = true; }
  void turn(Instant now);
  [[nodiscard]] std::optional<Instant> next_deadline() const;

  void end_all();
  // Everything that a new guard has to keep.
  void list(std::vector<std::pair<std::string, int>>& all) const;
  [[nodiscard]] std::map<std::uint64_t, wire::ZygoteRecord> records() const;
  [[nodiscard]] std::vector<View> views() const;
  [[nodiscard]] bool loaded(Version version) const;
  [[nodiscard]] std::size_t count() const { return zygotes_.size(); }

 private:
  enum class State {
    kLoading,
    kReady,
    kLeaving,  // asked for nothing more; what it was asked for may still come
  };
  struct Sent {
    WorkerId worker;
    Instant deadline;
  };
  struct Zygote {
    wire::ZygoteRecord record;
    int pidfd = -1;
    int socket = -1;
    State state = State::kLoading;
    bool own = false;      // our own child: there was no guard when it was started
    bool foreign = false;  // its workers are nobody's children that we could ask
    bool adopted = false;
    bool ended = false;
    bool writable_watched = false;
    bool complained = false;
    Instant started_at;
    std::optional<Instant> deadline;  // of loading, of leaving
    std::string status;
    std::map<std::uint64_t, Sent> sent;
  };
  using Lines = std::vector<std::pair<std::string, std::string>>;

  void resume_requests(Instant now);
  void begin(Version version, Instant now);
  void tell_unmet(const os::Spawned& spawned);
  [[nodiscard]] Zygote* active(Version version);
  Zygote* find(std::uint64_t number);
  void dispatch(Instant now);
  void flush(Zygote& zygote, Instant now);
  bool send(Zygote& zygote, std::uint64_t fork_id, WorkerId worker, Instant now);
  void watch_socket(Zygote& zygote, bool for_writing);
  void hear(std::uint64_t number, Instant now);
  void on_message(Zygote& zygote, const os::Message& message, Instant now);
  void on_forked(Zygote& zygote, std::uint64_t fork_id, Pid pid, Instant now);
  void on_ready(Zygote& zygote, Instant now);
  void on_fork_failed(Zygote& zygote, std::uint64_t fork_id, const std::string& why);
  void fail(WorkerId worker, const std::string& reason, pool::event::Blame blame);
  void on_closed(Zygote& zygote, Instant now);
  void on_ended(Zygote& zygote, std::optional<os::Ended> how, Instant now);
  void on_deadline(Zygote& zygote, Instant now);
  void fail_load(Zygote& zygote, const std::string& reason, pool::event::Blame blame, Instant now);
  std::vector<WorkerId> take_waiting(Version version);
  void fail_waiting(Version version, const std::string& reason, pool::event::Blame blame);
  void leave(Zygote& zygote, Instant now);
  [[nodiscard]] static bool is_over(const Zygote& zygote);
  void drop(std::uint64_t number);
  void kill(const Zygote& zygote);
  void review_versions();
  void tell_lost(const char* event, const Zygote& zygote, const std::string& reason,
                 const char* then);
  void plan_restart(Version version, bool lived, Instant now);
  void note(const Zygote& zygote) { hooks_.note(wire::encode_entry(zygote.record)); }
  [[nodiscard]] std::string shown() const;
  [[nodiscard]] std::string closed_socket() const;

  os::Kernel& kernel_;
  GuardLink& guard_;
  Log& log_;
  const wire::Settings& settings_;
  Hooks hooks_;
  std::map<std::uint64_t, Zygote> zygotes_;
  std::map<std::uint64_t, std::pair<WorkerId, Version>> waiting_;  // not asked for yet
  std::map<Epoch, Request> requests_;
  std::vector<std::pair<WorkerId, Version>> expected_;  // of the last master's, until start()
  std::uint64_t next_fork_id_ = 1;
  std::map<Version, Instant> restart_at_;
  std::map<Version, Duration> delays_;
  std::map<Epoch, std::pair<WorkerId, Instant>> vanished_;  // gone before we could look
  std::uint64_t next_number_ = 1;
  int keep_below_ = 0;
  Pid guard_pid_ = 0;
  int death_signal_ = 0;
  bool hearing_ = false;
  bool review_ = true;
};

}  // namespace einhorn::master
