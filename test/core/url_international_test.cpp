#include <clocale>
#include <string>

#include "catch.hpp"
#include "url_outcome.hpp"
#include "webhooks/url.hpp"

using webhooks::UrlPolicy;
using webhooks_test::any_scheme;
using webhooks_test::expect_all;
using webhooks_test::expect_refused;
using webhooks_test::outcome;
using webhooks_test::repeated;
using webhooks_test::with_private;
using webhooks_test::words;

TEST_CASE("url: international names become punycode in any locale") {
  // A BEAM often runs in C, where curl's own conversion fails.
  for (const char* locale : {"C", "C.UTF-8"}) {
    INFO(locale);
    REQUIRE(std::setlocale(LC_ALL, locale) != nullptr);
    expect_all({
        {"https://b\u00fccher.example/", "https://xn--bcher-kva.example/"},
        {"https://B\u00dcCHER.example/", "https://xn--bcher-kva.example/"},
        {"https://bu\u0308cher.example/", "https://xn--bcher-kva.example/"},
        {"https://b%C3%BCcher.example/", "https://xn--bcher-kva.example/"},
        {"https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"},
        {"https://XN--Bcher-KVA.example/", "https://xn--bcher-kva.example/"},
        {"https://fa\u00df.example/", "https://xn--fa-hia.example/"},
        {"https://\u4f8b\u3048\u3002\u30c6\u30b9\u30c8\u3002/",
         "https://xn--r8jz45g.xn--zckzah/"},
        // Soft hyphen and zero-width space say nothing.
        {"https://exam\u00adple.com/", "https://example.com/"},
        {"https://exam\u200bple.com/", "https://example.com/"},
        {"https://\u24d4xample.com/", "https://example.com/"},
        {"https://example\uff0ecom/", "https://example.com/"},
    });
  }
  std::setlocale(LC_ALL, "C");
}

TEST_CASE("url: the Unicode form of an international name") {
  const auto unicode = [](const std::string& text) {
    const auto url = webhooks::check_url(text, any_scheme());
    REQUIRE(url.ok());
    return url.value().host_unicode;
  };
  const std::string book = "b\u00fccher.example";
  CHECK(unicode("https://" + book + "/") == book);
  CHECK(unicode("https://xn--bcher-kva.example/") == book);
  CHECK(unicode("https://a.xn--bcher-kva.xn--p1ai/") ==
        "a.b\u00fccher.\u0440\u0444");
  for (const std::string other :
       {"example.com", "axn--bcher-kva.com", "8.8.8.8", "[2606:4700::1111]"}) {
    CHECK(unicode("https://" + other + "/").empty());
  }
}

TEST_CASE("url: international names that are not valid") {
  expect_all({
      // Upper case inside, or characters that map to others: not what any
      // Unicode form encodes to.
      {"https://" + repeated("\u4f8b", 600) + ".example/", "(invalid_host)"},
      {"https://" + repeated("\u4f8b", 64) + ".example/", "(invalid_host)"},
  });
  expect_refused("invalid_host",
                 "https://%ff.example/ https://\u2100.example/ "
                 "https://a\uff0fb.example/ https://a\uff1a80.example/ "
                 "https://a\u3000.example/ https://\u00ad.example/ "
                 "https://\u00ad/ https://\u202e.example/ "
                 "https://xn--.example/ https://xn--a.example/ "
                 "https://xn--localhost-/ https://xn--example-.com/ "
                 "https://xn--127-.0.0.1/ https://xn--99999999.example/ "
                 "https://xn--bcher-kva8445foa.example/x "
                 "https://xn--a-ecp.ru/");
}

TEST_CASE("url: emoji in punycode") {
  for (const std::string_view name :
       words("xn--i-7iq.ws xn--ls8h.la xn--i-7iq.xn--ls8h.la "
             "xn--bcher-kva.xn--ls8h.la")) {
    const std::string url = "https://" + std::string(name) + "/";
    CHECK(outcome(url) == url);
  }
  const auto url = webhooks::check_url("https://xn--i-7iq.ws/", any_scheme());
  REQUIRE(url.ok());
  CHECK(url.value().host_unicode == "i\u2764.ws");
  // Beside an emoji the rest must be what IDNA 2008 allows.
  expect_refused(
      "invalid_host",
      "https://xn--a-ecp.xn--ls8h.la/ https://xn--a.xn--ls8h.la/ "
      "https://xn--rnd.xn--ls8h.la/ https://xn--localhost-.xn--ls8h.la/");
}

TEST_CASE("url: Unicode cannot hide an address or a local name") {
  for (const UrlPolicy& policy : {any_scheme(), with_private()}) {
    expect_all(
        {
            {"http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
             "(local_name)"},
            {"http://local\u00adhost/", "(local_name)"},
            {"http://foo\u3002local/", "(local_name)"},
            {"http://\uff11\uff12\uff17.0.0.1/", "(invalid_host)"},
            {"http://127\u30020\u30020\u30021/", "(invalid_host)"},
            {"http://\u2460\u2461\u2466.0.0.1/", "(invalid_host)"},
            {"http://8\u30028.8.8/", "(invalid_host)"},
            {"http://0\uff587f.1/", "(invalid_host)"},
            {"http://127.0.0.1\u00ad/", "(invalid_host)"},
            {"http://%EF%BC%91.1.1.1/", "(invalid_host)"},
        },
        policy);
  }
}
