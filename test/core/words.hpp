// Purpose: tables of test cases in few lines.
// Ownership: static storage.
// Thread: any.
#pragma once

#include <string_view>
#include <vector>

namespace webhooks_test {

// The words of a text, which white space separates.
inline std::vector<std::string_view> words(std::string_view text) {
  constexpr std::string_view kBlanks = " \n";
  std::vector<std::string_view> found;
  for (std::size_t at = text.find_first_not_of(kBlanks);
       at != std::string_view::npos;) {
    const std::size_t end = text.find_first_of(kBlanks, at);
    found.push_back(text.substr(at, end - at));
    at = text.find_first_not_of(kBlanks, end);
  }
  return found;
}

}  // namespace webhooks_test
