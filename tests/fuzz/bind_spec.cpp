// What -b may say, and the old form of it in a program's arguments.
#include "os/bind_spec.h"

#include <string>
#include <string_view>

#include "fuzz.h"

namespace einhorn::fuzz {
namespace {

using os::BindSpec;

void holds_in_range(const BindSpec& spec) {
  const std::string& text = spec.text;
  holds(!spec.backlog || (*spec.backlog >= 1 && *spec.backlog <= 65535), "backlog", text);
  holds(!spec.fast_open || (*spec.fast_open >= 1 && *spec.fast_open <= 65535), "fastopen", text);
  holds(!spec.mode || *spec.mode <= 0777, "mode", text);
  switch (spec.family) {
    case BindSpec::Family::kInet:
      holds(!spec.mode && spec.user.empty() && spec.group.empty(), "a path's options", text);
      holds(!spec.v6_only || spec.host.find(':') != std::string::npos, "v6only is IPv6's", text);
      break;
    case BindSpec::Family::kUnix:
      holds(spec.host.size() > 1 && (spec.host[0] == '/' || spec.host[0] == '@'), "path", text);
      holds(spec.host[0] == '/' || (!spec.mode && spec.user.empty() && spec.group.empty()),
            "a path's options", text);
      holds(spec.port == 0 && spec.protocol == BindSpec::Protocol::kTcp, "no port", text);
      break;
    case BindSpec::Family::kInherited:
      holds(!spec.host.empty() && spec.port == 0, "what is inherited has a name", text);
      break;
  }
}

bool same(const BindSpec& left, const BindSpec& right) {
  return left.text == right.text && left.family == right.family &&
         left.protocol == right.protocol && left.host == right.host && left.port == right.port &&
         left.reuse_address == right.reuse_address && left.nonblock == right.nonblock &&
         left.reuse_port == right.reuse_port && left.v6_only == right.v6_only &&
         left.defer_accept == right.defer_accept && left.no_delay == right.no_delay &&
         left.backlog == right.backlog && left.fast_open == right.fast_open &&
         left.name == right.name && left.mode == right.mode && left.user == right.user &&
         left.group == right.group && left.flags == right.flags;
}

}  // namespace

void run(std::string_view input) {
  if (const auto argument = os::find_srv_argument(input)) {
    holds(argument->prefix + "srv:" + argument->spec == input, "an argument loses nothing", input);
  }
  const Result<BindSpec> spec = os::parse_bind_spec(input);
  if (!spec) {
    holds_for_people(spec.error().message());
    return;
  }
  holds(spec->text == input, "the text is kept", input);
  holds_in_range(*spec);
  const Result<BindSpec> again = os::parse_bind_spec(spec->text);
  holds(again.has_value() && same(*spec, *again), "what was accepted is accepted again", input);
}

}  // namespace einhorn::fuzz
