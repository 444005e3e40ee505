// The journal that a snapshot is written as: what is damaged loses only itself, what a later
// version wrote is skipped, and what an earlier one wrote is read.
//
// tests/data/snapshot-*.bin are snapshots as earlier versions write them. They are never written
// anew, only added to by later versions' own files: whoever can't read one has broken every pool
// that is running. EINHORN_WRITE_GOLDEN=PATH makes the file of a new version.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "data_folder.h"
#include "wire/tagged.h"
#include "wire_snapshot_support.h"

namespace einhorn::wire {
namespace {

using namespace testing;  // NOLINT: the snapshots
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// --- tagged fields ------------------------------------------------------------------------------
struct Inner {
  std::uint8_t small = 1;
  std::string text = "inner";
};
struct Thing {
  std::string name = "none";
  std::int64_t count = -1;
  std::optional<std::uint16_t> maybe;
  std::vector<Inner> inner;
};
template <typename Archive>
void fields(Archive& archive, Inner& inner) {
  archive(1, inner.small);
  archive(2, inner.text);
}
template <typename Archive>
void fields(Archive& archive, Thing& thing) {
  archive(1, thing.name);
  archive(2, thing.count);
  archive(3, thing.maybe);
  archive(4, thing.inner);
}
// The same record as a later version knows it, and one that has lost a field.
struct LaterThing {
  Thing old;
  std::string more = "new";
};
template <typename Archive>
void fields(Archive& archive, LaterThing& thing) {
  fields(archive, thing.old);
  archive(77, thing.more);
}
struct EarlierThing {
  std::int64_t count = -5;
};
template <typename Archive>
void fields(Archive& archive, EarlierThing& thing) {
  archive(2, thing.count);
}

TEST(Tagged, IntegersAreLittleEndianOfTheirOwnSize) {
  std::string out;
  tagged::put_integer(out, std::uint32_t{0x01020304});
  tagged::put_integer(out, std::int8_t{-1});
  EXPECT_EQ(out, std::string("\x04\x03\x02\x01\xff", 5));
  EXPECT_EQ(tagged::get_integer<std::uint32_t>(out), 0x01020304u);
  EXPECT_EQ(tagged::get_integer<std::int8_t>(out.substr(4)), -1);
  EXPECT_EQ(tagged::get_integer<std::int64_t>(std::string("\x05", 1)), 5) << "missing bytes are 0";
  EXPECT_EQ(tagged::get_integer<std::int64_t>(""), 0);
}

TEST(Tagged, RecordsGoThereAndBack) {
  Thing thing;
  thing.name = std::string("a\0b\n", 4);
  thing.count = std::numeric_limits<std::int64_t>::min();
  thing.maybe = 65535;
  thing.inner = {{7, ""}, {8, "x"}};
  const Thing read = decode_record<Thing>(encode_record(thing));
  EXPECT_EQ(read.name, thing.name);
  EXPECT_EQ(read.count, thing.count);
  EXPECT_EQ(read.maybe, thing.maybe);
  ASSERT_EQ(read.inner.size(), 2u);
  EXPECT_EQ(read.inner[0].small, 7);
  EXPECT_EQ(read.inner[0].text, "");
  EXPECT_EQ(read.inner[1].text, "x");
}

TEST(Tagged, UnknownTagsAreSkippedAndMissingOnesKeepTheirDefault) {
  LaterThing later;
  later.old.count = 6;
  later.more = "unheard of";
  const Thing read = decode_record<Thing>(encode_record(later));
  EXPECT_EQ(read.count, 6);
  EXPECT_EQ(read.name, "none");
  const LaterThing back = decode_record<LaterThing>(encode_record(read));
  EXPECT_EQ(back.more, "new");
  EXPECT_EQ(back.old.count, 6);
  const Thing from_less = decode_record<Thing>(encode_record(EarlierThing{3}));
  EXPECT_EQ(from_less.count, 3);
  EXPECT_EQ(from_less.name, "none");
  EXPECT_EQ(from_less.maybe, std::nullopt);
}

TEST(Tagged, RecordsThatEndTooEarlyAreReadUpToThere) {
  Thing thing;
  thing.name = "whole";
  thing.count = 5;
  thing.inner = {{9, "gone"}};
  const std::string bytes = encode_record(thing);
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    const Thing read = decode_record<Thing>(std::string_view(bytes).substr(0, length));
    EXPECT_TRUE(read.name == "whole" || read.name == "none") << length;
    EXPECT_TRUE(read.count == 5 || read.count == -1) << length;
  }
}

// --- the journal --------------------------------------------------------------------------------
TEST(Journal, TheLastEntryOfAKindAndKeyHolds) {
  Settings renamed = full_settings();
  renamed.name = "later";
  WorkerRecord changed = full_worker(3, 57);
  changed.worker.status_text = "idle";
  const Snapshot read =
      decode(encode_journal(full_snapshot()) + encode_entry(renamed) + encode_entry(changed) +
             encode_gone({Slot{4}, Epoch{58}}) + encode_gone(Version{31}));
  EXPECT_EQ(read.settings.name, "later");
  EXPECT_EQ(read.workers.size(), 1u);
  EXPECT_EQ(read.workers.at(Epoch{57}).worker.status_text, "idle");
  EXPECT_TRUE(read.programs.empty());
}

TEST(Journal, AnOptionalThatIsTakenBackIsGone) {
  pool::Ledger done = full_ledger();
  done.upgrade.reset();
  EXPECT_FALSE(
      decode(encode_journal(full_snapshot()) + encode_entry(done)).ledger.upgrade.has_value());
}

TEST(Journal, WithoutSettingsNothingGoesOn) {
  for (const std::string& journal :
       {std::string(), encode_entry(full_config()) + encode_entry(full_worker(1, 2))}) {
    const Result<Snapshot> snapshot = decode_snapshot(file_of(journal));
    ASSERT_FALSE(snapshot.has_value());
    EXPECT_EQ(snapshot.error().message(), "snapshot: it holds no readable settings");
  }
  EXPECT_FALSE(decode_snapshot("").has_value());
  EXPECT_FALSE(decode_snapshot("too short").has_value());
}

TEST(Journal, ADamagedEntryLosesOnlyItself) {
  const std::string before = encode_entry(full_settings()) + encode_entry(full_worker(1, 100));
  const std::string victim = encode_entry(full_worker(2, 101));
  const std::string after = encode_entry(full_worker(3, 102)) + encode_entry(full_config());
  for (std::size_t byte = 0; byte < victim.size(); ++byte) {
    std::string damaged = victim;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 0x40);
    const Snapshot read = decode(before + damaged + after);
    ASSERT_EQ(read.workers.size(), 2u) << byte;
    EXPECT_TRUE(read.workers.contains(Epoch{100}));
    EXPECT_TRUE(read.workers.contains(Epoch{102}));
    EXPECT_EQ(read.config.number, 12u);
    EXPECT_FALSE(read.damage.empty()) << "and it is said, byte " << byte;
  }
}

TEST(Journal, ATornTailLosesOnlyTheTail) {
  const std::string whole = encode_journal(full_snapshot());
  const std::string tail = encode_entry(full_worker(9, 200));
  for (std::size_t length = 0; length < tail.size(); ++length) {
    const Snapshot read = decode(whole + tail.substr(0, length));
    expect_same(read, full_snapshot());
    EXPECT_EQ(read.damage.empty(), length == 0) << "it is said, of " << length << " bytes";
  }
  EXPECT_TRUE(decode(whole + tail).workers.contains(Epoch{200}));
}

TEST(Journal, ZeroesAtTheEndAreNoEntries) {
  const Snapshot read = decode(encode_journal(full_snapshot()) + std::string(500, '\0'));
  expect_same(read, full_snapshot());
}

TEST(Journal, ADamagedListenerIsAnError) {
  const std::string before = encode_entry(full_settings());
  const std::string listener = encode_entry(full_listener(0));
  std::string damaged = listener;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  const Result<Snapshot> snapshot =
      decode_snapshot(file_of(before + damaged + encode_entry(full_config())));
  ASSERT_FALSE(snapshot.has_value());
  EXPECT_THAT(snapshot.error().message(), HasSubstr("listening socket"));
}

TEST(Journal, AWorkerThatMakesNoSenseIsLeftOut) {
  WorkerRecord strange = full_worker(1, 7);
  strange.worker.state = static_cast<pool::WorkerState>(17);
  WorkerRecord far = full_worker(4'000'000'000U, 8);
  const Snapshot read =
      decode(encode_entry(full_settings()) + encode_entry(strange) + encode_entry(far));
  EXPECT_TRUE(read.workers.empty());
  EXPECT_EQ(read.damage.size(), 2u);
}

TEST(Journal, EntriesOfALaterVersionAreSkippedAndSaid) {
  // An entry of kind 900, spelled as any other: only its head's sums have to be made anew.
  std::string entry = encode_gone(Version{5});
  const auto crc = [](std::string_view bytes) {
    std::uint32_t sum = 0xffffffffU;
    for (const char byte : bytes) {
      sum ^= static_cast<unsigned char>(byte);
      for (int bit = 0; bit < 8; ++bit) {
        sum = (sum & 1U) != 0 ? (sum >> 1U) ^ 0xedb88320U : sum >> 1U;
      }
    }
    return sum ^ 0xffffffffU;
  };
  std::string kind;
  tagged::put_integer(kind, std::uint16_t{900});
  entry.replace(4, 2, kind);
  std::string sum;
  tagged::put_integer(sum, crc(std::string_view(entry).substr(0, 24)));
  entry.replace(24, 4, sum);
  const Snapshot read = decode(entry + encode_journal(full_snapshot()));
  expect_same(read, full_snapshot());
  EXPECT_THAT(read.damage, ElementsAre("an entry of unknown kind 900"));
}

// --- golden files -------------------------------------------------------------------------------
std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// What the earlier ones do not say has its default.
Snapshot before_fork_ids(Snapshot snapshot) {
  for (auto& [number, zygote] : snapshot.zygotes) {
    zygote.asked_below = 0;
    zygote.guard = 0;
  }
  for (auto& [epoch, record] : snapshot.workers) {
    record.fork_id = 0;
    record.asked_of = 0;
  }
  return snapshot;
}

Snapshot before_stdin() {
  Snapshot snapshot = before_fork_ids(full_snapshot());
  for (auto& [index, listener] : snapshot.listeners) {
    listener.as_stdin = false;
  }
  return snapshot;
}

Snapshot before_preloading() {
  Snapshot snapshot = before_stdin();
  const Settings usual;
  Settings& s = snapshot.settings;
  s.preload = usual.preload;
  s.preload_command = usual.preload_command;
  s.preload_language = usual.preload_language;
  s.preload_interpreter = usual.preload_interpreter;
  s.agent = usual.agent;
  s.agent_arguments = usual.agent_arguments;
  s.preload_fallback = usual.preload_fallback;
  s.preload_timeout = usual.preload_timeout;
  for (auto& [version, program] : snapshot.programs) {
    program.zygote.clear();
    program.zygote_arguments.clear();
    program.postload = false;
  }
  snapshot.zygotes.clear();
  return snapshot;
}

Snapshot before_draining() {
  Snapshot snapshot = before_preloading();
  const Settings defaults;
  snapshot.settings.intercept_door = defaults.intercept_door;
  snapshot.settings.intercept_secret = defaults.intercept_secret;
  snapshot.settings.intercept_drain = defaults.intercept_drain;
  snapshot.settings.listen_probe = defaults.listen_probe;
  for (auto& [epoch, record] : snapshot.workers) {
    record.withheld = 0;
  }
  return snapshot;
}

Snapshot before_interception() {
  Snapshot snapshot = before_draining();
  const Settings defaults;
  snapshot.settings.intercept = defaults.intercept;
  snapshot.settings.intercept_all = defaults.intercept_all;
  snapshot.settings.intercept_io_uring = defaults.intercept_io_uring;
  snapshot.settings.intercept_rules = defaults.intercept_rules;
  snapshot.settings.intercept_library = defaults.intercept_library;
  for (auto& [index, listener] : snapshot.listeners) {
    listener.backlog = ListenerRecord().backlog;
    listener.backup = ListenerRecord().backup;
  }
  return snapshot;
}

Snapshot before_quick_deaths() {
  Snapshot snapshot = before_interception();
  snapshot.ledger.quick_deaths = 0;
  snapshot.ledger.quick_deaths_since = {};
  for (auto& [epoch, record] : snapshot.workers) {
    record.worker.stop_with = 0;
  }
  return snapshot;
}

TEST(GoldenSnapshot, OfEveryReleaseIsRead) {
  if (const char* path = std::getenv("EINHORN_WRITE_GOLDEN")) {
    std::ofstream(path, std::ios::binary) << file_of(encode_journal(whole_snapshot()));
  }
  for (const auto& [name, wanted] :
       {std::pair("snapshot-0.1.0.bin", before_quick_deaths()),
        std::pair("snapshot-0.1.0-quick-deaths.bin", before_interception()),
        std::pair("snapshot-0.1.0-intercept.bin", before_draining()),
        std::pair("snapshot-0.1.0-draining.bin", before_preloading()),
        std::pair("snapshot-0.1.0-hooks.bin", before_fork_ids(whole_snapshot())),
        std::pair("snapshot-0.1.0-fork-ids.bin", whole_snapshot())}) {
    const std::string bytes = read_file(unit::data_folder() / name);
    ASSERT_GT(bytes.size(), kJournalStart) << name;
    const Result<Snapshot> snapshot = decode_snapshot(bytes);
    ASSERT_TRUE(snapshot.has_value()) << name << ": " << snapshot.error().message();
    EXPECT_THAT(snapshot->damage, IsEmpty()) << name;
    expect_same(*snapshot, wanted);
  }
}

}  // namespace
}  // namespace einhorn::wire
