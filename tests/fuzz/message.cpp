// A line from a client: any bytes up to a newline. What is understood is written and read again,
// as a request and as the reply to it.
#include "wire/message.h"

#include <string>
#include <string_view>

#include "base/limits.h"
#include "documents.h"
#include "wire/json.h"

namespace einhorn::fuzz {
namespace {

void holds_one_line(std::string_view line) {
  holds(!line.empty() && line.find('\n') == line.size() - 1, "a message is one line", line);
}

void answer(const wire::Value& document, wire::Language language) {
  wire::Reply reply;
  if (const wire::Value* command = document.find("command")) {
    reply.message = command->as_string() != nullptr ? *command->as_string() : command->inspect();
  }
  if (const wire::Value* id = document.find("id")) {
    reply.request_id = *id;
    reply.wait = document.find("wait") != nullptr;
    reply.status = reply.wait ? "ok" : "";
  }
  const std::string line = wire::encode_reply(reply, language);
  holds_one_line(line);
  const Result<wire::Reply> read =
      wire::parse_reply(std::string_view(line).substr(0, line.size() - 1));
  holds(read.has_value(), "a reply can be read", read ? "" : line + read.error().message());
  holds(read->message == reply.message, "a reply's message arrives", line);
  const bool numbered = reply.request_id && !reply.request_id->is_null() &&
                        !(*reply.request_id == wire::Value(false));
  holds(read->request_id.has_value() == numbered, "a reply keeps its id", line);
  if (numbered) {
    holds(wire::encode_json(*read->request_id) == wire::encode_json(*reply.request_id),
          "a reply keeps its id", line);
    holds(read->wait == reply.wait && read->status == reply.status, "a reply keeps its state",
          line);
  }
}

}  // namespace

void run(std::string_view input) {
  const Result<wire::Request> request = wire::parse_request(input);
  if (!request) {
    holds_for_people(request.error().message());
    return;
  }
  const wire::Value& document = request->document;
  holds(document.as_map() != nullptr, "a request is a map");
  holds_within(document, {});
  holds_round_trips(document);
  if (has_unstable_symbol(document)) {
    return;
  }
  answer(document, wire::Language::kYaml);
  answer(document, wire::Language::kJson);
  const std::string line = wire::encode_request(document);
  holds_one_line(line);
  if (document.find("command") == nullptr || line.size() > limits::kMaxLineBytes) {
    return;  // without a command everything that looks like %XX is decoded
  }
  const Result<wire::Request> again =
      wire::parse_request(std::string_view(line).substr(0, line.size() - 1));
  holds(again.has_value(), "a request can be read", again ? "" : line + again.error().message());
  holds(again->language == wire::Language::kYaml || line.starts_with('{'),
        "requests are written as YAML");
  holds(wire::encode_request(again->document) == line, "a request reads back as the same", line);
}

}  // namespace einhorn::fuzz
