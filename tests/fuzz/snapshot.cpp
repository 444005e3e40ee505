// The snapshot that a master leaves to the next: as bytes, and as a journal of entries with right
// checksums and any contents, of which one is torn or damaged.
#include "wire/snapshot.h"

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"

namespace einhorn::fuzz {
namespace {

constexpr std::uint8_t kSettingsKind = 1;
constexpr std::uint8_t kListenerKind = 6;
constexpr std::size_t kMaxEntries = 64;

std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 1U) != 0 ? (crc >> 1U) ^ 0xedb88320U : crc >> 1U;
    }
  }
  return ~crc;
}

void put(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    out.push_back(static_cast<char>(value & 0xffU));
    value >>= 8U;
  }
}

struct Entry {
  std::uint8_t kind = 0;
  std::string bytes;
};

Entry make_entry(std::uint8_t kind, std::uint8_t key, std::string_view body) {
  Entry entry{kind, {}};
  put(entry.bytes, 0x314a4845U, 4);
  put(entry.bytes, kind, 2);
  put(entry.bytes, wire::kSnapshotFormat, 2);
  put(entry.bytes, key, 8);
  put(entry.bytes, body.size(), 4);
  put(entry.bytes, crc32(body), 4);
  put(entry.bytes, crc32(entry.bytes), 4);
  entry.bytes += body;
  return entry;
}

std::string joined(const std::vector<Entry>& entries, std::size_t from, std::size_t to) {
  std::string journal;
  for (std::size_t i = from; i < to; ++i) {
    journal += entries[i].bytes;
  }
  return journal;
}

Result<wire::Snapshot> decode(const std::string& journal) {
  return wire::decode_snapshot(std::string(wire::kJournalStart, '\0') + journal);
}

// What was read is written as a journal without damage, which reads back as the same.
void holds_round_trips(const wire::Snapshot& snapshot) {
  const std::string journal = wire::encode_journal(snapshot);
  const Result<wire::Snapshot> again = decode(journal);
  holds(again.has_value(), "a journal of ours can be read");
  holds(again->damage.empty(), "a journal of ours is whole",
        again->damage.empty() ? "" : again->damage[0]);
  holds(wire::encode_journal(*again) == journal, "a journal reads back as the same");
}

// Whatever is damaged, it is found out, and the rest is read as if that entry had never been.
void holds_apart(const std::vector<Entry>& entries, std::size_t at, bool torn) {
  std::size_t hit = 0;
  std::size_t begin = 0;
  while (hit + 1 < entries.size() && begin + entries[hit].bytes.size() <= at) {
    begin += entries[hit++].bytes.size();
  }
  const std::string whole = joined(entries, 0, entries.size());
  at = std::min(at, whole.size() - 1);
  std::string damaged = whole;
  std::string rest = joined(entries, 0, hit);
  if (torn) {
    damaged.resize(at);
  } else {
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    rest += joined(entries, hit + 1, entries.size());
  }
  const Result<wire::Snapshot> read = decode(damaged);
  const Result<wire::Snapshot> expected = decode(rest);
  if (!read) {
    holds_for_people(read.error().message());
    holds(!expected || entries[hit].kind == kListenerKind, "only its own entry is lost",
          read.error().message());
    return;
  }
  holds(at == begin || read->damage.size() > expected->damage.size(), "damage is told");
  holds(expected.has_value() && wire::encode_journal(*read) == wire::encode_journal(*expected),
        "only its own entry is lost");
}

}  // namespace

void run(std::string_view input) {
  Choices choices(input);
  const std::uint8_t how = choices.byte();
  if (how == 0) {
    const Result<wire::Snapshot> snapshot = wire::decode_snapshot(choices.rest());
    if (snapshot) {
      holds_round_trips(*snapshot);
    } else {
      holds_for_people(snapshot.error().message());
    }
    return;
  }
  const std::size_t place = choices.word();
  std::vector<Entry> entries;
  entries.push_back({kSettingsKind, wire::encode_entry(wire::Settings{})});
  while (!choices.empty() && entries.size() < kMaxEntries) {
    const std::uint8_t kind = choices.byte();
    const std::uint8_t key = choices.byte();
    entries.push_back(make_entry(kind, key, choices.text(choices.byte())));
  }
  const Result<wire::Snapshot> snapshot = decode(joined(entries, 0, entries.size()));
  holds(snapshot.has_value(), "what has checksums is read");
  holds_round_trips(*snapshot);
  holds_apart(entries, place, (how & 1U) != 0);
}

}  // namespace einhorn::fuzz
