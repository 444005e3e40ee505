// What `-b` accepts, what it makes of it, and what it says about everything else.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "os/bind_spec.h"

namespace einhorn::os {
namespace {

using Family = BindSpec::Family;
using Protocol = BindSpec::Protocol;

BindSpec parsed(const std::string& text) {
  const Result<BindSpec> result = parse_bind_spec(text);
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message());
  return result ? *result : BindSpec{};
}

struct AddressCase {
  const char* text;
  Family family;
  Protocol protocol;
  const char* host;
  std::uint16_t port;
};

TEST(BindSpecTest, EveryFormOfAddress) {
  const std::vector<AddressCase> cases = {
      {"127.0.0.1:80", Family::kInet, Protocol::kTcp, "127.0.0.1", 80},
      {"127.0.0.1:0", Family::kInet, Protocol::kTcp, "127.0.0.1", 0},
      {"127.0.0.1:65535", Family::kInet, Protocol::kTcp, "127.0.0.1", 65535},
      {"127.0.0.1:0080", Family::kInet, Protocol::kTcp, "127.0.0.1", 80},
      {"0.0.0.0:80", Family::kInet, Protocol::kTcp, "0.0.0.0", 80},
      {"8080", Family::kInet, Protocol::kTcp, "", 8080},
      {"0", Family::kInet, Protocol::kTcp, "", 0},
      {":8080", Family::kInet, Protocol::kTcp, "", 8080},
      {"*:80", Family::kInet, Protocol::kTcp, "", 80},
      {"[::1]:80", Family::kInet, Protocol::kTcp, "::1", 80},
      {"[::]:80", Family::kInet, Protocol::kTcp, "::", 80},
      {"[2001:db8::7]:443", Family::kInet, Protocol::kTcp, "2001:db8::7", 443},
      {"[::ffff:127.0.0.1]:80", Family::kInet, Protocol::kTcp, "::ffff:127.0.0.1", 80},
      {"[fe80::1%eth0]:80", Family::kInet, Protocol::kTcp, "fe80::1%eth0", 80},
      {"localhost:80", Family::kInet, Protocol::kTcp, "localhost", 80},
      {"my_host-1.example.org.:80", Family::kInet, Protocol::kTcp, "my_host-1.example.org.", 80},
      {"1and1.example:80", Family::kInet, Protocol::kTcp, "1and1.example", 80},
      {"udp:53", Family::kInet, Protocol::kUdp, "", 53},
      {"udp::53", Family::kInet, Protocol::kUdp, "", 53},
      {"udp:*:53", Family::kInet, Protocol::kUdp, "", 53},
      {"udp:127.0.0.1:53", Family::kInet, Protocol::kUdp, "127.0.0.1", 53},
      {"udp:[::1]:53", Family::kInet, Protocol::kUdp, "::1", 53},
      {"udp:localhost:53", Family::kInet, Protocol::kUdp, "localhost", 53},
      {"unix:/run/app.sock", Family::kUnix, Protocol::kTcp, "/run/app.sock", 0},
      {"unix:/run/a:b=c.sock", Family::kUnix, Protocol::kTcp, "/run/a:b=c.sock", 0},
      {"unix:@app", Family::kUnix, Protocol::kTcp, "@app", 0},
      {"fd:3", Family::kInherited, Protocol::kTcp, "3", 0},
      {"fd:0", Family::kInherited, Protocol::kTcp, "0", 0},
      {"fd:web", Family::kInherited, Protocol::kTcp, "web", 0},
      {"fd:app.socket", Family::kInherited, Protocol::kTcp, "app.socket", 0},
  };
  for (const AddressCase& c : cases) {
    SCOPED_TRACE(c.text);
    const BindSpec spec = parsed(c.text);
    EXPECT_EQ(spec.text, c.text);
    EXPECT_EQ(spec.family, c.family);
    EXPECT_EQ(spec.protocol, c.protocol);
    EXPECT_EQ(spec.host, c.host);
    EXPECT_EQ(spec.port, c.port);
    EXPECT_TRUE(spec.flags.empty());
  }
}

TEST(BindSpecTest, NothingIsSetUnlessAsked) {
  const BindSpec spec = parsed("127.0.0.1:80");
  EXPECT_FALSE(spec.reuse_address);
  EXPECT_FALSE(spec.nonblock);
  EXPECT_FALSE(spec.reuse_port);
  EXPECT_FALSE(spec.v6_only);
  EXPECT_FALSE(spec.defer_accept);
  EXPECT_FALSE(spec.no_delay);
  EXPECT_FALSE(spec.backlog.has_value());
  EXPECT_FALSE(spec.fast_open.has_value());
  EXPECT_FALSE(spec.mode.has_value());
  EXPECT_EQ(spec.name + spec.user + spec.group, "");
}

TEST(BindSpecTest, EachFlagSetsItsOwn) {
  EXPECT_TRUE(parsed("80,r").reuse_address);
  EXPECT_TRUE(parsed("80,so_reuseaddr").reuse_address);
  EXPECT_TRUE(parsed("80,n").nonblock);
  EXPECT_TRUE(parsed("80,o_nonblock").nonblock);
  EXPECT_TRUE(parsed("80,reuseport").reuse_port);
  EXPECT_TRUE(parsed("80,defer").defer_accept);
  EXPECT_TRUE(parsed("80,nodelay").no_delay);
  EXPECT_TRUE(parsed("[::]:80,v6only").v6_only);
  EXPECT_FALSE(parsed("80,r").nonblock);
  EXPECT_FALSE(parsed("80,n").reuse_address);
  EXPECT_FALSE(parsed("80,r").reuse_port);
}

TEST(BindSpecTest, FlagsInAnyCaseAndTogether) {
  for (const char* text : {"80,rn", "80,nr", "80,RN", "80,r,n", "80,N,R",
                           "80,SO_REUSEADDR,O_NonBlock", "80,r,r,n", "80,rn,rn"}) {
    SCOPED_TRACE(text);
    const BindSpec spec = parsed(text);
    EXPECT_TRUE(spec.reuse_address);
    EXPECT_TRUE(spec.nonblock);
  }
}

TEST(BindSpecTest, FlagsAreKeptForState) {
  EXPECT_EQ(parsed("80,RN").flags, (std::vector<std::string>{"r", "n"}));
  EXPECT_EQ(parsed("80,SO_REUSEADDR,Backlog=7,NAME=Web").flags,
            (std::vector<std::string>{"so_reuseaddr", "backlog=7", "name=Web"}));
}

TEST(BindSpecTest, ValuedOptions) {
  EXPECT_EQ(parsed("80,backlog=1").backlog, 1);
  EXPECT_EQ(parsed("80,BACKLOG=65535").backlog, 65535);
  EXPECT_EQ(parsed("80,fastopen=16").fast_open, 16);
  EXPECT_EQ(parsed("80,name=Web-1.socket").name, "Web-1.socket");
  EXPECT_EQ(parsed("80,name=a=b").name, "a=b");
  EXPECT_EQ(parsed("unix:/s,mode=0660").mode, 0660u);
  EXPECT_EQ(parsed("unix:/s,mode=600").mode, 0600u);
  EXPECT_EQ(parsed("unix:/s,mode=0777").mode, 0777u);
  EXPECT_EQ(parsed("unix:/s,mode=0").mode, 0u);
  EXPECT_EQ(parsed("unix:/s,user=Www").user, "Www");
  EXPECT_EQ(parsed("unix:/s,group=33").group, "33");
}

TEST(BindSpecTest, OptionsThatFitEachKindOfAddress) {
  for (const char* text :
       {"80,r,n,reuseport,backlog=5,defer,fastopen=5,nodelay,name=x", "[::1]:80,v6only",
        "udp:53,r,n,reuseport,name=x", "udp:[::]:53,v6only",
        "unix:/s,n,backlog=5,name=x,mode=0600,user=root,group=root", "unix:@s,n,backlog=5,name=x",
        "fd:3,n,backlog=5,defer,fastopen=5,nodelay,name=x"}) {
    EXPECT_TRUE(parse_bind_spec(text).has_value()) << text;
  }
}

struct WrongCase {
  std::string text;
  const char* fragment;
};

std::vector<WrongCase> wrong_addresses() {
  return {
      {"", "-b \"\": the address is empty"},
      {" ", "-b \" \": white space"},
      {"127.0.0.1:80 ", "-b \"127.0.0.1:80 \": white space"},
      {" 80", "white space"},
      {"80, r", "white space"},
      {"80\n", "-b \"80\\x0a\": white space and control characters"},
      {std::string("80\0x", 4), "\\x00x\": white space and control characters"},
      {"unix:/a b", "white space"},
      {",r", "the address is empty"},
      {"127.0.0.1", "the port is missing"},
      {"localhost", "the port is missing"},
      {"*", "the port is missing"},
      {"80a", "the port is missing"},
      {"+80", "the port is missing"},
      {"-1", "the port is missing"},
      {"127.0.0.1:", "the port is missing"},
      {":", "the port is missing"},
      {"[::1]", "the port is missing"},
      {"[::1]:", "the port is missing"},
      {"127.0.0.1:http", "the port \"http\" is not a decimal number"},
      {"127.0.0.1:0x50", "the port \"0x50\" is not a decimal number"},
      {"127.0.0.1:-1", "the port \"-1\" is not a decimal number"},
      {"127.0.0.1:+80", "the port \"+80\" is not a decimal number"},
      {"127.0.0.1:65536", "the port \"65536\" is not in 0..65535"},
      {"65536", "the port \"65536\" is not in 0..65535"},
      {"99999999999999999999", "is not in 0..65535"},
      {"[::1:80", "the bracket is not closed"},
      {"::1]:80", "too many colons"},
      {"::1:80", "an IPv6 address needs brackets"},
      {"::1", "an IPv6 address needs brackets"},
      {"a:b:80", "too many colons"},
      {"[::1]80", "behind the bracket comes :PORT, not \"80\""},
      {"[::1]]:80", "behind the bracket comes :PORT"},
      {"[]:80", "\"\" is not an IPv6 address"},
      {"[127.0.0.1]:80", "\"127.0.0.1\" is not an IPv6 address; brackets are for those only"},
      {"[localhost]:80", "is not an IPv6 address"},
      {"[*]:80", "is not an IPv6 address"},
      {"[fe80::1%]:80", "is not an IPv6 address"},
      {"[1:2:3]:80", "is not an IPv6 address"},
      {"256.0.0.1:80", "\"256.0.0.1\" is not an IPv4 address"},
      {"127.1:80", "\"127.1\" is not an IPv4 address"},
      {"1.2.3.4.5:80", "is not an IPv4 address"},
      {"0x7f.1:80", "is not an IPv4 address"},
      {"2130706433:80", "is not an IPv4 address"},
      {"a..b:80", "has an empty part"},
      {".a:80", "has an empty part"},
      {"a/b:80", "\"a/b\" is neither an address nor a host name"},
      {"a]:80", "is neither an address nor a host name"},
      {"b\xc3\xbc"
       "cher:80",
       "is neither an address nor a host name"},
      {std::string(254, 'a') + ":80", "longer than 253 bytes"},
      {"unix:", "behind unix: comes an absolute path or @NAME"},
      {"unix:app.sock", "behind unix: comes an absolute path or @NAME"},
      {"unix:@", "names no socket"},
      {"unix:/", "names no socket"},
      {"unix:/run/", "ends in a slash"},
      {"unix:/" + std::string(107, 'x'), "the path has 108 bytes; a unix socket's has at most 107"},
      {"unix:@" + std::string(108, 'x'), "at most 108"},
      {"udp:", "the address is empty"},
      {"udp:127.0.0.1", "the port is missing"},
      {"udp:unix:/s", "behind udp: comes HOST:PORT or PORT"},
      {"udp:fd:3", "behind udp: comes HOST:PORT or PORT"},
      {"udp:udp:53", "behind udp: comes HOST:PORT or PORT"},
      {"fd:", "behind fd: comes a descriptor's number or a name"},
      {"fd:2147483648", "is not a descriptor's number"},
      {"fd:a:b", "the name \"a:b\" has other characters"},
  };
}

std::vector<WrongCase> wrong_options() {
  return {
      {"80,", "an option is empty"},
      {"80,,r", "an option is empty"},
      {"80,r,", "an option is empty"},
      {"80,zap",
       "unknown option \"zap\"; allowed are r, so_reuseaddr, n, o_nonblock, reuseport, "
       "backlog=N, defer, fastopen=N, nodelay, v6only, name=NAME, stdin, "
       "mode=OCTAL, user=NAME, group=NAME"},
      {"80,rnx", "unknown option \"rnx\""},
      {"80,rr", "unknown option \"rr\""},
      {"80,=5", "unknown option \"=5\""},
      {"80,rn=1", "unknown option \"rn=1\""},
      {"80,r=1", "option \"r\" takes no value"},
      {"80,nodelay=", "option \"nodelay\" takes no value"},
      {"80,backlog", "option \"backlog\" needs a value: backlog=N"},
      {"80,backlog=", "option \"backlog\" needs a value"},
      {"80,name=", "option \"name\" needs a value: name=NAME"},
      {"unix:/s,mode", "option \"mode\" needs a value: mode=OCTAL"},
      {"80,backlog=0", "backlog=0: must be a number in 1..65535"},
      {"80,backlog=65536", "must be a number in 1..65535"},
      {"80,backlog=-1", "must be a number in 1..65535"},
      {"80,backlog=10k", "must be a number in 1..65535"},
      {"80,fastopen=0", "fastopen=0: must be a number in 1..65535"},
      {"80,fastopen=x", "must be a number in 1..65535"},
      {"80,backlog=1,backlog=2", "option \"backlog\" is given twice"},
      {"80,name=a,name=a", "option \"name\" is given twice"},
      {"unix:/s,mode=0888", "mode=0888: must be an octal number up to 0777"},
      {"unix:/s,mode=01777", "must be an octal number up to 0777"},
      {"unix:/s,mode=u+rw", "must be an octal number up to 0777"},
      {"unix:/s,mode=0x1", "must be an octal number up to 0777"},
      {"80,name=a:b", "the name \"a:b\" has other characters"},
      {"80,name={x}", "the name \"{x}\" has other characters"},
      {"80,name=7", "the name \"7\" is a number"},
      {"80,name=" + std::string(256, 'x'), "the name is longer than 255 bytes"},
      {"80,mode=0600", "option \"mode\" makes no sense for a TCP address: it is about the file"},
      {"80,user=root", "option \"user\" makes no sense for a TCP address"},
      {"80,group=root", "option \"group\" makes no sense for a TCP address"},
      {"udp:53,backlog=5", "option \"backlog\" makes no sense for a UDP address: there are no"},
      {"udp:53,defer", "option \"defer\" makes no sense for a UDP address: it is for TCP"},
      {"udp:53,fastopen=5", "makes no sense for a UDP address"},
      {"udp:53,nodelay", "makes no sense for a UDP address"},
      {"udp:53,mode=0600", "makes no sense for a UDP address"},
      {"unix:/s,defer", "option \"defer\" makes no sense for a unix socket: it is for TCP"},
      {"unix:/s,nodelay", "makes no sense for a unix socket"},
      {"unix:/s,r", "option \"r\" makes no sense for a unix socket"},
      {"unix:/s,rn", "option \"r\" makes no sense for a unix socket"},
      {"unix:/s,reuseport", "makes no sense for a unix socket"},
      {"unix:/s,v6only", "makes no sense for a unix socket"},
      {"unix:@s,mode=0600", "makes no sense for an abstract unix socket: it is about the file"},
      {"unix:@s,user=root", "makes no sense for an abstract unix socket"},
      {"fd:3,r", "option \"r\" makes no sense for a socket that is handed in"},
      {"fd:web,mode=0600", "makes no sense for a socket that is handed in"},
      {"fd:3,v6only", "makes no sense for a socket that is handed in"},
      {"80,v6only", "option \"v6only\" makes no sense without an IPv6 address, as in [::]:80"},
      {"127.0.0.1:80,v6only", "makes no sense without an IPv6 address"},
      {"localhost:80,v6only", "makes no sense without an IPv6 address"},
  };
}

void expect_refused(const WrongCase& wrong) {
  SCOPED_TRACE(wrong.text);
  const Result<BindSpec> result = parse_bind_spec(wrong.text);
  ASSERT_FALSE(result.has_value());
  const std::string message = result.error().message();
  EXPECT_NE(message.find(wrong.fragment), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_TRUE(message.starts_with("-b ")) << message;
  const bool plain = wrong.text.find_first_of(std::string(" \n\0", 3)) == std::string::npos;
  if (plain && !wrong.text.empty()) {
    EXPECT_TRUE(message.starts_with("-b " + wrong.text + ": ")) << message;
  }
}

TEST(BindSpecTest, WrongAddressesAreRefusedWithTheReason) {
  for (const WrongCase& wrong : wrong_addresses()) {
    expect_refused(wrong);
  }
}

TEST(BindSpecTest, WrongOptionsAreRefusedWithTheReason) {
  for (const WrongCase& wrong : wrong_options()) {
    expect_refused(wrong);
  }
}

TEST(BindSpecTest, LongestPathsFit) {
  EXPECT_TRUE(parse_bind_spec("unix:/" + std::string(106, 'x')).has_value());
  EXPECT_TRUE(parse_bind_spec("unix:@" + std::string(107, 'x')).has_value());
}

TEST(SrvArgumentTest, IsFound) {
  struct Case {
    const char* argument;
    const char* prefix;
    const char* spec;
  };
  const std::vector<Case> cases = {
      {"srv:127.0.0.1:80", "", "127.0.0.1:80"},
      {"srv:127.0.0.1:80,so_reuseaddr,N", "", "127.0.0.1:80,so_reuseaddr,N"},
      {"--socket=srv:127.0.0.1:80,r", "--socket=", "127.0.0.1:80,r"},
      {"=srv:h:1", "=", "h:1"},
      {"a=b=srv:h:1", "a=b=", "h:1"},
      {"a=srv:h:1=srv:i:2", "a=srv:h:1=", "i:2"},
      {"srv:8080", "", "8080"},
      {"srv::8080", "", ":8080"},
      {"srv:[::1]:80,v6only", "", "[::1]:80,v6only"},
      {"srv:udp:53", "", "udp:53"},
      {"srv:unix:/s,mode=0600", "", "unix:/s,mode=0600"},
      {"-l=srv:unix:@s", "-l=", "unix:@s"},
      {"srv:fd:web", "", "fd:web"},
      {"srv:127.0.0.1:80,zap", "", "127.0.0.1:80,zap"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.argument);
    const auto found = find_srv_argument(c.argument);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->prefix, c.prefix);
    EXPECT_EQ(found->spec, c.spec);
  }
}

TEST(SrvArgumentTest, OtherArgumentsAreLeftAlone) {
  for (const char* argument :
       {"", "srv", "srv:", "srv:,r", "--socket=srv:", "127.0.0.1:80", "xsrv:127.0.0.1:80",
        "--socket srv:127.0.0.1:80", "srv:127.0.0.1:http", "srv:127.0.0.1:", "srv:localhost",
        "--dns=srv:_http._tcp.example.org", "srv:127.0.0.1:80 --more", "srv:unix:relative",
        "srv:fd:", "SRV:127.0.0.1:80"}) {
    EXPECT_FALSE(find_srv_argument(argument).has_value()) << argument;
  }
}

}  // namespace
}  // namespace einhorn::os
