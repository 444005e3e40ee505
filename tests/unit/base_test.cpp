// Results, errors, signals and time as values.
#include <cerrno>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/ids.h"
#include "base/instant.h"
#include "base/limits.h"
#include "base/result.h"
#include "base/signals.h"

namespace einhorn {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

// --- Result -------------------------------------------------------------------------------------
TEST(Result, HoldsAValueOrAnError) {
  Result<int> good = 3;
  ASSERT_TRUE(good.has_value());
  EXPECT_TRUE(static_cast<bool>(good));
  EXPECT_EQ(*good, 3);
  *good = 4;
  EXPECT_EQ(good.value(), 4);
  EXPECT_EQ(good.value_or(9), 4);

  const Result<int> bad = Error{ENOENT, "open x", ""};
  EXPECT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code, ENOENT);
  EXPECT_EQ(bad.value_or(9), 9);
}

TEST(Result, CarriesWhatCanOnlyBeMoved) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  std::unique_ptr<int> taken = *std::move(result);
  ASSERT_NE(taken, nullptr);
  EXPECT_EQ(*taken, 7);
  Result<std::string> text = std::string("abc");
  EXPECT_EQ(text->size(), 3u);
  Result<std::string> failed = make_error("x", "y");
  const Error error = std::move(failed).error();
  EXPECT_EQ(error.operation, "x");
}

TEST(Result, StatusIsASuccessWithoutAValue) {
  const Status good = Ok{};
  EXPECT_TRUE(good.has_value());
  const Status bad = make_error("start", "no");
  EXPECT_FALSE(bad.has_value());
}

using ResultDeathTest = ::testing::Test;

TEST(ResultDeathTest, AskingForWhatIsNotThereAborts) {
  Result<int> bad = make_error("x", "y");
  EXPECT_DEATH(static_cast<void>(bad.value()), "CHECK failed: has_value\\(\\) at ");
  Result<int> good = 1;
  EXPECT_DEATH(static_cast<void>(good.error()), "CHECK failed");
}

// --- Error --------------------------------------------------------------------------------------
TEST(Error, IsOneLineForPeople) {
  EXPECT_EQ((Error{EACCES, "exec ./server", ""}.message()), "exec ./server: Permission denied");
  EXPECT_EQ((Error{EADDRINUSE, "bind 127.0.0.1:80", "see ss -l"}.message()),
            "bind 127.0.0.1:80: see ss -l: Address already in use");
  EXPECT_EQ(make_error("-n 0", "must be at least 1").message(), "-n 0: must be at least 1");
  EXPECT_EQ(make_error("gone", "").message(), "gone");
  EXPECT_EQ(make_error("", "only this").message(), "only this");
  EXPECT_EQ((Error{99999, "x", ""}.message()), "x: error 99999");
}

TEST(Error, DoesNotDependOnTheLocaleOfWhoeverRunsIt) {
  setlocale(LC_ALL, "");
  EXPECT_EQ((Error{ENOENT, "x", ""}.message()), "x: No such file or directory");
}

// --- signals ------------------------------------------------------------------------------------
TEST(Signals, AreReadInEverySpelling) {
  EXPECT_EQ(parse_signal("USR2"), SIGUSR2);
  EXPECT_EQ(parse_signal("SIGUSR2"), SIGUSR2);
  EXPECT_EQ(parse_signal("sigterm"), SIGTERM);
  EXPECT_EQ(parse_signal("Int"), SIGINT);
  EXPECT_EQ(parse_signal("CLD"), SIGCHLD);
  EXPECT_EQ(parse_signal("IOT"), SIGABRT);
  for (const char* wrong : {"", "SIG", "USR9", "SIGSIGTERM", "TERM ", " TERM", "12", "TER"}) {
    EXPECT_EQ(parse_signal(wrong), std::nullopt) << wrong;
  }
}

TEST(Signals, HaveOneNameEachAndItReadsBack) {
  EXPECT_EQ(signal_name(SIGUSR2), "USR2");
  EXPECT_EQ(signal_name(SIGCHLD), "CHLD");
  EXPECT_EQ(signal_name(SIGABRT), "ABRT");
  EXPECT_EQ(signal_name(34), "34");
  EXPECT_EQ(signal_name(0), "0");
  for (int number = 1; number < 32; ++number) {
    EXPECT_EQ(parse_signal(signal_name(number)), number);
  }
  EXPECT_THAT(signal_names(), Contains("TERM"));
  EXPECT_THAT(signal_names(), Contains("KILL"));
  EXPECT_THAT(signal_names(), Not(Contains("SIGTERM")));
}

TEST(SignalSet, HoldsEveryNumberThereIs) {
  SignalSet set;
  EXPECT_TRUE(set.empty());
  for (const int number : {64, 1, 12, 31}) {
    EXPECT_FALSE(set.has(number));
    set.add(number);
    set.add(number);
    EXPECT_TRUE(set.has(number));
  }
  EXPECT_THAT(set.numbers(), ElementsAre(1, 12, 31, 64));
  EXPECT_EQ(SignalSet(set.bits()).numbers(), set.numbers());
  EXPECT_FALSE(set.empty());
}

// --- time ---------------------------------------------------------------------------------------
TEST(Instant, SecondsGoThereAndBack) {
  EXPECT_EQ(from_seconds(1.5), std::chrono::milliseconds{1500});
  EXPECT_EQ(from_seconds(0), Duration::zero());
  EXPECT_EQ(from_seconds(-0.25), std::chrono::milliseconds{-250});
  EXPECT_DOUBLE_EQ(to_seconds(std::chrono::milliseconds{250}), 0.25);
}

TEST(Instant, SecondsBeyondAllMeasureSaturate) {
  EXPECT_GT(from_seconds(1e300), std::chrono::hours{24 * 365 * 200});
  EXPECT_LT(from_seconds(-1e300), -std::chrono::hours{24 * 365 * 200});
  EXPECT_EQ(from_seconds(1e300), from_seconds(1e30));
}

TEST(Instant, WallTimeIsAheadByItsOffset) {
  const Instant at{std::chrono::seconds{5}};
  const WallOffset offset{1'000'000'000};
  EXPECT_EQ(to_wall(at, offset).nanoseconds, 6'000'000'000);
  EXPECT_EQ(to_instant(to_wall(at, offset), offset), at);
}

// --- ids ----------------------------------------------------------------------------------------
TEST(Ids, AreOrderedAndTakenForNothingElse) {
  EXPECT_LT(Slot{1}, Slot{2});
  EXPECT_EQ((WorkerId{Slot{1}, Epoch{2}}), (WorkerId{Slot{1}, Epoch{2}}));
  EXPECT_NE((WorkerId{Slot{1}, Epoch{2}}), (WorkerId{Slot{1}, Epoch{3}}));
  EXPECT_LT((WorkerId{Slot{1}, Epoch{9}}), (WorkerId{Slot{2}, Epoch{1}}));
  static_assert(!std::is_convertible_v<Slot, Epoch> && !std::is_convertible_v<Version, Epoch>);
}

}  // namespace
}  // namespace einhorn
