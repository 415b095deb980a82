// Catch2 v2 (Debian 12) and v3 (Debian 13) behind one include. Tests use only
// what both have: TEST_CASE, SECTION, REQUIRE, CHECK, INFO, GENERATE,
// REQUIRE_THROWS_AS. Assertions are not thread-safe in v2: collect in threads,
// assert in the test's own thread.
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#else
#include <catch2/catch.hpp>
#endif
