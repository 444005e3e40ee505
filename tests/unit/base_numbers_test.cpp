#include <cstdint>

#include <gtest/gtest.h>

#include "base/numbers.h"

namespace einhorn {
namespace {

TEST(Numbers, TheWholeTextIsOneOrThereIsNone) {
  EXPECT_EQ(whole_number<int>("17"), 17);
  EXPECT_EQ(whole_number<int>("-17"), -17);
  EXPECT_EQ(whole_number<std::uint16_t>("65535"), 65535);
  EXPECT_EQ(whole_number<std::uint32_t>("750", 8), 0750U);
  EXPECT_EQ(whole_number<double>("0.25"), 0.25);
  for (const char* text : {"", " 17", "17 ", "+17", "17x", "0x11", "1.5", "99999999999999999999"}) {
    EXPECT_FALSE(whole_number<int>(text)) << text;
  }
  EXPECT_FALSE(whole_number<std::uint16_t>("65536"));
  EXPECT_FALSE(whole_number<std::uint16_t>("-1"));
  EXPECT_FALSE(whole_number<std::uint32_t>("8", 8));
}

TEST(Numbers, WhatIsTakenIsCutOffAndNothingElse) {
  std::string_view text = "3 0x1f";
  EXPECT_EQ(take_number<int>(text), 3);
  EXPECT_EQ(text, " 0x1f");
  EXPECT_FALSE(take_number<int>(text));
  EXPECT_EQ(text, " 0x1f");
  text.remove_prefix(3);
  EXPECT_EQ(take_number<std::uint64_t>(text, 16), 0x1fU);
  EXPECT_EQ(text, "");

  std::string_view great = "4294967296:";
  EXPECT_FALSE(take_number<std::uint32_t>(great));
  EXPECT_EQ(great, "4294967296:");
}

TEST(Numbers, TheBeginningIsOneOrZero) {
  EXPECT_EQ(number_of("12:34"), 12U);
  EXPECT_EQ(number_of<int>("-12 x"), -12);
  EXPECT_EQ(number_of("x"), 0U);
  EXPECT_EQ(number_of(""), 0U);
  EXPECT_EQ(number_of<int>("2147483648"), 0);
}

}  // namespace
}  // namespace einhorn
