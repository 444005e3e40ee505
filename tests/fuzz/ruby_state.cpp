// The state of a Ruby master, as a re-exec of it hands it on; and what one of ours makes of it for
// the next Ruby master.
#include "wire/ruby_state.h"

#include <string>
#include <string_view>

#include "documents.h"
#include "wire/yaml.h"

namespace einhorn::fuzz {
namespace {

void holds_findings(const wire::RubyFindings& findings) {
  for (const auto* places : {&findings.missing, &findings.unknown, &findings.invalid}) {
    for (const std::string& place : *places) {
      holds(!place.empty(), "a finding says where");
    }
  }
}

// What one understood of a state, one understands completely when it is written down again.
void hand_off(const wire::RubyHandoff& handoff) {
  const std::string text = wire::encode_yaml(wire::encode_ruby_handoff(handoff));
  const Result<wire::Value> document = wire::parse_yaml(text, wire::ruby_state_limits());
  holds(document.has_value(), "a state of ours can be read",
        document ? "" : document.error().message());
  const Result<wire::RubyHandoffRead> read = wire::decode_ruby_handoff(*document);
  holds(read.has_value(), "a state of ours is one", read ? "" : text);
  holds(read->findings.invalid.empty() && read->findings.unknown.empty(),
        "a state of ours is understood completely",
        read->findings.invalid.empty() ? text : read->findings.invalid[0] + "\n" + text);
  holds(wire::encode_yaml(wire::encode_ruby_handoff(read->handoff)) == text,
        "a state reads back as the same", text);
}

}  // namespace

void run(std::string_view input) {
  const Result<wire::Value> document = wire::parse_yaml(input, wire::ruby_state_limits());
  if (!document) {
    holds_for_people(document.error().message());
    return;
  }
  holds_within(*document, wire::ruby_state_limits());
  const Result<wire::RubyStateRead> state = wire::decode_ruby_state(*document);
  if (state) {
    holds_findings(state->findings);
    holds(!wire::encode_yaml(wire::encode_ruby_state(state->state)).empty(), "a state is written");
  } else {
    holds_for_people(state.error().message());
  }
  const Result<wire::RubyHandoffRead> handoff = wire::decode_ruby_handoff(*document);
  holds(handoff.has_value() == state.has_value(), "both readers agree on what a state is");
  if (handoff) {
    holds_findings(handoff->findings);
    hand_off(handoff->handoff);
  }
}

}  // namespace einhorn::fuzz
