// Strings for the comparison with Ruby's YAML library.
#pragma once

#include <random>
#include <string>
#include <vector>

namespace einhorn::wire::test_support {

// Everything that is known to be written, or read, in a way of its own.
inline const std::vector<std::string>& strings() {
  static const std::vector<std::string> kTable = [] {
    std::vector<std::string> list = {"n",
                                     "y",
                                     "N",
                                     "Y",
                                     "true",
                                     "True",
                                     "null",
                                     "NULL",
                                     "~",
                                     "~x",
                                     "",
                                     "1000",
                                     "1_000",
                                     "1__0",
                                     "1,000",
                                     "1,",
                                     "0x1f",
                                     "0x",
                                     "0x_",
                                     "0b11",
                                     "0b",
                                     "0o7",
                                     "07",
                                     "08",
                                     "0779",
                                     "0_7",
                                     "0",
                                     "00",
                                     "-0",
                                     "+1",
                                     "-1",
                                     "--1",
                                     "1e3",
                                     "1.5",
                                     "1.",
                                     ".5",
                                     ".",
                                     "-.",
                                     "+.",
                                     "..",
                                     "1.2e3",
                                     "1.2e+3",
                                     "1.e+3",
                                     ".e+5",
                                     "1.5.2",
                                     "1_0.5",
                                     "1.5_0",
                                     "12e03",
                                     "-.inf",
                                     ".inf",
                                     "+.inf",
                                     ".nan",
                                     ".NaN",
                                     "inf",
                                     ":foo",
                                     ":",
                                     "::",
                                     ":\"a b\"",
                                     "foo:",
                                     "a: b",
                                     "a:b",
                                     "a #b",
                                     "a#b",
                                     " a",
                                     "a ",
                                     "a\n",
                                     "\n",
                                     "\n\n",
                                     "a\n\n",
                                     "a\nb",
                                     "a\nb\n",
                                     "a\nb\n\n",
                                     "\na",
                                     "\n a",
                                     "a\n\nb\n\n",
                                     "  a\nb",
                                     "a\n  b\n",
                                     "a\n ",
                                     "a \nb",
                                     "a\nb  ",
                                     "\ta\nb",
                                     "yes\n",
                                     "null\n",
                                     "on\n\n",
                                     "n\n",
                                     "/usr/bin/x",
                                     "===> x",
                                     "<<",
                                     "<< ",
                                     "=",
                                     "!x",
                                     "- x",
                                     "-",
                                     "-x",
                                     "---",
                                     "--- x",
                                     "...",
                                     "?",
                                     "? x",
                                     "|",
                                     "> a",
                                     "[a",
                                     "]",
                                     "{a}",
                                     "a,b",
                                     "a]",
                                     "#a",
                                     "%a",
                                     "%25",
                                     "@a",
                                     "`a",
                                     "&a",
                                     "*a",
                                     "'",
                                     "\"",
                                     "a'b",
                                     "a\"b",
                                     "\"a",
                                     "'a'",
                                     "(a)",
                                     "(a\"b)",
                                     "(a\"b)\n(c",
                                     "2026-01-01",
                                     "2026-02-31",
                                     "2026-1-1",
                                     "2026-13-01",
                                     "2026-01-01 00:00:00",
                                     "2026-01-01T00:00:00Z",
                                     "2026-01-01 00:00:00.5 +01:00",
                                     "2026-01-01 00:00:00.",
                                     "2026-01-01 00:00",
                                     "2026-01-01 25:00:00",
                                     "2026-02-31 00:00:00",
                                     "3000-01-01 00:00:00",
                                     "0001-01-01 00:00:00",
                                     "-2026-01-01 00:00:00",
                                     "2026-01-01T00:00:00+24:00",
                                     "1:30",
                                     "1:30:15",
                                     "1:60",
                                     "1:5",
                                     "1:30.5",
                                     "1:30:15.",
                                     "1:2:3:4",
                                     "1:",
                                     ":1",
                                     "no",
                                     "No",
                                     "off",
                                     "OFF",
                                     "on",
                                     "yes",
                                     "falsey",
                                     "nullx",
                                     "_",
                                     "_a",
                                     "+a",
                                     "+",
                                     "+é",
                                     "-é",
                                     ".é",
                                     ":é",
                                     "é",
                                     "€",
                                     "€ x",
                                     "a€",
                                     "日本語 x",
                                     "é: x",
                                     "\xcc\x81",
                                     "\xc2\xb5",
                                     "\xc2\xaa",
                                     "\xc2\xa0x",
                                     "\xc2\xadx",
                                     "\xe2\x80\x8b",
                                     "\xe2\x80\xa8",
                                     "a\xe2\x80\xa8 b",
                                     "\xc2\x85",
                                     "\xef\xbb\xbf x",
                                     "a\xef\xbb\xbf",
                                     "\xf0\x9f\xa6\x84",
                                     "a\xf0\x9f\xa6\x84\nb",
                                     "\xef\xbf\xbd",
                                     "\xee\x80\x80",
                                     "\t",
                                     "a\tb",
                                     "a\tb\nc",
                                     "a\rb",
                                     "\r",
                                     "a\r\nb\r\n",
                                     "a\177b",
                                     "\x1b[0m",
                                     "\x01",
                                     "Error:",
                                     "127.0.0.1",
                                     "127.0.0.1:80",
                                     "::1",
                                     "[::1]:80",
                                     "a=b",
                                     "--flag",
                                     "-n3",
                                     "{\"a\":1}",
                                     "$HOME",
                                     "a\nb: c\n- d",
                                     "ERROR: x\n  y\n",
                                     "https://x.y/z?a=b&c=%20",
                                     "x\\y",
                                     "a;b",
                                     "*",
                                     "&",
                                     "!"};
    list.emplace_back("a\0b", 3);
    list.emplace_back(1, '\0');
    list.emplace_back("a\0\nb\n", 5);
    list.emplace_back(300, 'x');
    list.push_back(std::string(200, 'x') + "\n");
    for (const char* word :
         {"word ", "wo-rd, ", "é日 ", "a: ", "'q' ", "\"q\" ", "a\nword ", "/x "}) {
      std::string line;
      for (int i = 0; i < 40; ++i) {
        line += word;
      }
      list.push_back(line);
      list.push_back(line + "x");
    }
    // Every character of one, two and three bytes, alone and before a letter.
    for (unsigned code = 1; code < 0x10000; code += code < 0x800 ? 1 : 17) {
      if (code >= 0xd800 && code < 0xe000) {
        continue;
      }
      std::string character;
      if (code < 0x80) {
        character = static_cast<char>(code);
      } else if (code < 0x800) {
        character = {static_cast<char>(0xc0U | (code >> 6U)),
                     static_cast<char>(0x80U | (code & 63U))};
      } else {
        character = {static_cast<char>(0xe0U | (code >> 12U)),
                     static_cast<char>(0x80U | ((code >> 6U) & 63U)),
                     static_cast<char>(0x80U | (code & 63U))};
      }
      list.push_back(character);
      list.push_back(character + "a");
    }
    return list;
  }();
  return kTable;
}

// Strings of pieces that mean something to YAML or to Ruby, the same ones in every run.
inline std::vector<std::string> strange_strings(std::size_t count) {
  const std::vector<std::string> pieces = {"a",
                                           "b",
                                           "Z",
                                           "0",
                                           "1",
                                           "7",
                                           "8",
                                           "9",
                                           "-",
                                           "+",
                                           ".",
                                           ":",
                                           ",",
                                           "_",
                                           " ",
                                           " ",
                                           "\n",
                                           "\n",
                                           "\t",
                                           "#",
                                           "!",
                                           "&",
                                           "*",
                                           "?",
                                           "|",
                                           ">",
                                           "<",
                                           "=",
                                           "'",
                                           "\"",
                                           "%",
                                           "@",
                                           "`",
                                           "[",
                                           "]",
                                           "{",
                                           "}",
                                           "~",
                                           "e",
                                           "x",
                                           "0x",
                                           "inf",
                                           "nan",
                                           "yes",
                                           "no",
                                           "on",
                                           "null",
                                           "true",
                                           "é",
                                           "日",
                                           "€",
                                           "\\",
                                           "/",
                                           "T",
                                           "2026-01-01",
                                           "10:20:30",
                                           "word word word ",
                                           "\r",
                                           "\xf0\x9f\xa6\x84"};
  std::mt19937 random(20260101);
  std::vector<std::string> list;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text;
    const std::size_t length = 1 + random() % 9;
    for (std::size_t piece = 0; piece < length; ++piece) {
      text += pieces[random() % pieces.size()];
    }
    list.push_back(text);
  }
  return list;
}

// Real numbers as text: of every size, with few digits and with as many as a double has.
inline std::vector<std::string> reals(std::size_t count) {
  std::mt19937 random(20261201);
  std::vector<std::string> list;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text = random() % 4 == 0 ? "-" : "";
    text += static_cast<char>('1' + random() % 9);
    text += '.';
    for (std::size_t digits = 1 + random() % 17; digits > 0; --digits) {
      text += static_cast<char>('0' + random() % 10);
    }
    // Most of them where the spelling changes.
    const int exponent = random() % 4 == 0 ? static_cast<int>(random() % 600) - 300
                                           : static_cast<int>(random() % 28) - 8;
    list.push_back(text + 'e' + std::to_string(exponent));
  }
  return list;
}

}  // namespace einhorn::wire::test_support
