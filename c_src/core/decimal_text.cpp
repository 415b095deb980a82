// Purpose: where the point goes, or else the exponent.
// Ownership: plain values.
// Thread: any.
#include "webhooks/decimal_text.hpp"

namespace webhooks {
namespace {

constexpr std::int64_t kExponentMax = 1'000'000'000'000'000;
// From one millionth on, small numbers are written out.
constexpr std::int64_t kAdjustedMin = -6;

}  // namespace

std::optional<std::string> decimal_text(bool negative, std::string_view digits,
                                        std::int64_t exponent) {
  if (exponent > kExponentMax || exponent < -kExponentMax) {
    return std::nullopt;
  }
  const auto length = static_cast<std::int64_t>(digits.size());
  // The exponent the number would have with one digit before the point.
  const std::int64_t adjusted = exponent + length - 1;
  std::string text(negative ? "-" : "");
  if (exponent <= 0 && adjusted >= kAdjustedMin) {
    const std::int64_t whole = length + exponent;  // digits before the point
    if (whole > 0) {
      const auto split = static_cast<std::size_t>(whole);
      text.append(digits.substr(0, split));
      if (exponent < 0) {
        text.append(".").append(digits.substr(split));
      }
    } else {
      text.append("0.");
      text.append(static_cast<std::size_t>(-whole), '0').append(digits);
    }
    return text;
  }
  text.append(digits.substr(0, 1));
  if (length > 1) {
    text.append(".").append(digits.substr(1));
  }
  text.append(exponent >= 0 ? "E+" : "E").append(std::to_string(adjusted));
  return text;
}

}  // namespace webhooks
