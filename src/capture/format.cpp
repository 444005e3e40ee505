#include "capture/format.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "wire/text.h"

namespace einhorn::capture {
namespace {

constexpr std::size_t kMostEscape = 6;  // \u001f
constexpr std::size_t kMostUtf8 = 4;
constexpr std::size_t kMark = 24;  // what a mark adds to a head
constexpr std::string_view kHex = "0123456789abcdef";

std::string timestamp(WallTime time) {
  const wire::text::CivilTime civil = wire::text::to_civil(time);
  return wire::text::civil_date(civil) + "T" + wire::text::civil_clock(civil) + "." +
         wire::text::civil_fraction(civil).substr(0, 3) + "Z";
}

// Escapes as much as there is room for; how many bytes that were.
std::size_t append_json(std::string& out, std::string_view text, std::size_t room) {
  const std::size_t end = out.size() + room;
  std::size_t at = 0;
  while (at < text.size() && out.size() + kMostEscape <= end) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte >= 0x80) {
      const wire::text::CodePoint point = wire::text::decode_utf8(text, at);
      if (point.code == wire::text::CodePoint::kInvalid) {
        out += "\\ufffd";
      } else {
        out += text.substr(at, point.bytes);
      }
      at += point.bytes;
      continue;
    }
    if (byte == '"' || byte == '\\') {
      out.push_back('\\');
      out.push_back(text[at]);
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out.push_back(kHex[byte >> 4U]);
      out.push_back(kHex[byte & 15U]);
    } else {
      out.push_back(text[at]);
    }
    ++at;
  }
  return at;
}

// Not in the middle of a character, if it can be helped.
std::size_t cut_at(std::string_view text, std::size_t room) {
  if (text.size() <= room) {
    return text.size();
  }
  std::size_t at = room;
  while (at > 0 && room - at < kMostUtf8 &&
         (static_cast<unsigned char>(text[at]) & 0xc0U) == 0x80) {
    --at;
  }
  return at > 0 ? at : room;
}

std::string_view mark_of(Line::End end) {
  switch (end) {
    case Line::End::kWhole:
      return "";
    case Line::End::kMore:
      return "more";
    case Line::End::kUnfinished:
      return "unfinished";
  }
  return "";
}

}  // namespace

std::string_view name(Stream stream) { return stream == Stream::kOut ? "stdout" : "stderr"; }

std::string Format::head(WallTime time, const Author& author, std::string_view stream,
                         std::string_view mark) const {
  std::string out;
  if (json_) {
    out = "{\"time\":\"" + timestamp(time) + "\"";
    if (author.pid != 0) {
      out += ",\"worker\":" + std::to_string(author.pid);
    }
    out += ",\"index\":" + std::to_string(author.index) +
           ",\"version\":" + std::to_string(author.version) + ",\"stream\":\"";
    out += stream;
    out += "\"";
    if (!mark.empty()) {
      out += ",\"";
      out += mark;
      out += "\":true";
    }
    return out + ",\"line\":\"";
  }
  out = timestamp(time) + " [WORKER " + (author.pid != 0 ? std::to_string(author.pid) : "?") +
        " index=" + std::to_string(author.index) + " version=" + std::to_string(author.version) +
        " ";
  out += stream;
  if (!mark.empty()) {
    out += " ";
    out += mark;
  }
  return out + "] ";
}

const std::string& Format::usual_head(WallTime time, const Author& author, Stream stream) {
  if (head_.empty() || time != head_time_ || author.epoch != head_epoch_ ||
      stream != head_stream_) {
    head_ = head(time, author, name(stream), "");
    head_time_ = time;
    head_epoch_ = author.epoch;
    head_stream_ = stream;
  }
  return head_;
}

void Format::line(std::string& out, WallTime time, const Author& author, Stream stream,
                  const Line& line) {
  const std::string_view tail = json_ ? "\"}\n" : "\n";
  std::string_view text = line.text;
  const bool whole = line.end == Line::End::kWhole;
  std::string marked;
  if (!whole) {
    marked = head(time, author, name(stream), mark_of(line.end));
  }
  const std::string& usual = whole ? usual_head(time, author, stream) : marked;
  // Room for the longest mark, as it is not known yet which one it will be.
  const std::size_t around = usual.size() + kMark + tail.size();
  const std::size_t room = std::max<std::size_t>(64, most_ > around ? most_ - around : 0);
  if (whole && text.size() <= room && !json_) {
    out.append(usual).append(text).append(tail);
    return;
  }
  const std::string more = text.size() * (json_ ? kMostEscape : 1) > room
                               ? head(time, author, name(stream), "more")
                               : "";
  do {
    const std::size_t begin = out.size();
    std::size_t used = 0;
    out += usual;
    if (json_) {
      used = append_json(out, text, room);
    } else {
      used = cut_at(text, room);
      out += text.substr(0, used);
    }
    if (used < text.size()) {
      out.replace(begin, usual.size(), more);
    }
    out += tail;
    text.remove_prefix(used);
  } while (!text.empty());
}

void Format::remark(std::string& out, WallTime time, const Author& author,
                    std::string_view text) const {
  out += head(time, author, "capture", "");
  if (json_) {
    append_json(out, text, kMostLine);
  } else {
    out += text;
  }
  out += json_ ? "\"}\n" : "\n";
}

}  // namespace einhorn::capture
