// Every state of a worker's life against every event: what the pool answers and where the worker is
// afterwards. A cell that is not listed fails, and a new state or kind of event does not compile.
#include <array>
#include <string>
#include <variant>

#include "pool_driver.h"

namespace einhorn::pool::testing {
namespace {

using ::testing::ElementsAreArray;

constexpr std::array kStates = {WorkerState::kSpawning, WorkerState::kStarting, WorkerState::kReady,
                                WorkerState::kStopping};
constexpr std::size_t kEvents = std::variant_size_v<Event>;

// Breaks the build (-Werror=switch) when a state is added; the table must get its row then.
constexpr std::size_t position(WorkerState state) {
  switch (state) {
    case WorkerState::kSpawning:
      return 0;
    case WorkerState::kStarting:
      return 1;
    case WorkerState::kReady:
      return 2;
    case WorkerState::kStopping:
      return 3;
  }
  return 99;
}
static_assert(position(kStates[3]) == kStates.size() - 1);
static_assert(kEvents == 21, "a new kind of event needs its column in the table");
static_assert(std::variant_size_v<Action> == 9 && std::variant_size_v<Note> == 35,
              "the driver's texts and this table know all actions and notes");

template <typename Kind>
constexpr std::size_t index_of() {
  return Event(Kind{}).index();
}

// The event of that kind about the one worker there is.
Event make_event(std::size_t kind, WorkerId worker) {
  const std::array<Event, kEvents> all = {
      event::Started{},
      event::TimerDue{},
      event::Spawned{worker},
      event::SpawnFailed{worker, "exec ./x: no"},
      event::Exited{worker, killed(SIGSEGV)},
      event::Acked{worker, AckMode::kManual},
      event::Pinged{worker, "7"},
      event::StatusSaid{worker, "fine"},
      event::Sampled{{Sample{.worker = worker, .memory = std::uint64_t{9} << 30U}}},
      event::Probed{worker, false, "no"},
      event::Examined{worker},
      event::HookEnded{worker},
      event::Replace{worker},
      event::SetNumber{2},
      event::Upgrade{},
      event::RollBack{},
      event::Stop{SIGTERM, false},
      event::Quit{SIGQUIT},
      event::SignalAll{SIGUSR1},
      event::LoadSeen{50, 1.0},
      event::Reconfigured{},
  };
  Event event = all.at(kind);
  EXPECT_EQ(event.index(), kind) << "the list must be in the order of the variant";
  if (auto* reconfigured = std::get_if<event::Reconfigured>(&event)) {
    reconfigured->config = manual(1);
    reconfigured->config.signal_timeout = seconds{5};
  }
  return event;
}

// A pool of one whose worker, 1@0, is in that state, one second before the clock of the event.
Driver worker_in(WorkerState state) {
  Driver driver(manual(1));
  driver.hold_spawns = true;
  driver.start();
  if (state != WorkerState::kSpawning) {
    driver.release_spawns();
    driver.hold_spawns = true;
  }
  if (state == WorkerState::kReady || state == WorkerState::kStopping) {
    driver.ack(1);
  }
  if (state == WorkerState::kStopping) {
    // As a new version does; its own worker (2@1) is up, and waits for nothing.
    driver.hold_spawns = false;
    driver.happen(event::Upgrade{});
    driver.ack(2);
    driver.hold_spawns = true;
  }
  driver.advance(seconds{1});
  driver.take();
  return driver;
}

struct Cell {
  WorkerState state;
  std::size_t event;
  Lines actions;
  std::string after;  // the worker's state, "gone", and what else is remarkable of it
};

const std::vector<Cell>& table();

std::string state_after(const Driver& driver) {
  const Worker* worker = driver.find(1);
  if (worker == nullptr) {
    return "gone";
  }
  std::string text(name(worker->state));
  text += worker->acked() ? " acked" : "";
  text += worker->stop_wanted ? " stop wanted" : "";
  text += worker->pinged_at ? " pinged " + worker->pinged_request_id : "";
  text += worker->status_text.empty() ? "" : " says " + worker->status_text;
  for (const int number : worker->signaled.numbers()) {
    text += " " + signal_name(number);
  }
  return text;
}

TEST(PoolTable, HasEveryCellOnce) {
  std::set<std::pair<std::size_t, std::size_t>> seen;
  for (const Cell& cell : table()) {
    EXPECT_TRUE(seen.emplace(position(cell.state), cell.event).second)
        << name(cell.state) << " x " << cell.event << " is listed twice";
  }
  for (const WorkerState state : kStates) {
    for (std::size_t event = 0; event < kEvents; ++event) {
      EXPECT_TRUE(seen.contains({position(state), event}))
          << name(state) << " x event " << event << " is not listed";
    }
  }
  EXPECT_EQ(seen.size(), kStates.size() * kEvents);
}

TEST(PoolTable, EveryCellDoesWhatIsListed) {
  for (const Cell& cell : table()) {
    SCOPED_TRACE(std::string(name(cell.state)) + " x event " + std::to_string(cell.event));
    Driver driver = worker_in(cell.state);
    ASSERT_EQ(driver.find(1)->state, cell.state);
    driver.happen(make_event(cell.event, driver.id(1)));
    EXPECT_THAT(driver.take(), ElementsAreArray(cell.actions));
    EXPECT_EQ(state_after(driver), cell.after);
  }
}

// An event about somebody who is gone, or whose slot has another worker, changes nothing.
TEST(PoolTable, EventsAboutStrangersAreIgnored) {
  for (std::size_t kind = 0; kind < kEvents; ++kind) {
    for (const WorkerId stranger : {WorkerId{Slot{0}, Epoch{77}}, WorkerId{Slot{9}, Epoch{1}}}) {
      Driver driver(manual(1));
      driver.start();
      driver.ack(1);
      driver.take();
      const Event event = make_event(kind, stranger);
      const bool about_one =
          kind >= index_of<event::Spawned>() && kind <= index_of<event::HookEnded>();
      if (!about_one) {
        continue;
      }
      const std::string before = text(*driver.find(1)) + text(driver.pool().ledger());
      driver.happen(event);
      EXPECT_TRUE(driver.take().empty()) << kind;
      EXPECT_EQ(text(*driver.find(1)) + text(driver.pool().ledger()), before) << kind;
    }
  }
}

TEST(PoolTable, StatesHaveTheirNames) {
  EXPECT_EQ(name(WorkerState::kSpawning), "spawning");
  EXPECT_EQ(name(WorkerState::kStarting), "starting");
  EXPECT_EQ(name(WorkerState::kReady), "ready");
  EXPECT_EQ(name(WorkerState::kStopping), "stopping");
}

TEST(PoolTable, EndsAreDescribed) {
  EXPECT_EQ(describe(exited(3)), "exited with status 3");
  EXPECT_EQ(describe(killed(SIGKILL)), "was killed by signal 9 (KILL)");
  EXPECT_EQ(describe({ExitStatus::Kind::kSignaled, SIGSEGV, true}),
            "was killed by signal 11 (SEGV), core dumped");
  EXPECT_EQ(describe({}), "ended in an unknown way");
}

const std::vector<Cell>& table() {
  using enum WorkerState;
  static const std::vector<Cell> kCells = {
      {kSpawning, index_of<event::Started>(), {}, "spawning"},
      {kSpawning, index_of<event::TimerDue>(), {}, "spawning"},
      {kSpawning, index_of<event::Spawned>(), {"launched 1@0 v0"}, "starting"},
      {kSpawning,
       index_of<event::SpawnFailed>(),
       {"launch failed 1@0 v0: exec ./x: no", "backing off 0.5s deaths 1"},
       "gone"},
      {kSpawning,
       index_of<event::Exited>(),
       {"exited 1@0 before ACK", "backing off 0.5s deaths 1"},
       "gone"},
      {kSpawning,
       index_of<event::Acked>(),
       {"launched 1@0 v0", "acked 1@0 manual after 1s", "up to 1/1"},
       "ready acked"},
      {kSpawning, index_of<event::Pinged>(), {}, "spawning pinged 7"},
      {kSpawning, index_of<event::StatusSaid>(), {}, "spawning says fine"},
      {kSpawning, index_of<event::Sampled>(), {}, "spawning"},
      {kSpawning, index_of<event::Probed>(), {}, "spawning"},
      {kSpawning, index_of<event::Examined>(), {}, "spawning"},
      {kSpawning, index_of<event::HookEnded>(), {}, "spawning"},
      {kSpawning, index_of<event::Replace>(), {}, "spawning stop wanted"},
      {kSpawning, index_of<event::SetNumber>(), {"number 1->2", "spawn 2@1 v0"}, "spawning"},
      {kSpawning,
       index_of<event::Upgrade>(),
       {"upgrade smooth v0->v1", "spawn 2@1 v1"},
       "spawning"},
      {kSpawning,
       index_of<event::RollBack>(),
       {"roll-back refused: there is no version before this one"},
       "spawning"},
      {kSpawning, index_of<event::Stop>(), {"stopping TERM"}, "spawning stop wanted"},
      {kSpawning, index_of<event::Quit>(), {"stopping QUIT", "leave 1"}, "spawning stop wanted"},
      {kSpawning, index_of<event::SignalAll>(), {"signaling USR1 []"}, "spawning"},
      {kSpawning, index_of<event::LoadSeen>(), {}, "spawning"},
      {kSpawning, index_of<event::Reconfigured>(), {}, "spawning"},
      {kStarting, index_of<event::Started>(), {}, "starting"},
      {kStarting, index_of<event::TimerDue>(), {}, "starting"},
      {kStarting, index_of<event::Spawned>(), {}, "starting"},
      {kStarting,
       index_of<event::SpawnFailed>(),
       {"launch failed 1@0 v0: exec ./x: no", "backing off 0.5s deaths 1"},
       "gone"},
      {kStarting,
       index_of<event::Exited>(),
       {"exited 1@0 before ACK", "backing off 0.5s deaths 1"},
       "gone"},
      {kStarting,
       index_of<event::Acked>(),
       {"acked 1@0 manual after 1s", "up to 1/1"},
       "ready acked"},
      {kStarting, index_of<event::Pinged>(), {}, "starting pinged 7"},
      {kStarting, index_of<event::StatusSaid>(), {}, "starting says fine"},
      {kStarting, index_of<event::Sampled>(), {}, "starting"},
      {kStarting, index_of<event::Probed>(), {}, "starting"},
      {kStarting, index_of<event::Examined>(), {}, "starting"},
      {kStarting, index_of<event::HookEnded>(), {}, "starting"},
      {kStarting,
       index_of<event::Replace>(),
       {"signaling USR2 [1@0]", "USR2 -> 1@0", "spawn 2@1 v0"},
       "stopping USR2"},
      {kStarting, index_of<event::SetNumber>(), {"number 1->2", "spawn 2@1 v0"}, "starting"},
      {kStarting,
       index_of<event::Upgrade>(),
       {"upgrade smooth v0->v1", "spawn 2@1 v1"},
       "starting"},
      {kStarting,
       index_of<event::RollBack>(),
       {"roll-back refused: there is no version before this one"},
       "starting"},
      {kStarting,
       index_of<event::Stop>(),
       {"stopping TERM", "signaling TERM [1@0]", "TERM -> 1@0"},
       "stopping TERM"},
      {kStarting,
       index_of<event::Quit>(),
       {"stopping QUIT", "signaling QUIT [1@0]", "QUIT -> 1@0", "leave 1"},
       "stopping QUIT"},
      {kStarting,
       index_of<event::SignalAll>(),
       {"signaling USR1 [1@0]", "USR1 -> 1@0"},
       "starting"},
      {kStarting, index_of<event::LoadSeen>(), {}, "starting"},
      {kStarting, index_of<event::Reconfigured>(), {}, "starting"},
      {kReady, index_of<event::Started>(), {}, "ready acked"},
      {kReady, index_of<event::TimerDue>(), {}, "ready acked"},
      {kReady, index_of<event::Spawned>(), {}, "ready acked"},
      {kReady,
       index_of<event::SpawnFailed>(),
       {"launch failed 1@0 v0: exec ./x: no", "backing off 0.5s deaths 1"},
       "gone"},
      {kReady, index_of<event::Exited>(), {"exited 1@0", "spawn 2@0 v0"}, "gone"},
      {kReady, index_of<event::Acked>(), {"ack refused 1@0 manual repeated"}, "ready acked"},
      {kReady, index_of<event::Pinged>(), {}, "ready acked pinged 7"},
      {kReady, index_of<event::StatusSaid>(), {}, "ready acked says fine"},
      {kReady, index_of<event::Sampled>(), {}, "ready acked"},
      {kReady, index_of<event::Probed>(), {}, "ready acked"},
      {kReady, index_of<event::Examined>(), {}, "ready acked"},
      {kReady, index_of<event::HookEnded>(), {}, "ready acked"},
      {kReady,
       index_of<event::Replace>(),
       {"ailing 1@0 asked: somebody asked for it", "recycling 1@0 asked", "spawn 2@1 v0"},
       "ready acked"},
      {kReady, index_of<event::SetNumber>(), {"number 1->2", "spawn 2@1 v0"}, "ready acked"},
      {kReady,
       index_of<event::Upgrade>(),
       {"upgrade smooth v0->v1", "spawn 2@1 v1"},
       "ready acked"},
      {kReady,
       index_of<event::RollBack>(),
       {"roll-back refused: there is no version before this one"},
       "ready acked"},
      {kReady,
       index_of<event::Stop>(),
       {"stopping TERM", "signaling TERM [1@0]", "TERM -> 1@0"},
       "stopping acked TERM"},
      {kReady,
       index_of<event::Quit>(),
       {"stopping QUIT", "signaling QUIT [1@0]", "QUIT -> 1@0", "leave 1"},
       "stopping acked QUIT"},
      {kReady,
       index_of<event::SignalAll>(),
       {"signaling USR1 [1@0]", "USR1 -> 1@0"},
       "ready acked"},
      {kReady, index_of<event::LoadSeen>(), {}, "ready acked"},
      {kReady, index_of<event::Reconfigured>(), {}, "ready acked"},
      {kStopping, index_of<event::Started>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::TimerDue>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::Spawned>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::SpawnFailed>(), {"launch failed 1@0 v0: exec ./x: no"}, "gone"},
      {kStopping, index_of<event::Exited>(), {"exited 1@0 stopping"}, "gone"},
      {kStopping,
       index_of<event::Acked>(),
       {"ack refused 1@0 manual repeated"},
       "stopping acked USR2"},
      {kStopping, index_of<event::Pinged>(), {}, "stopping acked pinged 7 USR2"},
      {kStopping, index_of<event::StatusSaid>(), {}, "stopping acked says fine USR2"},
      {kStopping, index_of<event::Sampled>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::Probed>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::Examined>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::HookEnded>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::Replace>(), {}, "stopping acked USR2"},
      {kStopping,
       index_of<event::SetNumber>(),
       {"number 1->2", "spawn 3@2 v1"},
       "stopping acked USR2"},
      {kStopping,
       index_of<event::Upgrade>(),
       {"upgrade smooth v1->v2", "spawn 3@2 v2"},
       "stopping acked USR2"},
      {kStopping,
       index_of<event::RollBack>(),
       {"rolling back v1->v0", "spawn 3@2 v0"},
       "stopping acked USR2"},
      {kStopping,
       index_of<event::Stop>(),
       {"stopping TERM", "signaling TERM [1@0 2@1]", "TERM -> 1@0", "TERM -> 2@1"},
       "stopping acked USR2 TERM"},
      {kStopping,
       index_of<event::Quit>(),
       {"stopping QUIT", "signaling QUIT [1@0 2@1]", "QUIT -> 1@0", "QUIT -> 2@1", "leave 1"},
       "stopping acked QUIT USR2"},
      {kStopping,
       index_of<event::SignalAll>(),
       {"signaling USR1 [1@0 2@1]", "USR1 -> 1@0", "USR1 -> 2@1"},
       "stopping acked USR2"},
      {kStopping, index_of<event::LoadSeen>(), {}, "stopping acked USR2"},
      {kStopping, index_of<event::Reconfigured>(), {}, "stopping acked USR2"},
  };
  return kCells;
}

}  // namespace
}  // namespace einhorn::pool::testing
