// Every note of the pool has its lines, and those that tools match on are upstream's to the letter.
#include <map>
#include <string>
#include <variant>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/narrate.h"

namespace einhorn::master {
namespace {

using ::testing::ElementsAre;
using namespace pool::note;  // NOLINT: the notes are what this file is about
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr WorkerId kWorker{Slot{3}, Epoch{7}};
constexpr WorkerId kOther{Slot{4}, Epoch{8}};

Pid pid_of(WorkerId worker) { return static_cast<Pid>(1000 + worker.epoch.value); }

std::vector<LogLine> lines_of(const pool::Note& note, pool::AckMode mode = pool::AckMode::kManual) {
  return narrate(note, &pid_of, mode);
}

std::vector<std::string> texts_of(const pool::Note& note,
                                  pool::AckMode mode = pool::AckMode::kManual) {
  std::vector<std::string> texts;
  for (const LogLine& line : lines_of(note, mode)) {
    texts.push_back(line.text);
  }
  return texts;
}

pool::ExitStatus killed() { return {pool::ExitStatus::Kind::kSignaled, SIGKILL, false}; }
pool::ExitStatus left(int code) { return {pool::ExitStatus::Kind::kExited, code, false}; }

TEST(Narrate, TextsThatToolsMatchOn) {
  EXPECT_THAT(texts_of(Launched{kWorker, Version{1}}),
              ElementsAre("===> Launched 1007 (index: 3)"));
  EXPECT_THAT(texts_of(Exited{kWorker, Version{1}, left(0), false, true, seconds{5}}),
              ElementsAre("===> Exited worker 1007"));
  EXPECT_THAT(texts_of(Exited{kWorker, Version{1}, left(0), true, true, seconds{5}}),
              ElementsAre("===> Exited worker 1007 before it was ACKed"));
  EXPECT_THAT(texts_of(Acked{kWorker, pool::AckMode::kManual, seconds{2}}),
              ElementsAre("Received a manual ACK from 1007"));
  EXPECT_THAT(texts_of(Acked{kWorker, pool::AckMode::kTimer, seconds{1}}),
              ElementsAre("Worker 1007 has been up for 1s, so we are considering it alive."));
  EXPECT_THAT(texts_of(AckCount{2, 5, 0}), ElementsAre("Up to 2 / 5 manual ACKs"));
  EXPECT_THAT(texts_of(AckCount{2, 5, 0}, pool::AckMode::kTimer),
              ElementsAre("Up to 2 / 5 timer ACKs"));
  EXPECT_THAT(texts_of(AckCount{1, 5, 3}),
              ElementsAre("Up to 1 / 5 manual ACKs, breaking the streak of 3 consecutive unacked "
                          "workers dying"));
  EXPECT_THAT(texts_of(Signaling{SIGUSR2, {kWorker, kOther}, {}}),
              ElementsAre("Sending USR2 to [1007, 1008]"));
  EXPECT_THAT(texts_of(UpgradeStarted{Version{0}, Version{1}, true, false, 0}),
              ElementsAre("Starting smooth upgrade from version 0..."));
  EXPECT_THAT(texts_of(UpgradeStarted{Version{0}, Version{1}, false, false, 0}),
              ElementsAre("Starting fleet upgrade from version 0..."));
  EXPECT_THAT(texts_of(CullingOld{2, true}),
              ElementsAre("Smooth upgrade: killing off 2 old workers."));
  EXPECT_THAT(texts_of(Upgraded{Version{3}}),
              ElementsAre("Upgraded successfully to version 3 (Einhorn " EINHORN_VERSION ")."));
}

TEST(Narrate, AnEndThatNobodyAskedForIsExplained) {
  EXPECT_THAT(
      texts_of(Exited{kWorker, Version{1}, left(3), false, false, milliseconds{1500}}),
      ElementsAre("===> Exited worker 1007", "Worker 1007 exited with status 3 after 1.5s"));
  EXPECT_THAT(
      texts_of(Exited{kWorker, Version{1}, killed(), false, true, seconds{9}}),
      ElementsAre("===> Exited worker 1007", "Worker 1007 was killed by signal 9 (KILL) after 9s"));
}

TEST(Narrate, SignallingAgainIsSaidOfEach) {
  const std::vector<LogLine> lines = lines_of(Signaling{SIGTERM, {kWorker, kOther}, {kOther}});
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].text,
            "Re-sending TERM to already-signaled child 1008. It may be slow to spin down, or it "
            "may be swallowing TERMs.");
  EXPECT_EQ(lines[0].level, Level::kError);
  EXPECT_EQ(lines[1].text, "Sending TERM to [1007, 1008]");
}

TEST(Narrate, AFailedUpgradeListsWhatWentWrong) {
  EXPECT_THAT(texts_of(UpgradeFailed{Version{0}, Version{1}, "2 new workers failed", {"a", "b"}}),
              ElementsAre("Upgrade to version 1 failed: 2 new workers failed.", "  a", "  b"));
}

// One of every alternative, in the order of the variant: a new one does not compile without.
std::vector<pool::Note> one_of_each() {
  std::vector<pool::Note> notes = {
      Launching{3},
      Launched{kWorker, Version{1}},
      LaunchFailed{kWorker, Version{1}, "exec ./x: Permission denied"},
      Exited{kWorker, Version{1}, left(1), true, false, seconds{1}},
      Acked{kWorker, pool::AckMode::kNotify, seconds{1}},
      AckCount{1, 2, 0},
      AckRefused{kWorker, pool::AckMode::kManual, true},
      AckOverdue{kWorker, seconds{60}},
      AckMissed{kWorker, seconds{300}},
      Signaling{SIGUSR2, {kWorker}, {}},
      Killing{kWorker, seconds{10}},
      BackingOff{milliseconds{2250}, 2},
      UpgradeStarted{Version{0}, Version{1}, true, true, 1},
      CanaryProved{Version{1}, 1},
      CullingOld{2, false},
      CullingExcess{2},
      Upgraded{Version{1}},
      UpgradeFailed{Version{0}, Version{1}, "why", {}},
      RollBackStarted{Version{1}, Version{0}},
      RolledBack{Version{0}},
      RollBackRefused{"why"},
      RollBackIncomplete{Version{0}, "why"},
      NumberChanged{1, 2},
      Scaled{1, 2, "why"},
      GaveUp{5},
      Recovered{},
      Condemned{kWorker, Version{0}, pool::Ailment::kNone, "why", "7", false},
      Ailing{kWorker, Version{0}, pool::Ailment::kNone, "why"},
      Recycling{kWorker, Version{0}, pool::Ailment::kNone, "why"},
      Recycled{{kWorker}},
      ProbeFailed{kWorker, "why", 1, 3},
      SlotPaused{Slot{0}, 5, seconds{300}, seconds{600}, 1, 5},
      SlotResumed{Slot{0}},
      Stopping{SIGTERM},
      Gone{},
  };
  return notes;
}
static_assert(std::variant_size_v<pool::Note> == 35, "a new note needs its place in the list");

TEST(Narrate, EveryNoteHasItsLine) {
  const std::vector<pool::Note> notes = one_of_each();
  ASSERT_EQ(notes.size(), std::variant_size_v<pool::Note>);
  std::map<std::string_view, std::size_t> events;
  for (std::size_t i = 0; i < notes.size(); ++i) {
    ASSERT_EQ(notes[i].index(), i);
    const std::vector<LogLine> lines = lines_of(notes[i]);
    ASSERT_FALSE(lines.empty()) << "note " << i << " has no line";
    for (const LogLine& line : lines) {
      EXPECT_FALSE(line.text.empty()) << i;
      EXPECT_FALSE(line.event.empty()) << i;
      EXPECT_EQ(line.text.find('\n'), std::string::npos) << i;
      EXPECT_EQ(line.event.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos)
          << line.event << " is no word for programs";
    }
    EXPECT_TRUE(events.emplace(lines[0].event, i).second)
        << "the event \"" << lines[0].event << "\" is another note's already";
  }
}

TEST(Narrate, LinesAboutAWorkerNameIt) {
  for (const pool::Note& note :
       {pool::Note(Launched{kWorker, Version{4}}), pool::Note(AckMissed{kWorker, seconds{1}}),
        pool::Note(Killing{kWorker, seconds{1}}),
        pool::Note(Acked{kWorker, pool::AckMode::kTimer, seconds{1}})}) {
    const LogLine line = lines_of(note)[0];
    EXPECT_EQ(line.worker, kWorker);
    EXPECT_EQ(line.pid, 1007);
  }
  EXPECT_EQ(lines_of(Launched{kWorker, Version{4}})[0].version, Version{4});
}

TEST(Narrate, WhoeverAskedForAnUpgradeHearsItsStory) {
  for (const pool::Note& note :
       {pool::Note(Launched{kWorker, Version{1}}), pool::Note(Signaling{SIGUSR2, {kWorker}, {}}),
        pool::Note(CullingOld{1, true}), pool::Note(Upgraded{Version{1}}),
        pool::Note(UpgradeStarted{Version{0}, Version{1}, true, false, 0}),
        pool::Note(UpgradeFailed{Version{0}, Version{1}, "why", {}}),
        pool::Note(RolledBack{Version{0}})}) {
    EXPECT_TRUE(lines_of(note)[0].upgrade) << lines_of(note)[0].text;
  }
  EXPECT_FALSE(lines_of(Launching{3})[0].upgrade);
  EXPECT_FALSE(lines_of(NumberChanged{1, 2})[0].upgrade);
}

TEST(Narrate, FailuresAreErrors) {
  for (const pool::Note& note :
       {pool::Note(LaunchFailed{kWorker, Version{0}, "why"}), pool::Note(GaveUp{3}),
        pool::Note(AckMissed{kWorker, seconds{1}}), pool::Note(RollBackRefused{"why"}),
        pool::Note(AckRefused{kWorker, pool::AckMode::kManual, false})}) {
    EXPECT_EQ(lines_of(note)[0].level, Level::kError) << lines_of(note)[0].text;
  }
}

TEST(Narrate, SecondsAreShort) {
  EXPECT_EQ(seconds_text(seconds{1}), "1");
  EXPECT_EQ(seconds_text(milliseconds{1500}), "1.5");
  EXPECT_EQ(seconds_text(milliseconds{2999}), "3");
  EXPECT_EQ(seconds_text(Duration::zero()), "0");
  EXPECT_EQ(list_of_pids({}, &pid_of), "[]");
  EXPECT_EQ(list_of_pids({kWorker}, &pid_of), "[1007]");
}

}  // namespace
}  // namespace einhorn::master
