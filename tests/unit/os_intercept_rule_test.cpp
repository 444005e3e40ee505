#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "os/intercept.h"

namespace einhorn::os {
namespace {

TEST(InterceptRule, ReadsEveryForm) {
  const Result<InterceptRule> port = parse_intercept_rule("3000=8080");
  ASSERT_TRUE(port);
  EXPECT_EQ(port->from_host, "");
  EXPECT_EQ(port->from_port, 3000);
  EXPECT_EQ(port->to_port, 8080);

  const Result<InterceptRule> named = parse_intercept_rule("127.0.0.1:3000=web");
  ASSERT_TRUE(named);
  EXPECT_EQ(named->from_host, "127.0.0.1");
  EXPECT_EQ(named->to_port, 0);
  EXPECT_EQ(named->to_name, "web");

  EXPECT_EQ(parse_intercept_rule("[::1]:1=2")->from_host, "::1");
  EXPECT_EQ(parse_intercept_rule("*:1=2")->from_host, "");
  EXPECT_EQ(parse_intercept_rule("unix:/run/a=b=web")->from_host, "/run/a=b");
  EXPECT_EQ(parse_intercept_rule("unix:@a=web")->from_host, "@a");
}

TEST(InterceptRule, SaysWhatIsWrong) {
  for (const char* bad : {"", "=", "3000", "3000=", "=80", "0=80", "70000=80", "80=70000", "x=80",
                          "host:80=81", "unix:=a", "unix:run=a", "-1=2", "80 =81"}) {
    const Result<InterceptRule> rule = parse_intercept_rule(bad);
    ASSERT_FALSE(rule) << bad;
    EXPECT_THAT(rule.error().message(),
                testing::HasSubstr("allowed: auto, seccomp, preload, PORT=PORT"))
        << bad;
  }
}

}  // namespace
}  // namespace einhorn::os
