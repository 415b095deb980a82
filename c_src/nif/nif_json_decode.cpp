// Purpose: builds terms from the reader's events, bottom up on two stacks, and
// carries integers beyond 64 bits over in the external term format.
// Ownership: terms are the calling NIF's.
// Thread: any scheduler.
#include "nif/nif_json_decode.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "nif/nif_json.hpp"
#include "webhooks/big_integer.hpp"
#include "webhooks/json_reader.hpp"

namespace webhooks::nif {
namespace {

// The external term format: 131, then SMALL_BIG_EXT with a length byte or
// LARGE_BIG_EXT with four, a sign byte, the magnitude little-endian.
constexpr std::uint8_t kVersion = 131;
constexpr std::uint8_t kSmallBig = 110;
constexpr std::uint8_t kLargeBig = 111;

ERL_NIF_TERM integer_term(ErlNifEnv* env, bool negative,
                          std::span<const std::uint8_t> magnitude) {
  std::vector<std::uint8_t> format = {kVersion};
  const std::size_t size = magnitude.size();
  if (size <= 255) {
    format.insert(format.end(), {kSmallBig, static_cast<std::uint8_t>(size)});
  } else {
    format.insert(format.end(),
                  {kLargeBig, 0, 0, static_cast<std::uint8_t>(size >> 8),
                   static_cast<std::uint8_t>(size & 0xFF)});
  }
  format.push_back(negative ? 1 : 0);
  format.insert(format.end(), magnitude.begin(), magnitude.end());
  ERL_NIF_TERM term;
  if (enif_binary_to_term(env, format.data(), format.size(), &term, 0) == 0) {
    return atoms::undefined;
  }
  return term;
}

class TermBuilder final : public JsonEvents {
 public:
  explicit TermBuilder(ErlNifEnv* env) : env_(env) {
    values_.reserve(kStackTerms);
    keys_.reserve(kStackTerms);
  }

  void null() override { values_.push_back(atoms::nil); }
  void boolean(bool value) override {
    values_.push_back(value ? atoms::true_ : atoms::false_);
  }
  void integer(std::int64_t value) override {
    values_.push_back(enif_make_int64(env_, value));
  }
  void big_integer(std::string_view text) override {
    values_.push_back(make_big_integer(env_, text));
  }
  void number(double value) override {
    values_.push_back(enif_make_double(env_, value));
  }
  void string(std::string_view utf8) override {
    values_.push_back(make_binary(env_, utf8));
  }
  void key(std::string_view utf8) override {
    keys_.push_back(make_binary(env_, utf8));
  }
  void begin_array() override { begin(); }
  void end_array() override;
  void begin_object() override { begin(); }
  void end_object() override;

  ERL_NIF_TERM term() const noexcept { return values_.back(); }

 private:
  static constexpr std::size_t kStackTerms = 64;

  struct Mark {
    std::size_t values;
    std::size_t keys;
  };

  void begin() { marks_.push_back({values_.size(), keys_.size()}); }
  // The container's contents give way to the container.
  void end(const Mark& mark, ERL_NIF_TERM term) {
    values_.resize(mark.values);
    keys_.resize(mark.keys);
    marks_.pop_back();
    values_.push_back(term);
  }
  ERL_NIF_TERM last_of_each(std::span<ERL_NIF_TERM> keys,
                            std::span<ERL_NIF_TERM> values);

  ErlNifEnv* env_;
  std::vector<ERL_NIF_TERM> values_;
  std::vector<ERL_NIF_TERM> keys_;
  std::vector<Mark> marks_;
};

void TermBuilder::end_array() {
  const Mark mark = marks_.back();
  end(mark, enif_make_list_from_array(
                env_, values_.data() + mark.values,
                static_cast<unsigned>(values_.size() - mark.values)));
}

void TermBuilder::end_object() {
  const Mark mark = marks_.back();
  const std::span keys = std::span(keys_).subspan(mark.keys);
  const std::span values = std::span(values_).subspan(mark.values);
  // With more than 32 pairs OTP 27 overlooks keys that occur twice and makes a
  // map that is none; fewer it checks.
  constexpr std::size_t kCheckedMax = 32;
  ERL_NIF_TERM map;
  if (keys.size() > kCheckedMax ||
      enif_make_map_from_arrays(env_, keys.data(), values.data(), keys.size(),
                                &map) == 0) {
    map = last_of_each(keys, values);
  }
  end(mark, map);
}

// Some key may occur twice. Putting the pairs into the map one by one would
// leave a copy of the map's path behind for each: hundreds of megabytes for a
// large object. Sorting keeps that linear.
ERL_NIF_TERM TermBuilder::last_of_each(std::span<ERL_NIF_TERM> keys,
                                       std::span<ERL_NIF_TERM> values) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t left, std::size_t right) {
                     return enif_compare(keys[left], keys[right]) < 0;
                   });
  std::vector<ERL_NIF_TERM> own_keys;
  std::vector<ERL_NIF_TERM> own_values;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const bool again = i + 1 < order.size() &&
                       enif_is_identical(keys[order[i]], keys[order[i + 1]]);
    if (again) {
      continue;
    }
    own_keys.push_back(keys[order[i]]);
    own_values.push_back(values[order[i]]);
  }
  ERL_NIF_TERM map = enif_make_new_map(env_);
  enif_make_map_from_arrays(env_, own_keys.data(), own_values.data(),
                            own_keys.size(), &map);
  return map;
}

ERL_NIF_TERM decode_error(ErlNifEnv* env, const JsonFault& fault) {
  return enif_make_tuple2(
      env, atoms::error,
      enif_make_tuple2(env, static_atom(env, fault.reason),
                       enif_make_uint64(env, fault.offset)));
}

}  // namespace

ERL_NIF_TERM make_big_integer(ErlNifEnv* env, std::string_view text) {
  const bool negative = text.starts_with('-');
  const auto magnitude = magnitude_from_decimal(text.substr(negative ? 1 : 0));
  if (!magnitude) {
    return atoms::undefined;
  }
  return integer_term(env, negative, *magnitude);
}

bool BigIntegers::in_bounds(ERL_NIF_TERM term) {
  if (!low_) {
    low_ = bound(true);
  }
  if (!high_) {
    high_ = bound(false);
  }
  return enif_compare(term, *low_) > 0 && enif_compare(term, *high_) < 0;
}

// -2^4096 or 2^4096, the first out of range.
ERL_NIF_TERM BigIntegers::bound(bool negative) const {
  std::array<std::uint8_t, kBigIntegerBytesMax + 1> magnitude{};
  magnitude.back() = 1;
  return integer_term(env_, negative, magnitude);
}

std::optional<std::string> BigIntegers::text(ERL_NIF_TERM term) {
  ErlNifBinary format;
  if (!in_bounds(term) || enif_term_to_binary(env_, term, &format) == 0) {
    return std::nullopt;
  }
  const std::span bytes(format.data, format.size);
  std::optional<std::string> digits;
  bool negative = false;
  const std::size_t head =
      bytes.size() > 6 && bytes[1] == kSmallBig ? 4 : 7;  // up to the magnitude
  if (bytes.size() > head && (bytes[1] == kSmallBig || bytes[1] == kLargeBig)) {
    negative = bytes[head - 1] != 0;
    digits = decimal_from_magnitude(bytes.subspan(head));
  }
  enif_release_binary(&format);
  if (digits && negative) {
    digits->insert(digits->begin(), '-');
  }
  return digits;
}

ERL_NIF_TERM decode_json(ErlNifEnv* env, std::string_view json) {
  try {
    TermBuilder builder(env);
    const std::optional<JsonFault> fault = read_json(json, builder);
    return fault ? decode_error(env, *fault) : make_ok(env, builder.term());
  } catch (const std::bad_alloc&) {
    return decode_error(env, {"system_limit", 0});
  }
}

}  // namespace webhooks::nif
