// Purpose: what the files of the JSON NIFs share: their atoms, the walk over a
// term, and how work is counted so that a normal scheduler is left in time.
// Ownership: a walk lives within one NIF call; its terms are that call's.
// Thread: any scheduler, one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nif/nif_support.hpp"
#include "webhooks/json_writer.hpp"

namespace webhooks::nif {

#define WEBHOOKS_JSON_ATOMS(X)               \
  X(json, "json")                            \
  X(calendar, "calendar")                    \
  X(year, "year")                            \
  X(month, "month")                          \
  X(day, "day")                              \
  X(hour, "hour")                            \
  X(minute, "minute")                        \
  X(second, "second")                        \
  X(microsecond, "microsecond")              \
  X(time_zone, "time_zone")                  \
  X(utc_offset, "utc_offset")                \
  X(std_offset, "std_offset")                \
  X(sign, "sign")                            \
  X(coef, "coef")                            \
  X(exp, "exp")                              \
  X(nan, "NaN")                              \
  X(infinity, "inf")                         \
  X(iso_calendar, "Elixir.Calendar.ISO")     \
  X(date, "Elixir.Date")                     \
  X(time, "Elixir.Time")                     \
  X(naive_date_time, "Elixir.NaiveDateTime") \
  X(date_time, "Elixir.DateTime")            \
  X(decimal, "Elixir.Decimal")

namespace json_atoms {
#define X(name, text) extern ERL_NIF_TERM name;
WEBHOOKS_JSON_ATOMS(X)
#undef X
}  // namespace json_atoms

// Work is counted in units of about a nanosecond, two on a slow machine. A byte
// of text costs one, on its way in and as far as it grows on its way out; the
// rest is measured and rounded up.
inline constexpr std::size_t kNodeWork = 16;          // one term, one key
inline constexpr std::size_t kFloatWork = 32;         // its digits
inline constexpr std::size_t kStructWork = 128;       // a date, a decimal
inline constexpr std::size_t kForeignAtomWork = 128;  // one beyond Latin-1
inline constexpr std::size_t kBigIntegerWork = 256;   // and more by its length
inline constexpr std::size_t kLookUpWork = 128;       // of a key in other kinds
inline constexpr std::size_t kFragmentWork = 4;       // a byte to be parsed
inline constexpr std::size_t kParserWork = 1024;      // before its first byte
// What a call may spend on a normal scheduler before it starts over on a dirty
// one: far from the millisecond it has, as the count is an estimate.
inline constexpr std::size_t kNormalWorkMax = 32'768;
inline constexpr std::size_t kWorkPerPercent = 6'553;  // of a timeslice, 1 ms

// Charges the calling process for `work` units on a normal scheduler.
void charge(ErlNifEnv* env, std::size_t work) noexcept;

// Text of an integer term that fits no 64 bits. nullopt: 2^4096 or more.
// Comparing with the bounds comes first: it looks at the sizes only, while
// reading a number of eight megabytes would take the scheduler with it.
class BigIntegers {
 public:
  explicit BigIntegers(ErlNifEnv* env) noexcept : env_(env) {}
  std::optional<std::string> text(ERL_NIF_TERM term);

 private:
  bool in_bounds(ERL_NIF_TERM term);
  ERL_NIF_TERM bound(bool negative) const;

  ErlNifEnv* env_;
  std::optional<ERL_NIF_TERM> low_;
  std::optional<ERL_NIF_TERM> high_;
};

// The integer that `text` (an optional minus, digits; below 2^4096) names.
ERL_NIF_TERM make_big_integer(ErlNifEnv* env, std::string_view text);

// A term as JSON, node by node and without recursion: how deep a term goes is
// up to whoever sent it, and a dirty scheduler's stack is small.
class TermWalk {
 public:
  enum class Outcome { done, failed, out_of_work };

  TermWalk(ErlNifEnv* env, JsonWriter& writer, std::size_t work_max) noexcept
      : env_(env), writer_(writer), big_(env), work_max_(work_max) {}
  ~TermWalk();
  TermWalk(const TermWalk&) = delete;
  TermWalk& operator=(const TermWalk&) = delete;

  Outcome run(ERL_NIF_TERM root);

  std::size_t work() const noexcept { return work_; }
  // After `failed`: why, and the way from the root to where.
  std::string_view reason() const noexcept { return reason_; }
  ERL_NIF_TERM path();

 private:
  struct Frame {
    ErlNifMapIterator entries;  // of a map
    ERL_NIF_TERM term;          // the map, or what is left of the list
    ERL_NIF_TERM key;           // the entry being written
    std::size_t taken;          // elements taken off the list
    bool is_map;
    std::uint8_t key_kinds;  // of the map's keys so far, as bits
  };
  // Text of an atom or integer, or of a key; keeps what needs keeping.
  struct Text {
    std::array<char, 512> bytes;
    std::string big;
  };
  enum KeyKind : std::uint8_t { kBinaryKey = 1, kAtomKey = 2, kIntegerKey = 4 };

  bool fail(std::string_view reason) noexcept;
  // Passes a failure of the writer on.
  bool written(bool ok) noexcept { return ok || fail(writer_.error()); }
  // False when the work is used up: nothing has been done yet.
  bool spend(std::size_t units) noexcept;

  bool value(ERL_NIF_TERM term);
  bool atom(ERL_NIF_TERM term);
  bool binary(ERL_NIF_TERM term);
  bool text(std::string_view utf8, bool is_key);
  bool integer(ERL_NIF_TERM term);
  bool tuple(ERL_NIF_TERM term);
  bool map(ERL_NIF_TERM term);
  bool open_list(ERL_NIF_TERM term);
  bool open_map(ERL_NIF_TERM term);
  bool next_element(Frame& frame);
  bool next_entry(Frame& frame);
  bool close();
  bool key(Frame& frame);
  bool other_key(Frame& frame);
  bool keys_differ(Frame& frame);
  bool key_is_twice(ERL_NIF_TERM map, ERL_NIF_TERM key, bool& twice);
  std::optional<std::string_view> atom_text(ERL_NIF_TERM atom, Text& text);
  std::optional<std::string_view> integer_text(ERL_NIF_TERM term, Text& text);
  ERL_NIF_TERM path_key(ERL_NIF_TERM key);

  // nif_json_struct.cpp
  bool structure(ERL_NIF_TERM map, ERL_NIF_TERM module);
  bool calendar_struct(ERL_NIF_TERM map, bool date, bool time, bool zone);
  bool decimal(ERL_NIF_TERM map);
  std::optional<std::int64_t> field(ERL_NIF_TERM map, ERL_NIF_TERM name);

  ErlNifEnv* env_;
  JsonWriter& writer_;
  BigIntegers big_;
  std::size_t work_max_;
  std::size_t work_ = 0;
  bool out_of_work_ = false;
  std::string_view reason_;
  // Whether the path goes on into the innermost frame's current entry.
  bool at_entry_ = true;
  std::size_t depth_ = 0;
  std::array<Frame, kJsonDepthMax> frames_;  // uninitialized beyond depth_
};

}  // namespace webhooks::nif
