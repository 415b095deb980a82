#include "webhooks/signature.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"

using webhooks::SigningKey;
using std::string_literals::operator""s;

namespace {

constexpr std::int64_t kNow = 1700000000;
constexpr std::int64_t kTolerance = 300;
constexpr std::string_view kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
constexpr std::string_view kOtherSecret =
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

// The bytes f(0), f(1), ... as the vectors below were made from.
template <class F>
std::string bytes(int count, F&& f) {
  std::string text;
  for (int i = 0; i < count; ++i) text.push_back(static_cast<char>(f(i)));
  return text;
}

std::string base64(std::string_view text) {
  std::string encoded((text.size() + 2) / 3 * 4 + 1, '\0');
  encoded.resize(static_cast<std::size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(encoded.data()),
                      reinterpret_cast<const unsigned char*>(text.data()),
                      static_cast<int>(text.size()))));
  return encoded;
}

std::string signed_by(const std::vector<std::string_view>& keys,
                      std::string_view id, std::int64_t unix_seconds,
                      std::string_view body) {
  const auto header = webhooks::sign(keys, id, unix_seconds, body);
  if (!header.ok()) return "(" + std::string(header.error().reason) + ")";
  return header.value();
}

std::string verified(const std::vector<std::string_view>& keys,
                     std::string_view id, std::int64_t unix_seconds,
                     std::string_view header, std::string_view body,
                     std::int64_t now, std::int64_t tolerance_s = kTolerance) {
  const auto status =
      webhooks::verify(keys, id, unix_seconds, header, body, now, tolerance_s);
  return status.ok() ? "ok" : std::string(status.error().reason);
}

std::string parse_outcome(std::string_view encoded) {
  const auto key = SigningKey::parse(encoded);
  return key.ok() ? "ok" : std::string(key.error().reason);
}

struct Vector {
  std::string key;
  std::string id;
  std::int64_t unix_seconds;
  std::string body;
  std::string signature;
};

// The first two are the reference libraries' own. The others were made with
// Node's crypto and checked with the standardwebhooks package and OTP's crypto.
std::vector<Vector> vectors() {
  return {
      {std::string(kSecret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
       R"({"test": 2432232314})",
       "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
      {std::string(kOtherSecret), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553,
       R"({"email":"test@example.com","username":"test_user"})",
       "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="},
      {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "msg_a", 1700000000,
       R"({"a":1})", "v1,UJzxsMGCiA8vTSPKloy93XfinduFLTx4r/EbEIz04aM="},
      {"whsec_" + base64(bytes(64, [](int i) { return 255 - i; })), "msg_b",
       1700000000, "", "v1,MuAIVo00LI5MqBQ8MNAjl/UkkmQiWQYL0mX7I7sPD90="},
      {"whsec_" + base64(bytes(32, [](int i) { return i * 7; })),
       std::string(255, 'm'), 0, bytes(256, [](int i) { return i; }),
       "v1,LRDnbX2lQQbdG8QBmtCEZP9tJ7YtdFYd3/AzR6oZuOE="},
      {"whsec_" + base64(bytes(33, [](int i) { return i * 3 + 1; })), "~!",
       std::numeric_limits<std::int64_t>::max(), "\0\0"s,
       "v1,4+RZpiafk0ZMbZy8h/wGFfD7WXBiFguvPljuIZyb4nE="},
      {"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "msg_utf8",
       1700000001,
       "{\"s\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x80\xa8\"}",
       "v1,SR9H0X03jLZ8OrBEzUqQ4Gz8PjeTx9y2TkWvJTkWRes="},
  };
}

}  // namespace

TEST_CASE("signature: known answers, signed and verified") {
  CHECK(webhooks::prepare_signing());
  for (const Vector& v : vectors()) {
    INFO(v.id);
    CHECK(signed_by({v.key}, v.id, v.unix_seconds, v.body) == v.signature);
    CHECK(verified({v.key}, v.id, v.unix_seconds, v.signature, v.body,
                   v.unix_seconds) == "ok");
  }
}

TEST_CASE("signature: whatever is changed, it no longer matches") {
  for (const Vector& v : vectors()) {
    INFO(v.id);
    const auto with = [&](std::string_view id, std::int64_t at,
                          std::string_view body) {
      return verified({v.key}, id, at, v.signature, body, at);
    };
    CHECK(with(v.id.substr(1) + "x", v.unix_seconds, v.body) == "no_match");
    CHECK(with(v.id, v.unix_seconds ^ 1, v.body) == "no_match");
    CHECK(with(v.id, v.unix_seconds, v.body + " ") == "no_match");
    CHECK(with(v.id, v.unix_seconds, v.body + "\0"s) == "no_match");
    if (!v.body.empty()) {
      CHECK(with(v.id, v.unix_seconds, std::string_view(v.body).substr(1)) ==
            "no_match");
    }
    CHECK(verified({kSecret, kOtherSecret}, "other", v.unix_seconds,
                   v.signature, v.body, v.unix_seconds) == "no_match");
  }
}

TEST_CASE("signature: no changed character is overlooked") {
  const std::string header = signed_by({kSecret}, "msg_1", kNow, "body");
  REQUIRE(verified({kSecret}, "msg_1", kNow, header, "body", kNow) == "ok");
  int accepted = 0;
  for (std::size_t at = 0; at < header.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string forged = header;
      forged[at] = static_cast<char>(forged[at] ^ (1 << bit));
      accepted +=
          verified({kSecret}, "msg_1", kNow, forged, "body", kNow) == "ok";
    }
  }
  CHECK(accepted == 0);
}

TEST_CASE("signature: the parts of a message cannot be moved") {
  const auto of = [](std::string_view id, std::int64_t at,
                     std::string_view body) {
    return signed_by({kSecret}, id, at, body);
  };
  CHECK(of("a", 1, "2.b") != of("a", 12, "b"));
  CHECK(of("a", 1, ".b") != of("a", 1, "b"));
  CHECK(of("a", 1, "b") != of("a1", 1, "b"));
  // A dot in the id would make two messages one.
  CHECK(of("a.1", 2, "b") == "(invalid_id)");
  CHECK(verified({kSecret}, "a.1", 2, of("a", 1, "2.b"), "b", 2) ==
        "invalid_id");
}

TEST_CASE("signature: ids and timestamps") {
  const std::vector<std::string_view> keys = {kSecret};
  CHECK(signed_by(keys, std::string(255, 'i'), kNow, "").starts_with("v1,"));
  for (const std::string& id :
       {""s, std::string(256, 'i'), "a.b"s, "."s, "a b"s, "a\n"s, "a\r\nb"s,
        "\0"s, "a\x7f"s, "\xc3\xa4"s, "\t"s}) {
    INFO(id);
    CHECK(signed_by(keys, id, kNow, "") == "(invalid_id)");
    CHECK(verified({kSecret}, id, kNow, "v1,x", "", kNow) == "invalid_id");
  }
  CHECK(signed_by(keys, "a", -1, "") == "(invalid_timestamp)");
  CHECK(signed_by(keys, "a", std::numeric_limits<std::int64_t>::min(), "") ==
        "(invalid_timestamp)");
  CHECK(verified({kSecret}, "a", -1, "v1,x", "", 0) == "invalid_timestamp");
}

TEST_CASE("signature: keys are standard padded base64 of the right length") {
  for (const int size : {24, 25, 26, 32, 63, 64}) {
    INFO(size);
    CHECK(parse_outcome("whsec_" +
                        base64(std::string(static_cast<std::size_t>(size),
                                           '\xfb'))) == "ok");
  }
  for (const int size : {0, 1, 18, 23, 65, 66, 100}) {
    INFO(size);
    CHECK(parse_outcome("whsec_" + base64(std::string(
                                       static_cast<std::size_t>(size), 'x'))) ==
          "invalid_key");
  }
  const std::string good = base64(std::string(32, '\xfb'));
  REQUIRE(parse_outcome("whsec_" + good) == "ok");
  std::string url_safe = good;
  for (char& c : url_safe) c = c == '+' ? '-' : c == '/' ? '_' : c;
  REQUIRE(url_safe != good);
  for (const std::string& bad :
       {""s, "whsec_"s, good, "WHSEC_" + good, "whsec-" + good,
        " whsec_" + good, "whsec_ " + good, "whsec_" + good + " ",
        "whsec_" + good + "\n", "whsec_" + url_safe,
        "whsec_" + good.substr(0, good.size() - 1),
        "whsec_" + good.substr(0, good.size() - 2), "whsec_" + good + "=",
        "whsec_" + good + "====", "whsec_=" + good.substr(1),
        "whsec_" + good.substr(0, 10) + "=" + good.substr(11),
        "whsec_" + good.substr(0, 10) + "\0"s + good.substr(11),
        "whsec_" + good.substr(0, 10) + "\xff" + good.substr(11),
        // The last character carries bits that belong to no byte.
        "whsec_" + good.substr(0, good.size() - 2) + "t=", "whpk_" + good,
        "whsk_" + good, "whxx_" + good}) {
    INFO(bad);
    CHECK(parse_outcome(bad) == "invalid_key");
    CHECK(verified({bad}, "a", kNow, "v2,x", "", kNow) == "invalid_key");
  }
}

TEST_CASE("signature: rotation signs with every key, newest first") {
  const std::string header =
      signed_by({kSecret, kOtherSecret}, "msg_1", kNow, "body");
  CHECK(header == signed_by({kSecret}, "msg_1", kNow, "body") + " " +
                      signed_by({kOtherSecret}, "msg_1", kNow, "body"));
  for (const std::string_view key : {kSecret, kOtherSecret}) {
    INFO(key);
    CHECK(verified({key}, "msg_1", kNow, header, "body", kNow) == "ok");
    CHECK(verified({"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", key}, "msg_1",
                   kNow, header, "body", kNow) == "ok");
    CHECK(verified({key, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"}, "msg_1",
                   kNow, header, "body", kNow) == "ok");
  }
  CHECK(verified({"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"}, "msg_1", kNow,
                 header, "body", kNow) == "no_match");
  // An invalid key is an error even beside one that matches.
  CHECK(verified({kSecret, "whsec_x"}, "msg_1", kNow, header, "body", kNow) ==
        "invalid_key");
}

TEST_CASE("signature: how many keys") {
  CHECK(signed_by({}, "a", kNow, "") == "(no_keys)");
  CHECK(verified({}, "a", kNow, "v2,x", "", kNow) == "no_keys");
  const std::vector<std::string_view> ten(10, kSecret);
  const std::string header = signed_by(ten, "a", kNow, "");
  CHECK(std::count(header.begin(), header.end(), ' ') == 9);
  CHECK(verified(ten, "a", kNow, header, "", kNow) == "ok");
  const std::vector<std::string_view> eleven(11, kSecret);
  CHECK(signed_by(eleven, "a", kNow, "") == "(too_many_keys)");
  CHECK(verified(eleven, "a", kNow, header, "", kNow) == "too_many_keys");
}

TEST_CASE("signature: headers of every shape") {
  const std::string good = signed_by({kSecret}, "a", kNow, "b");
  const std::string other = signed_by({kOtherSecret}, "a", kNow, "b");
  const auto with = [](std::string_view header) {
    return verified({kSecret}, "a", kNow, header, "b", kNow);
  };
  CHECK(with(good) == "ok");
  CHECK(with(other + " " + good) == "ok");
  CHECK(with(good + " " + other) == "ok");
  CHECK(with("v2,future v1a," + good.substr(3) + " junk " + good) == "ok");
  CHECK(with("  " + good + "  ") == "ok");
  CHECK(with("v1, " + good) == "ok");
  CHECK(with(good + " junk") == "ok");
  CHECK(with("v2,x junk") == "no_match");
  CHECK(with(other) == "no_match");
  CHECK(with("v2," + good.substr(3)) == "no_match");
  // Two spellings of one signature would be two signatures.
  CHECK(with(good.substr(0, good.size() - 1)) == "invalid_header");
  CHECK(with(good + "=") == "invalid_header");
  for (const std::string& bad :
       {""s, " "s, "v1"s, "v1,"s, ","s, "v1,AAAA"s, good.substr(3),
        good + "," + other, good + "\t" + other, good + "\n",
        "V1" + good.substr(2), "v1a," + good.substr(3), "v1=" + good.substr(3),
        "\0"s + good}) {
    INFO(bad);
    CHECK((with(bad) == "invalid_header" || with(bad) == "no_match"));
  }
  CHECK(with("v1,AAAA") == "invalid_header");
  CHECK(with(good + "," + other) == "invalid_header");
  std::string longest = good;
  while (longest.size() + good.size() < webhooks::kSignatureHeaderBytesMax) {
    longest = other + " " + longest;
  }
  CHECK(with(longest) == "ok");
  CHECK(with(longest + std::string(webhooks::kSignatureHeaderBytesMax, ' ')) ==
        "invalid_header");
}

TEST_CASE("signature: the clock's tolerance, to the second") {
  const std::vector<std::string_view> keys = {kSecret};
  const auto at = [&](std::int64_t unix_seconds, std::int64_t now,
                      std::int64_t tolerance_s) {
    return verified({kSecret}, "a", unix_seconds,
                    signed_by(keys, "a", unix_seconds, "b"), "b", now,
                    tolerance_s);
  };
  CHECK(at(kNow, kNow, 300) == "ok");
  CHECK(at(kNow - 300, kNow, 300) == "ok");
  CHECK(at(kNow - 301, kNow, 300) == "timestamp_too_old");
  CHECK(at(kNow + 300, kNow, 300) == "ok");
  CHECK(at(kNow + 301, kNow, 300) == "timestamp_too_new");
  CHECK(at(kNow, kNow, 0) == "ok");
  CHECK(at(kNow - 1, kNow, 0) == "timestamp_too_old");
  CHECK(at(kNow + 1, kNow, 0) == "timestamp_too_new");
  CHECK(at(kNow + 1, kNow, -5) == "timestamp_too_new");
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kSmallest = std::numeric_limits<std::int64_t>::min();
  CHECK(at(0, kLargest, kLargest) == "ok");
  CHECK(at(0, kLargest, kLargest - 1) == "timestamp_too_old");
  CHECK(at(kLargest, 0, kLargest) == "ok");
  CHECK(at(kLargest, kSmallest, kLargest) == "timestamp_too_new");
  CHECK(at(0, kSmallest, kLargest) == "timestamp_too_new");
  CHECK(at(kLargest, kLargest, 0) == "ok");
}

TEST_CASE("signature: a key signs many messages as if each were the first") {
  auto reused = SigningKey::parse(kSecret);
  REQUIRE(reused.ok());
  for (int i = 0; i < 50; ++i) {
    const std::string id = "msg_" + std::to_string(i);
    const std::string body(static_cast<std::size_t>(i * i * 7), 'b');
    std::string header;
    REQUIRE(reused.value().append_signature(id, kNow + i, body, header).ok());
    CHECK(header == signed_by({kSecret}, id, kNow + i, body));
    // A refused message must not spoil the next one.
    CHECK_FALSE(
        reused.value().append_signature("a.b", kNow, body, header).ok());
  }
}

TEST_CASE("signature: large bodies") {
  const std::string body(1 << 20, '\xe2');
  const std::string header = signed_by({kSecret}, "a", kNow, body);
  CHECK(verified({kSecret}, "a", kNow, header, body, kNow) == "ok");
}

TEST_CASE("signature: generated secrets are fresh and usable") {
  const auto first = webhooks::generate_secret();
  const auto second = webhooks::generate_secret();
  REQUIRE(first.ok());
  REQUIRE(second.ok());
  CHECK(first.value() != second.value());
  CHECK(first.value().size() == 6 + 44);
  CHECK(parse_outcome(first.value()) == "ok");
}

TEST_CASE(
    "signature: threads with keys of their own do not disturb each other") {
  const std::string expected = signed_by({kSecret}, "a", kNow, "body");
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&count, &expected] {
      for (int i = 0; i < 200; ++i) {
        auto key = SigningKey::parse(kSecret);
        std::string header;
        if (!key.ok() ||
            !key.value().append_signature("a", kNow, "body", header).ok() ||
            header != expected) {
          ++count;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}
