// The snapshot of what keeps workers honest: rules, ailments, slots that are paused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/snapshot.h"

namespace einhorn::wire {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Snapshot read(const std::string& journal) {
  Result<Snapshot> snapshot =
      decode_snapshot(std::string(kJournalStart, '\0') + encode_entry(Settings{}) + journal);
  EXPECT_TRUE(snapshot.has_value());
  return snapshot ? std::move(*snapshot) : Snapshot{};
}

TEST(SnapshotHealth, RulesComeBackFieldByField) {
  pool::Config config;
  pool::HealthRules& rules = config.health;
  rules.ping_timeout = seconds{11};
  rules.request_timeout = seconds{12};
  rules.dump_signal = 13;
  std::uint64_t value = 100;
  for (const pool::Measure measure : pool::kAllMeasures) {
    rules.of(measure) = {value + 1, value + 2, 2, 7};
    value += 10;
  }
  rules.cpu_window = seconds{14};
  rules.sample_interval = seconds{15};
  rules.max_age = seconds{16};
  rules.max_requests = 17;
  rules.jitter_percent = 18;
  rules.max_recycling = 19;
  rules.probe = {true, seconds{20}, seconds{21}, 22};
  rules.flapping = {23, seconds{24}, seconds{25}, 26};
  const Snapshot snapshot = read(encode_entry(config));
  EXPECT_THAT(snapshot.damage, IsEmpty());
  const pool::HealthRules& r = snapshot.config.health;
  EXPECT_EQ(r.ping_timeout, rules.ping_timeout);
  EXPECT_EQ(r.request_timeout, rules.request_timeout);
  EXPECT_EQ(r.dump_signal, rules.dump_signal);
  for (const pool::Measure measure : pool::kAllMeasures) {
    EXPECT_EQ(r.of(measure).soft, rules.of(measure).soft);
    EXPECT_EQ(r.of(measure).hard, rules.of(measure).hard);
    EXPECT_EQ(r.of(measure).times, 2U);
    EXPECT_EQ(r.of(measure).samples, 7U);
  }
  EXPECT_EQ(r.cpu_window, rules.cpu_window);
  EXPECT_EQ(r.sample_interval, rules.sample_interval);
  EXPECT_EQ(r.max_age, rules.max_age);
  EXPECT_EQ(r.max_requests, rules.max_requests);
  EXPECT_EQ(r.jitter_percent, rules.jitter_percent);
  EXPECT_EQ(r.max_recycling, rules.max_recycling);
  EXPECT_TRUE(r.probe.on);
  EXPECT_EQ(r.probe.interval, rules.probe.interval);
  EXPECT_EQ(r.probe.timeout, rules.probe.timeout);
  EXPECT_EQ(r.probe.failures, rules.probe.failures);
  EXPECT_EQ(r.flapping.times, rules.flapping.times);
  EXPECT_EQ(r.flapping.within, rules.flapping.within);
  EXPECT_EQ(r.flapping.pause, rules.flapping.pause);
  EXPECT_EQ(r.flapping.retries, rules.flapping.retries);
}

TEST(SnapshotHealth, AWorkersAilmentComesBack) {
  WorkerRecord record;
  pool::Worker& worker = record.worker;
  worker.id = {Slot{3}, Epoch{9}};
  worker.state = pool::WorkerState::kStopping;
  worker.last_request_id = "\"r1\"";
  worker.requests = 1234;
  worker.busy = {{"\"r1\"", Instant{seconds{5}}}, {"2", Instant{seconds{6}}}};
  worker.ailment = pool::Ailment::kSlow;
  worker.complaint = "busy";
  worker.ailing_since = Instant{seconds{7}};
  worker.condemned = true;
  worker.examining = true;
  worker.recycling = true;
  const Snapshot snapshot = read(encode_entry(record));
  ASSERT_TRUE(snapshot.workers.contains(Epoch{9}));
  const pool::Worker& w = snapshot.workers.at(Epoch{9}).worker;
  EXPECT_EQ(w.last_request_id, worker.last_request_id);
  EXPECT_EQ(w.requests, 1234U);
  ASSERT_EQ(w.busy.size(), 2U);
  EXPECT_EQ(w.busy[1].id, "2");
  EXPECT_EQ(w.busy[1].since, Instant{seconds{6}});
  EXPECT_EQ(w.ailment, worker.ailment);
  EXPECT_EQ(w.complaint, worker.complaint);
  EXPECT_EQ(w.ailing_since, worker.ailing_since);
  EXPECT_TRUE(w.condemned && w.examining && w.recycling);
}

TEST(SnapshotHealth, SlotsAreKeptAndForgotten) {
  pool::SlotTrouble trouble;
  trouble.slot = Slot{4};
  trouble.deaths = {Instant{seconds{1}}, Instant{seconds{2}}};
  trouble.paused_until = Instant{seconds{600}};
  trouble.first_pause = Instant{seconds{3}};
  trouble.retries = 2;
  trouble.given_up = true;
  const Snapshot snapshot = read(encode_entry(trouble));
  ASSERT_TRUE(snapshot.troubles.contains(Slot{4}));
  const pool::SlotTrouble& t = snapshot.troubles.at(Slot{4});
  EXPECT_THAT(t.deaths, ElementsAre(Instant{seconds{1}}, Instant{seconds{2}}));
  EXPECT_EQ(t.paused_until, trouble.paused_until);
  EXPECT_EQ(t.first_pause, trouble.first_pause);
  EXPECT_EQ(t.retries, 2U);
  EXPECT_TRUE(t.given_up);
  const Snapshot gone =
      read(encode_entry(trouble) + encode_entry(pool::SlotTrouble{.slot = Slot{4}}));
  EXPECT_THAT(gone.troubles, IsEmpty());
  EXPECT_THAT(gone.damage, IsEmpty());
  Snapshot whole;
  whole.troubles[Slot{4}] = trouble;
  EXPECT_TRUE(read(encode_journal(whole)).troubles.contains(Slot{4}));
}

TEST(SnapshotHealth, ASlotBeyondAllLimitsIsDamage) {
  pool::SlotTrouble trouble;
  trouble.slot = Slot{4'000'000'000U};
  trouble.given_up = true;
  const Snapshot snapshot = read(encode_entry(trouble));
  EXPECT_THAT(snapshot.troubles, IsEmpty());
  EXPECT_EQ(snapshot.damage.size(), 1U);
}

}  // namespace
}  // namespace einhorn::wire
