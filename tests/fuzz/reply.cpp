// A line from a master, as a client reads it.
#include <string>
#include <string_view>

#include "documents.h"
#include "wire/json.h"
#include "wire/message.h"

namespace einhorn::fuzz {

void run(std::string_view input) {
  const Result<wire::Reply> reply = wire::parse_reply(input);
  if (!reply) {
    holds_for_people(reply.error().message());
    return;
  }
  const bool strange = reply->request_id && has_unstable_symbol(*reply->request_id);
  for (const wire::Language language : {wire::Language::kYaml, wire::Language::kJson}) {
    const std::string line = wire::encode_reply(*reply, language);
    holds(line.find('\n') == line.size() - 1, "a reply is one line", line);
    const Result<wire::Reply> again =
        wire::parse_reply(std::string_view(line).substr(0, line.size() - 1));
    holds(again.has_value(), "a reply can be read", again ? "" : line + again.error().message());
    holds(again->message == reply->message, "a reply's message arrives", line);
    holds(strange || wire::encode_reply(*again, language) == line, "a reply reads back as the same",
          line);
  }
}

}  // namespace einhorn::fuzz
