// Purpose: a decimal number (sign, coefficient, exponent of ten) as text in the
// scientific string form of the General Decimal Arithmetic specification
// (speleotrove.com/decimal), which is what Elixir's Decimal prints.
// Ownership: plain values.
// Thread: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace webhooks {

// `digits` is the coefficient: decimal digits, no sign, no leading zeros. The
// text is never more than 32 bytes longer, however large the exponent.
// nullopt: an exponent beyond +-10^15 (no number anybody means).
std::optional<std::string> decimal_text(bool negative, std::string_view digits,
                                        std::int64_t exponent);

}  // namespace webhooks
