#include "wire/message.h"

#include <algorithm>

#include "wire/json.h"
#include "wire/text.h"
#include "wire/yaml.h"

namespace einhorn::wire {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Every %XX becomes its byte; a `%` without two hexadecimal digits behind it stays.
std::string decode_percents(std::string_view line) {
  std::string out;
  out.reserve(line.size());
  for (std::size_t at = 0; at < line.size(); ++at) {
    const int high = line[at] == '%' && at + 2 < line.size() ? hex_digit(line[at + 1]) : -1;
    const int low = high >= 0 ? hex_digit(line[at + 2]) : -1;
    if (low >= 0) {
      out += static_cast<char>(static_cast<unsigned char>(high * 16 + low));
      at += 2;
    } else {
      out += line[at];
    }
  }
  return out;
}

std::string_view without_line_end(std::string_view line) {
  while (line.ends_with('\r') || line.ends_with('\n')) {
    line.remove_suffix(1);
  }
  return line;
}

Result<Request> parse_document(std::string_view text) {
  if (text.starts_with('{')) {
    Result<Value> json = parse_json(text);
    if (json && json->as_map() != nullptr) {
      return Request{*std::move(json), Language::kJson};
    }
  }
  Result<Value> yaml = parse_yaml(text);
  if (!yaml) {
    return std::move(yaml).error();
  }
  if (yaml->as_map() == nullptr) {
    return make_error("parse a request",
                      "not a map but of class " + std::string(yaml->ruby_class()));
  }
  return Request{*std::move(yaml), Language::kYaml};
}

bool names_a_command(const Result<Request>& request) {
  return request && request->document.find("command") != nullptr;
}

}  // namespace

Result<Request> parse_request(std::string_view line) {
  line = without_line_end(line);
  const std::string text = unescape_line(line);
  Result<Request> request = parse_document(text);
  if (names_a_command(request)) {
    return request;
  }
  const std::string decoded = decode_percents(line);
  if (decoded == text) {
    return request;
  }
  Result<Request> second = parse_document(decoded);
  return names_a_command(second) || (second && !request) ? std::move(second) : std::move(request);
}

std::string encode_reply(const Reply& reply, Language language) {
  Map map;
  put(map, "message", text::to_utf8(reply.message));
  // Ruby takes an `id` of nil or false for none.
  const bool numbered =
      reply.request_id && !reply.request_id->is_null() && *reply.request_id != Value(false);
  if (numbered) {
    if (!reply.status.empty()) {
      put(map, "status", text::to_utf8(reply.status));
    }
    put(map, "request_id", *reply.request_id);
    if (reply.wait) {
      put(map, "wait", true);
    }
  }
  switch (language) {
    case Language::kJson:
      return encode_json(map) + '\n';
    case Language::kYaml:
      break;
  }
  std::string line = escape_line(encode_yaml(map));
  line += '\n';
  return line;
}

std::string encode_request(const Value& document) {
  return escape_line(encode_yaml(document)) + '\n';
}

Result<Reply> parse_reply(std::string_view line) {
  line = without_line_end(line);
  if (line.starts_with("{\"n\":") || line.starts_with("{\"event\":")) {
    Reply event;
    event.message = text::to_utf8(line);
    event.wait = true;
    return event;
  }
  YamlLimits limits;
  limits.scalar_bytes = limits::kMaxPendingOutput;  // the state of a large pool is one string
  Result<Value> document = make_error("parse a reply", "not a map");
  if (line.starts_with('{')) {
    document = parse_json(line, limits);
  }
  if (!document) {
    document = parse_yaml(unescape_line(line), limits);
  }
  if (!document) {
    return std::move(document).error();
  }
  if (document->as_map() == nullptr) {
    return make_error("parse a reply", "not a map");
  }
  const Value* message = document->find("message");
  if (message == nullptr) {
    return make_error("parse a reply", "no message");
  }
  Reply reply;
  reply.message = message->as_string() != nullptr ? *message->as_string() : message->inspect();
  if (const Value* id = document->find("request_id")) {
    reply.request_id = *id;
  }
  const Value* wait = document->find("wait");
  reply.wait = wait != nullptr && *wait == Value(true);
  const Value* status = document->find("status");
  if (status != nullptr && status->as_string() != nullptr) {
    reply.status = *status->as_string();
  }
  return reply;
}

std::string escape_line(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  std::size_t percent = text.find('%');
  std::size_t newline = text.find('\n');
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = std::min(percent, newline);
    out += text.substr(begin, end - begin);
    if (end == std::string_view::npos) {
      return out;
    }
    begin = end + 1;
    if (end == percent) {
      out += "%25";
      percent = text.find('%', begin);
    } else {
      out += "%0A";
      newline = text.find('\n', begin);
    }
  }
}

std::string unescape_line(std::string_view line) {
  std::string out;
  out.reserve(line.size());
  for (std::size_t at = 0; at < line.size(); ++at) {
    const std::string_view three = line.substr(at, 3);
    if (three == "%25" || three == "%0A") {
      out += three == "%25" ? '%' : '\n';
      at += 2;
    } else {
      out += line[at];
    }
  }
  return out;
}

}  // namespace einhorn::wire
