// Purpose: a value, or the reason why there is none. The core throws nothing
// across its API; errors are returned as a Result.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace webhooks {

// `reason` is a stable snake_case name out of a fixed set (static storage: it
// becomes an atom at the NIF boundary); `detail` is for people and may be
// empty.
struct Error {
  std::string_view reason;
  std::string detail;
};

template <class T>
class [[nodiscard]] Result {
 public:
  // Implicit on purpose: `return value;` and `return Error{...};` read best.
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  T& value() & { return *std::get_if<0>(&state_); }
  const T& value() const& { return *std::get_if<0>(&state_); }
  T&& value() && { return std::move(*std::get_if<0>(&state_)); }
  const Error& error() const& { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

struct Ok {};
using Status = Result<Ok>;

}  // namespace webhooks
