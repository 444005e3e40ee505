// Records of tagged fields: how everything in the snapshot is spelled.
//
// A record is a row of fields `tag (2 bytes), length (4 bytes), bytes`, little-endian. A reader
// skips tags it does not know and leaves fields it does not find as they were, so that older and
// newer programs read each other's records. One function per type lists its fields for both
// directions:
//
//   template <typename Archive> void fields(Archive& archive, Thing& thing) {
//     archive(1, thing.name);
//     archive(2, thing.count);
//   }
//
// A tag is never given a new meaning; a field that goes leaves its tag unused.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/ids.h"
#include "base/instant.h"
#include "base/signals.h"

namespace einhorn::wire {

using Tag = std::uint16_t;

namespace tagged {

template <typename Integer>
void put_integer(std::string& out, Integer value) {
  auto bits = static_cast<std::make_unsigned_t<Integer>>(value);
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    out.push_back(static_cast<char>(bits & 0xffU));
    bits = static_cast<std::make_unsigned_t<Integer>>(bits >> (sizeof(Integer) > 1 ? 8U : 0U));
  }
}

// Little-endian; missing bytes are zero, surplus ones are ignored.
template <typename Integer>
Integer get_integer(std::string_view bytes) {
  std::make_unsigned_t<Integer> bits = 0;
  for (std::size_t i = 0; i < sizeof(Integer) && i < bytes.size(); ++i) {
    bits = static_cast<std::make_unsigned_t<Integer>>(
        bits | static_cast<std::make_unsigned_t<Integer>>(
                   static_cast<std::make_unsigned_t<Integer>>(static_cast<unsigned char>(bytes[i]))
                   << (8U * i)));
  }
  return static_cast<Integer>(bits);
}

template <typename T>
struct IsOptional : std::false_type {};
template <typename T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};
template <typename T>
struct IsStrongId : std::false_type {};
template <typename T, typename Rep>
struct IsStrongId<StrongId<T, Rep>> : std::true_type {};

template <typename T>
std::string encode_value(const T& value);
template <typename T>
void decode_value(std::string_view bytes, T& value);

}  // namespace tagged

class TagWriter {
 public:
  template <typename T>
  void operator()(Tag tag, const T& value) {
    if constexpr (tagged::IsOptional<T>::value) {
      if (value) {
        (*this)(tag, *value);
      }
    } else {
      const std::string bytes = tagged::encode_value(value);
      tagged::put_integer(out_, tag);
      tagged::put_integer(out_, static_cast<std::uint32_t>(bytes.size()));
      out_ += bytes;
    }
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class TagReader {
 public:
  // A record that ends in the middle of a field is read up to there.
  explicit TagReader(std::string_view record) {
    while (record.size() >= 6) {
      const auto tag = tagged::get_integer<Tag>(record);
      const auto length = tagged::get_integer<std::uint32_t>(record.substr(2));
      record.remove_prefix(6);
      if (length > record.size()) {
        return;
      }
      found_.emplace(tag, record.substr(0, length));
      record.remove_prefix(length);
    }
  }
  template <typename T>
  void operator()(Tag tag, T& value) {
    const auto field = found_.find(tag);
    if (field == found_.end()) {
      return;
    }
    if constexpr (tagged::IsOptional<T>::value) {
      typename T::value_type inner{};
      tagged::decode_value(field->second, inner);
      value = std::move(inner);
    } else {
      tagged::decode_value(field->second, value);
    }
  }

 private:
  std::map<Tag, std::string_view> found_;
};

// Needs `fields(archive, T&)` beside T or in this namespace.
template <typename T>
std::string encode_record(const T& thing) {
  TagWriter writer;
  fields(writer, const_cast<T&>(thing));
  return writer.take();
}

template <typename T>
T decode_record(std::string_view bytes) {
  TagReader reader(bytes);
  T thing{};
  fields(reader, thing);
  return thing;
}

namespace tagged {

template <typename T>
std::string encode_value(const T& value) {
  std::string out;
  if constexpr (std::is_same_v<T, std::string>) {
    out = value;
  } else if constexpr (std::is_same_v<T, bool>) {
    out.push_back(value ? '\1' : '\0');
  } else if constexpr (std::is_enum_v<T>) {
    put_integer(out, static_cast<std::int32_t>(value));
  } else if constexpr (std::is_integral_v<T>) {
    put_integer(out, value);
  } else if constexpr (std::is_same_v<T, Duration>) {
    put_integer(out, std::int64_t{value.count()});
  } else if constexpr (std::is_same_v<T, Instant>) {
    put_integer(out, std::int64_t{value.time_since_epoch().count()});
  } else if constexpr (std::is_same_v<T, WallOffset>) {
    put_integer(out, value.nanoseconds);
  } else if constexpr (std::is_same_v<T, SignalSet>) {
    put_integer(out, value.bits());
  } else if constexpr (IsStrongId<T>::value) {
    put_integer(out, value.value);
  } else if constexpr (IsVector<T>::value) {
    for (const auto& element : value) {
      const std::string bytes = encode_value(element);
      put_integer(out, static_cast<std::uint32_t>(bytes.size()));
      out += bytes;
    }
  } else {
    out = encode_record(value);
  }
  return out;
}

template <typename T>
void decode_value(std::string_view bytes, T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    value = std::string(bytes);
  } else if constexpr (std::is_same_v<T, bool>) {
    value = !bytes.empty() && bytes[0] != '\0';
  } else if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(get_integer<std::int32_t>(bytes));
  } else if constexpr (std::is_integral_v<T>) {
    value = get_integer<T>(bytes);
  } else if constexpr (std::is_same_v<T, Duration>) {
    value = Duration{get_integer<std::int64_t>(bytes)};
  } else if constexpr (std::is_same_v<T, Instant>) {
    value = Instant{Duration{get_integer<std::int64_t>(bytes)}};
  } else if constexpr (std::is_same_v<T, WallOffset>) {
    value = WallOffset{get_integer<std::int64_t>(bytes)};
  } else if constexpr (std::is_same_v<T, SignalSet>) {
    value = SignalSet(get_integer<std::uint64_t>(bytes));
  } else if constexpr (IsStrongId<T>::value) {
    value.value = get_integer<decltype(value.value)>(bytes);
  } else if constexpr (IsVector<T>::value) {
    value.clear();
    while (bytes.size() >= 4) {
      const auto length = get_integer<std::uint32_t>(bytes);
      bytes.remove_prefix(4);
      if (length > bytes.size()) {
        return;
      }
      decode_value(bytes.substr(0, length), value.emplace_back());
      bytes.remove_prefix(length);
    }
  } else {
    TagReader reader(bytes);
    value = T{};
    fields(reader, value);
  }
}

}  // namespace tagged
}  // namespace einhorn::wire
