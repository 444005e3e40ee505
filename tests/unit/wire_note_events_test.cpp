// Every note of the pool is an event, and docs/events.md tells of each and of all its fields.
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/data_folder.h"
#include "wire/json.h"
#include "wire/note_events.h"

namespace einhorn::wire {
namespace {

// One note of each kind, with its parts as they are by themselves.
template <std::size_t... Index>
std::vector<pool::Note> all_notes(std::index_sequence<Index...>) {
  return {pool::Note(std::in_place_index<Index>)...};
}

std::vector<pool::Note> every_note() {
  return all_notes(std::make_index_sequence<std::variant_size_v<pool::Note>>());
}

std::vector<std::string> cells(const std::string& row) {
  std::vector<std::string> found;
  std::size_t at = 1;
  for (std::size_t end = 0; (end = row.find('|', at)) != std::string::npos; at = end + 1) {
    found.push_back(row.substr(at, end - at));
  }
  return found;
}

std::set<std::string> quoted(const std::string& cell) {
  std::set<std::string> words;
  for (std::size_t at = 0; (at = cell.find('`', at)) != std::string::npos;) {
    const std::size_t end = cell.find('`', at + 1);
    words.insert(cell.substr(at + 1, end - at - 1));
    at = end + 1;
  }
  return words;
}

struct Schema {
  std::map<std::string, std::set<std::string>> events;  // fields by event
  std::map<std::string, std::string> types;             // by field
};

Schema read_schema() {
  Schema schema;
  std::ifstream file(unit::data_folder().parent_path().parent_path() / "docs" / "events.md");
  std::string section;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) {
      section = line;
    } else if (line.starts_with("| `") && section == "## Fields") {
      const std::vector<std::string> row = cells(line);
      schema.types[*quoted(row.at(0)).begin()] = row.at(1);
    } else if (line.starts_with("| `") && section != "## Asking") {
      const std::vector<std::string> row = cells(line);
      schema.events[*quoted(row.at(0)).begin()] = quoted(row.at(1));
    }
  }
  return schema;
}

std::string type_of(const Value& value) {
  if (value.as_bool() != nullptr) {
    return "boolean";
  }
  if (value.as_integer() != nullptr) {
    return "integer";
  }
  if (value.as_real() != nullptr) {
    return "number";
  }
  if (value.as_string() != nullptr) {
    return "string";
  }
  return value.as_list() != nullptr ? "list" : "object";
}

Value event_of(const pool::Note& note) {
  const PidOfWorker pid_of = [](WorkerId) { return Pid{4711}; };
  JsonLine line;
  EventFields fields(line, pid_of);
  write_event(fields, note);
  Result<Value> value = parse_json(line.take());
  EXPECT_TRUE(value.has_value());
  return value ? *value : Value(Map{});
}

void expect_described(const Schema& schema, const std::string& name, const Value& event) {
  ASSERT_TRUE(schema.events.contains(name)) << "docs/events.md has no row of " << name;
  const std::set<std::string>& described = schema.events.at(name);
  std::set<std::string> written;
  for (const auto& [key, value] : *event.as_map()) {
    const std::string field = *key.as_string();
    EXPECT_TRUE(written.insert(field).second) << name << " says " << field << " twice";
    EXPECT_TRUE(described.contains(field) || described.contains(field + "?"))
        << name << " has the field " << field << ", of which docs/events.md does not know";
    ASSERT_TRUE(schema.types.contains(field))
        << "docs/events.md does not say what " << field << " is";
    const std::string type = type_of(value);
    const std::string& said = schema.types.at(field);
    EXPECT_TRUE(said.find(type) != std::string::npos || said == " any " ||
                (type == "integer" && said.find("number") != std::string::npos))
        << name << ": " << field << " is of type " << type << ", and not" << said;
  }
  for (const std::string& field : described) {
    EXPECT_TRUE(field.ends_with('?') || written.contains(field))
        << name << " has no field " << field << ", though docs/events.md says so";
  }
}

TEST(NoteEvents, EveryNoteIsAnEventThatTheDocumentDescribes) {
  const Schema schema = read_schema();
  std::set<std::string> names;
  for (const pool::Note& note : every_note()) {
    const std::string name(event_name(note));
    EXPECT_TRUE(names.insert(name).second) << name << " is the name of two notes' events";
    for (const char* taken : {"pinged", "status", "sample", "snapshot", "resumed", "dropped",
                              "command", "master_started"}) {
      EXPECT_NE(name, taken);
    }
    expect_described(schema, name, event_of(note));
  }
}

TEST(NoteEvents, AnExitSaysHowAndInWhichStage) {
  pool::note::Exited note{};
  note.worker = {Slot{3}, Epoch{17}};
  note.version = Version{2};
  note.status = {pool::ExitStatus::Kind::kSignaled, SIGSEGV, true};
  note.before_ack = true;
  note.lived = std::chrono::milliseconds{1500};
  Value event = event_of(note);
  EXPECT_EQ(*event.find("signal"), Value("SEGV"));
  EXPECT_EQ(*event.find("core_dumped"), Value(true));
  EXPECT_EQ(event.find("status"), nullptr);
  EXPECT_EQ(*event.find("stage"), Value("starting"));
  EXPECT_EQ(*event.find("lived"), Value(1.5));
  EXPECT_EQ(*event.find("slot"), Value(3));
  EXPECT_EQ(*event.find("epoch"), Value(17));
  EXPECT_EQ(*event.find("pid"), Value(4711));
  note.before_ack = false;
  note.status = {pool::ExitStatus::Kind::kExited, 3, false};
  event = event_of(note);
  EXPECT_EQ(*event.find("status"), Value(3));
  EXPECT_EQ(*event.find("stage"), Value("ready"));
  note.stopping = true;
  EXPECT_EQ(*event_of(note).find("stage"), Value("stopping"));
}

TEST(JsonLine, WritesWhatAReaderReads) {
  const std::string text = "a\"b\\c\n\x01\x7f \xc3\xa9 \xf0\x9f\xa6\x84 \xff.";
  JsonLine line;
  line.field("text", text)
      .field("real", Duration{-1'500'000})
      .field("whole", Duration{2'000'000'000});
  line.field("at", WallTime{1'795'963'200'000'001'000}).null_field("none").field("no", false);
  line.open_list("list").element("x").element(std::uint64_t{7}).open_object();
  line.field("deep", 1).close_object().close_list().json("raw", "[1,2]").field("last", -3);
  const Result<Value> read = parse_json(line.take());
  ASSERT_TRUE(read.has_value()) << read.error().message();
  EXPECT_EQ(*read->find("text"),
            Value("a\"b\\c\n\x01\x7f \xc3\xa9 \xf0\x9f\xa6\x84 \xef\xbf\xbd."));
  EXPECT_EQ(*read->find("real"), Value(-0.0015));
  EXPECT_EQ(*read->find("whole"), Value(2));
  EXPECT_EQ(*read->find("at"), Value(1795963200.000001));
  EXPECT_TRUE(read->find("none")->is_null());
  EXPECT_EQ(*read->find("no"), Value(false));
  EXPECT_EQ(read->find("list")->as_list()->size(), 3U);
  EXPECT_EQ(*read->find("raw"), Value(List{1, 2}));
  EXPECT_EQ(*read->find("last"), Value(-3));
}

}  // namespace
}  // namespace einhorn::wire
