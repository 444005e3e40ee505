// Whom a probe asks, and which ones are refused because they can't tell workers apart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "master/probe_target.h"

namespace einhorn::master {
namespace {

using ::testing::HasSubstr;
using Kind = ProbeTarget::Kind;

std::string refused(const std::string& probe, const std::string& address = "",
                    const std::string& command = "") {
  Result<ProbeTarget> target = parse_probe(probe, address, command);
  return target ? "accepted" : target.error().message();
}

TEST(ProbeTarget, PatternsAreFilledForOneWorker) {
  EXPECT_EQ(fill_pattern("127.0.0.1:{9100+index}", Slot{7}, 4711), "127.0.0.1:9107");
  EXPECT_EQ(fill_pattern("unix:/run/app.{index}.{pid}.sock", Slot{7}, 4711),
            "unix:/run/app.7.4711.sock");
  EXPECT_EQ(fill_pattern("{other} {", Slot{7}, 4711), "{other} {");
  EXPECT_EQ(fill_pattern("{pid}", Slot{7}, 0), "{pid}");
}

TEST(ProbeTarget, HttpWithTheAddressInIt) {
  Result<ProbeTarget> target = parse_probe("http://127.0.0.1:{9100+index}/health?x=1", "", "");
  ASSERT_TRUE(target.has_value());
  EXPECT_EQ(target->kind, Kind::kHttp);
  EXPECT_EQ(target->address, "127.0.0.1:{9100+index}");
  EXPECT_EQ(target->path, "/health?x=1");
}

TEST(ProbeTarget, HttpWithTheAddressBeside) {
  Result<ProbeTarget> target =
      parse_probe("http://{addr}/healthcheck", "unix:/run/app.{index}.sock", "");
  ASSERT_TRUE(target.has_value());
  EXPECT_EQ(target->address, "unix:/run/app.{index}.sock");
  EXPECT_EQ(target->path, "/healthcheck");
}

TEST(ProbeTarget, Tcp) {
  EXPECT_EQ(parse_probe("tcp", "[::1]:{9100+index}", "")->kind, Kind::kTcp);
  EXPECT_EQ(parse_probe("tcp://127.0.0.1:{9100+index}", "", "")->address, "127.0.0.1:{9100+index}");
}

TEST(ProbeTarget, ACommandIsToldWhichWorker) {
  EXPECT_EQ(parse_probe("", "", "check.sh")->kind, Kind::kCommand);
  EXPECT_EQ(parse_probe("", "", "")->kind, Kind::kNone);
}

TEST(ProbeTarget, WhatCanNotTellWorkersApartIsRefused) {
  EXPECT_THAT(refused("http://{addr}/healthcheck"), HasSubstr("can't tell which worker answered"));
  EXPECT_THAT(refused("tcp"), HasSubstr("can't tell which worker answered"));
  EXPECT_THAT(refused("http://127.0.0.1:8080/"), HasSubstr("can't tell which one answered"));
  EXPECT_THAT(refused("tcp://127.0.0.1:80"), HasSubstr("is the same for every worker"));
  EXPECT_THAT(refused("tcp", "127.0.0.1:80"), HasSubstr("is the same for every worker"));
}

TEST(ProbeTarget, NonsenseIsRefused) {
  EXPECT_THAT(refused("https://127.0.0.1:{9100+index}/"), HasSubstr("is no probe"));
  EXPECT_THAT(refused("ping"), HasSubstr("is no probe"));
  EXPECT_THAT(refused("tcp", "host-{index}"), HasSubstr("no HOST:PORT"));
  EXPECT_THAT(refused("tcp", "127.0.0.1:{70000+index}"), HasSubstr("no HOST:PORT"));
  EXPECT_THAT(refused("", "127.0.0.1:{9100+index}"), HasSubstr("needs --probe"));
  EXPECT_THAT(refused("tcp://127.0.0.1:{9100+index}", "", "true"), HasSubstr("only one of them"));
  EXPECT_THAT(refused("", "", "a\nb"), HasSubstr("one line"));
}

}  // namespace
}  // namespace einhorn::master
