// Purpose: the documents that the benchmarks write, read and sign.
// Ownership: plain values; the texts live as long as the process.
// Thread: one.
#pragma once

#include <string>
#include <string_view>

#include "webhooks/json_writer.hpp"

namespace webhooks::bench {

// The body of bench/beam/delivery.exs, member by member: a goal.completed with
// every field, 656 bytes.
bool write_goal_completed(JsonWriter& writer);
const std::string& goal_completed();

// 4 KiB of text; every eighth character must be escaped.
const std::string& text_with_escapes();

// 200 KiB of letters of one to four bytes, none to be escaped.
const std::string& text_beyond_ascii();

// `text` as a document of its own.
std::string quoted(std::string_view text);

}  // namespace webhooks::bench
