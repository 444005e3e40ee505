#include <arpa/inet.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "intercept/rules.h"

namespace einhorn::intercept {
namespace {

using Kind = Decision::Kind;

// "127.0.0.1:80", "[::]:80", "/path", "@name".
SocketAddress at(const std::string& text) {
  SocketAddress address;
  if (text[0] == '/' || text[0] == '@') {
    address.kind = text[0] == '/' ? SocketAddress::Kind::kPath : SocketAddress::Kind::kAbstract;
    address.path = text[0] == '/' ? text : text.substr(1);
    return address;
  }
  const std::size_t colon = text.rfind(':');
  std::string host = text.substr(0, colon);
  address.port = static_cast<std::uint16_t>(std::stoi(text.substr(colon + 1)));
  const bool six = host[0] == '[';
  address.kind = six ? SocketAddress::Kind::kInet6 : SocketAddress::Kind::kInet;
  host = six ? host.substr(1, host.size() - 2) : host;
  EXPECT_EQ(inet_pton(six ? AF_INET6 : AF_INET, host.c_str(), address.ip.data()), 1) << text;
  return address;
}

Wanted want(const std::string& text, bool v6_only = false) {
  return {false, text[0] == '[', v6_only, at(text)};
}

std::vector<Shared> shared(const std::vector<std::string>& texts) {
  std::vector<Shared> all;
  for (const std::string& text : texts) {
    Shared one;
    one.index = static_cast<std::uint32_t>(all.size());
    one.address = at(text);
    one.name = "n" + std::to_string(all.size());
    all.push_back(one);
  }
  return all;
}

struct Case {
  std::vector<std::string> have;
  std::string asked;
  Kind kind;
  std::uint32_t index = 0;
  std::string form = "";  // what the form is bound to
  bool v6_only = false;   // asked for, and so the form
};

TEST(Rules, WhichSocketAProgramGets) {
  const std::vector<Case> cases = {
      {{"127.0.0.1:80"}, "127.0.0.1:80", Kind::kShared, 0, "127.0.0.1:80"},
      {{"127.0.0.1:80"}, "127.0.0.1:81", Kind::kUnmanaged},
      {{"127.0.0.1:80"}, "127.0.0.1:0", Kind::kUnmanaged},
      // Any local address with the port; what -b says counts.
      {{"127.0.0.1:80"}, "0.0.0.0:80", Kind::kShared, 0, "127.0.0.1:80"},
      {{"127.0.0.1:80"}, "[::]:80", Kind::kShared, 0, "[::ffff:127.0.0.1]:80"},
      {{"127.0.0.1:80"}, "10.0.0.1:80", Kind::kShared, 0, "127.0.0.1:80"},
      {{"0.0.0.0:80"}, "[::]:80", Kind::kShared, 0, "[::ffff:0.0.0.0]:80"},
      // All addresses, as the program asked.
      {{"[::]:80"}, "0.0.0.0:80", Kind::kShared, 0, "0.0.0.0:80"},
      {{"[::]:80"}, "127.0.0.1:80", Kind::kShared, 0, "0.0.0.0:80"},
      {{"[::]:80"}, "[::]:80", Kind::kShared, 0, "[::]:80"},
      {{"[::]:80"}, "[::]:80", Kind::kShared, 0, "[::]:80", true},
      {{"[::ffff:1.2.3.4]:80"}, "1.2.3.4:80", Kind::kShared, 0, "1.2.3.4:80"},
      // The very address, then all addresses, then the same family.
      {{"0.0.0.0:80", "10.0.0.1:80"}, "10.0.0.1:80", Kind::kShared, 1, "10.0.0.1:80"},
      {{"10.0.0.2:80", "0.0.0.0:80"}, "10.0.0.1:80", Kind::kShared, 1, "0.0.0.0:80"},
      {{"[::1]:80", "127.0.0.1:80"}, "0.0.0.0:80", Kind::kShared, 1, "127.0.0.1:80"},
      {{"[::1]:80", "127.0.0.1:80"}, "[::]:80", Kind::kShared, 0, "[::1]:80"},
      // Not to be had.
      {{"[::1]:80"}, "0.0.0.0:80", Kind::kImpossible},
      // A second socket, for IPv6 only, beside one that is for IPv4.
      {{"0.0.0.0:80"}, "[::]:80", Kind::kUnmanaged, 0, "", true},
      {{"/run/a"}, "/run/a", Kind::kShared, 0, "unix:/run/a"},
      {{"/run/a"}, "/run/b", Kind::kUnmanaged},
      {{"@a"}, "@a", Kind::kShared, 0, "unix:@a"},
      {{"@a"}, "/a", Kind::kUnmanaged},
  };
  for (const Case& each : cases) {
    const Decision decision = decide(want(each.asked, each.v6_only), shared(each.have), {});
    const std::string text = each.have[0] + " <- " + each.asked + " " + decision.reason;
    ASSERT_EQ(decision.kind, each.kind) << text;
    if (each.kind == Kind::kShared) {
      EXPECT_EQ(decision.index, each.index) << text;
      EXPECT_EQ(format(decision.form.address), each.form) << text;
      EXPECT_EQ(decision.form.v6_only, each.v6_only) << text;
      EXPECT_EQ(decision.form.inet6, each.asked[0] == '[') << text;
    }
  }
}

TEST(Rules, DatagramsAndStreamsAreTwoThings) {
  std::vector<Shared> have = shared({"127.0.0.1:53", "127.0.0.1:53"});
  have[1].datagram = true;
  Wanted wanted = want("127.0.0.1:53");
  EXPECT_EQ(decide(wanted, have, {}).index, 0U);
  wanted.datagram = true;
  EXPECT_EQ(decide(wanted, have, {}).index, 1U);
  have.pop_back();
  EXPECT_EQ(decide(wanted, have, {}).kind, Kind::kUnmanaged);
}

TEST(Rules, Rewriting) {
  const std::vector<Shared> have = shared({"0.0.0.0:8080", "127.0.0.1:9090", "/run/web"});
  const auto rules = [](const std::vector<std::string>& texts) {
    std::vector<os::InterceptRule> all;
    all.reserve(texts.size());
    for (const std::string& text : texts) {
      all.push_back(*os::parse_intercept_rule(text));
    }
    return all;
  };
  EXPECT_EQ(decide(want("0.0.0.0:3000"), have, rules({"3000=8080"})).index, 0U);
  EXPECT_EQ(decide(want("0.0.0.0:3000"), have, rules({"3000=n1"})).index, 1U);
  EXPECT_EQ(decide(want("0.0.0.0:3000"), have, rules({"3001=8080"})).kind, Kind::kUnmanaged);
  EXPECT_EQ(decide(want("127.0.0.1:3000"), have, rules({"10.0.0.1:3000=n1", "3000=n0"})).index, 0U);
  EXPECT_EQ(decide(want("[::ffff:10.0.0.1]:3000"), have, rules({"10.0.0.1:3000=n1"})).index, 1U);
  EXPECT_EQ(decide(want("/tmp/x"), have, rules({"unix:/tmp/x=n2"})).index, 2U);
  EXPECT_EQ(decide(want("@x"), have, rules({"unix:@x=n2"})).kind, Kind::kShared);
  // A unix socket can't stand for an internet one: their addresses are not alike.
  EXPECT_EQ(decide(want("0.0.0.0:3000"), have, rules({"3000=n2"})).kind, Kind::kImpossible);
  EXPECT_EQ(decide(want("/tmp/x"), have, rules({"unix:/tmp/x=n0"})).kind, Kind::kImpossible);
}

}  // namespace
}  // namespace einhorn::intercept
