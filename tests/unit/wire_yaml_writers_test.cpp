// The two ways to write YAML give the same bytes, wherever the one by hand gives any.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "wire/yaml.h"
#include "wire/yaml_writers.h"
#include "wire_psych_inputs.h"

namespace einhorn::wire {
namespace {

// How many of the documents were written by hand; each of them must be what libyaml writes.
std::size_t count_written_by_hand(const std::vector<Value>& documents) {
  std::size_t count = 0;
  for (const Value& document : documents) {
    const std::string usual = write_yaml_by_libyaml(document);
    EXPECT_EQ(encode_yaml(document), usual);
    if (const std::optional<std::string> written = write_yaml_by_hand(document)) {
      EXPECT_EQ(*written, usual) << document.inspect();
      ++count;
    }
  }
  return count;
}

// In every place that a scalar can have.
std::vector<Value> places_of(const Value& value) {
  return {
      Map{{"message", value}, {"next", 1}},
      Map{{"first", 1}, {"message", value}},
      List{value, value},
      Map{{value, 1}, {"next", value}},
      Map{{"list", List{value, List{value, List{value}}, Map{{"key", value}}}}, {"next", 1}},
      Map{{"a", Map{{"b", Map{{"c", value}, {"d", List{value}}}}}}, {"next", value}},
      List{Map{{"a", value}, {"b", value}}, List{Map{{"a", List{value}}}}},
      Map{{"set", Set{List{value, 1}}}, {"next", value}},
      List{Set{List{value}}, Set{}, value},
      Map{{std::string(70, 'k'), value}, {std::string(90, 'k'), value}},
  };
}

std::vector<Value> in_all_places(const std::vector<std::string>& texts) {
  std::vector<Value> documents;
  for (const std::string& text : texts) {
    const std::vector<Value> places = places_of(text);
    documents.insert(documents.end(), places.begin(), places.end());
  }
  return documents;
}

// Long texts of a small alphabet, in which everything that matters meets everything else.
std::vector<std::string> random_texts(std::string_view alphabet, std::size_t longest,
                                      std::size_t count) {
  std::mt19937 random(20261122);
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text;
    const std::size_t length = random() % longest;
    for (std::size_t at = 0; at < length; ++at) {
      text += alphabet[random() % alphabet.size()];
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

TEST(YamlWritersTest, KnownTexts) {
  // Most of them are single letters beyond ASCII, which only libyaml writes.
  EXPECT_GT(count_written_by_hand(in_all_places(test_support::strings())), 3000);
}

TEST(YamlWritersTest, StrangeTexts) {
  static_cast<void>(count_written_by_hand(in_all_places(test_support::strange_strings(3000))));
}

TEST(YamlWritersTest, LinesOfWords) {
  for (const std::string_view alphabet :
       {"ab c", "ab  c\n", "a:b #'\"\\ -\n", "/a-z_. 0", "a \n"}) {
    const std::vector<Value> documents = in_all_places(random_texts(alphabet, 400, 150));
    EXPECT_GT(count_written_by_hand(documents), documents.size() / 20) << alphabet;
  }
}

TEST(YamlWritersTest, ShortTexts) {
  constexpr std::string_view kAlphabet = "a -:#?\n'\"[{,.%\\<~01";
  std::vector<std::string> texts = {""};
  for (const char first : kAlphabet) {
    texts.emplace_back(1, first);
    for (const char second : kAlphabet) {
      texts.push_back({first, second});
      for (const char third : kAlphabet) {
        texts.push_back({first, second, third});
      }
    }
  }
  std::vector<Value> documents;
  for (const std::string& text : texts) {
    documents.emplace_back(Map{{"a", text}, {"b", List{text}}});
    documents.emplace_back(Map{{text, text}});
  }
  EXPECT_GT(count_written_by_hand(documents), documents.size() / 2);
}

TEST(YamlWritersTest, OtherKinds) {
  std::vector<Value> documents;
  for (const Value& value : std::vector<Value>{Null{},
                                               true,
                                               false,
                                               0,
                                               -1,
                                               INT64_MAX,
                                               INT64_MIN,
                                               1.0,
                                               -0.5,
                                               1e300,
                                               -1e-7,
                                               HUGE_VAL,
                                               -HUGE_VAL,
                                               Symbol{"a_b"},
                                               Symbol{""},
                                               Symbol{"A"},
                                               Symbol{"a b"},
                                               Symbol{"a?"},
                                               Symbol{"\xc3\xa9"},
                                               Symbol{"a:"},
                                               Symbol{std::string(127, 'a')},
                                               Symbol{std::string(128, 'a')},
                                               WallTime{0},
                                               WallTime{-1},
                                               WallTime{1'795'318'160'794'054'719},
                                               WallTime{INT64_MAX},
                                               WallTime{INT64_MIN},
                                               List{},
                                               Map{},
                                               Set{},
                                               List{List{}},
                                               Map{{Symbol{"a"}, Map{}}},
                                               Set{List{Null{}}},
                                               Set{List{Symbol{"a"}, "b"}},
                                               Set{List{List{}}},
                                               Map{{List{1}, 1}},
                                               Map{{Null{}, 1}},
                                               Set{List{Set{}}},
                                               std::string("\xff"),
                                               std::string("\x7f")}) {
    const std::vector<Value> places = places_of(value);
    documents.insert(documents.end(), places.begin(), places.end());
    documents.push_back(value);
  }
  EXPECT_GT(count_written_by_hand(documents), documents.size() / 2);
}

TEST(YamlWritersTest, ADocumentInADocument) {
  std::vector<Value> documents;
  for (const Value& inner : in_all_places(test_support::strings())) {
    documents.emplace_back(Map{{"message", encode_yaml(inner)}, {"request_id", 1}});
  }
  EXPECT_GT(count_written_by_hand(documents), 3000);
}

}  // namespace
}  // namespace einhorn::wire
