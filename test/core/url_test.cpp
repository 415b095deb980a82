#include "webhooks/url.hpp"

#include <curl/curl.h>

#include <string>
#include <vector>

#include "catch.hpp"
#include "url_outcome.hpp"

using webhooks::check_url;
using webhooks::kUrlBytesMax;
using webhooks::UrlPolicy;
using webhooks_test::any_scheme;
using webhooks_test::expect_all;
using webhooks_test::expect_refused;
using webhooks_test::outcome;
using webhooks_test::repeated;
using webhooks_test::with_private;
using webhooks_test::words;
using std::string_literals::operator""s;

TEST_CASE("url: equal URLs have one normalized form") {
  expect_all({
      {"https://example.com", "https://example.com/"},
      {"https://example.com/", "https://example.com/"},
      {"HTTPS://EXAMPLE.Com/Path?Query=A", "https://example.com/Path?Query=A"},
      {"hTtP://example.com", "http://example.com/"},
      {"https://example.com.", "https://example.com/"},
      {"https://example.com.:8443/x", "https://example.com:8443/x"},
      {"https://example.com:443/", "https://example.com/"},
      {"http://example.com:80/", "http://example.com/"},
      {"https://example.com:80/", "https://example.com:80/"},
      {"http://example.com:443/", "http://example.com:443/"},
      {"https://example.com:/x", "https://example.com/x"},
      {"https://example.com:0443/", "https://example.com/"},
      {"https://example.com:08443/", "https://example.com:8443/"},
      {"https://example.com:65535/", "https://example.com:65535/"},
      {"https://example.com?x=1", "https://example.com/?x=1"},
      {"https://example.com/a/./b/../c", "https://example.com/a/c"},
      {"https://example.com/../../x", "https://example.com/x"},
      {"https://example.com//x//y", "https://example.com//x//y"},
      {"https://example.com/x?a[]=1&b=2;c",
       "https://example.com/x?a[]=1&b=2;c"},
      {"https://example.com/a@b:c?d@e:f", "https://example.com/a@b:c?d@e:f"},
      {"https://example.com/%7Euser/%zz%", "https://example.com/%7Euser/%zz%"},
      {"https://example.com/?u=http://10.0.0.1/",
       "https://example.com/?u=http://10.0.0.1/"},
      {"https://example.com/\"<>^`{|}",
       "https://example.com/%22%3C%3E%5E%60%7B%7C%7D"},
      {"https://example.com/\u00e4?\u00f6",
       "https://example.com/%C3%A4?%C3%B6"},
      {"https://example.com/%FF", "https://example.com/%FF"},
      {"https://8.8.8.8/", "https://8.8.8.8/"},
      {"https://8.8.8.8./", "https://8.8.8.8/"},
      {"https://134744072/", "https://8.8.8.8/"},
      {"https://0x08080808/", "https://8.8.8.8/"},
      {"https://010.8.0X8.8/", "https://8.8.8.8/"},
      {"https://8.8.2056/", "https://8.8.8.8/"},
      {"https://8.526344/", "https://8.8.8.8/"},
      {"https://%38.8.8.8/", "https://8.8.8.8/"},
      {"https://[2606:4700:0:0::1111]:8443/x",
       "https://[2606:4700::1111]:8443/x"},
      {"https://[2606:4700::ABCD]", "https://[2606:4700::abcd]/"},
      {"https://[::ffff:808:808]/", "https://[::ffff:8.8.8.8]/"},
      {"https://[64:ff9b::8.8.8.8]/", "https://[64:ff9b::808:808]/"},
      {"https://my_app.example.com/", "https://my_app.example.com/"},
      {"https://r3---sn-x.example.com/", "https://r3---sn-x.example.com/"},
      {"https://1.example.com/", "https://1.example.com/"},
      {"https://127.0.0.1.example.com/", "https://127.0.0.1.example.com/"},
      {"https://0x7f.example/", "https://0x7f.example/"},
      {"https://%65xample.com/", "https://example.com/"},
  });
}

TEST_CASE("url: its parts") {
  const auto url = check_url("HTTPS://Example.COM:8443/a?b", UrlPolicy{});
  REQUIRE(url.ok());
  CHECK(url.value().scheme == "https");
  CHECK(url.value().host == "example.com");
  CHECK(url.value().port == 8443);
  CHECK_FALSE(url.value().literal.has_value());

  const auto v6 = check_url("https://[2606:4700::1111]/", UrlPolicy{});
  REQUIRE(v6.ok());
  CHECK(v6.value().host == "2606:4700::1111");
  CHECK(v6.value().port == 443);
  REQUIRE(v6.value().literal.has_value());
  CHECK(v6.value().literal->to_string() == "2606:4700::1111");

  const auto v4 = check_url("http://134744072", any_scheme());
  REQUIRE(v4.ok());
  CHECK(v4.value().host == "8.8.8.8");
  CHECK(v4.value().port == 80);
  CHECK(v4.value().literal.has_value());
}

TEST_CASE("url: schemes") {
  for (const std::string_view scheme :
       words("file ftp ftps gopher dict ldap smb tftp telnet mqtt imap rtsp "
             "sftp ws javascript data httpx https+x ttp")) {
    INFO(scheme);
    CHECK(outcome(std::string(scheme) + "://example.com/") == "(scheme)");
  }
  CHECK(outcome("") == "(scheme)");
  expect_refused("scheme",
                 "example.com example.com:443/x //example.com/ /x "
                 "://example.com/ 1http://example.com/ "
                 "\ufeffhttps://example.com/ ht\u0167ps://example.com/");
  expect_refused("malformed", "https:example.com/ https:/example.com/ https:");
  expect_refused("missing_host",
                 "https:// https:/// https:///example.com/ "
                 "https:////example.com/ https://?x https://:443/");
  CHECK(outcome("http://example.com/", UrlPolicy{}) == "(https_required)");
  CHECK(outcome("https://example.com/", UrlPolicy{}) == "https://example.com/");
  CHECK(outcome("ftp://example.com/", UrlPolicy{}) == "(scheme)");
}

TEST_CASE("url: whitespace, control characters and backslashes anywhere") {
  const std::string base = "https://example.com/path?query";
  for (int byte = 0; byte <= 0x20; ++byte) {
    for (std::size_t at = 0; at <= base.size(); ++at) {
      std::string text = base;
      text.insert(at, 1, static_cast<char>(byte));
      if (outcome(text) != "(malformed)") {
        INFO(byte << " at " << at);
        CHECK(outcome(text) == "(malformed)");
      }
    }
  }
  expect_all({
      {"https://example.com/\x7f", "(malformed)"},
      {"https://example.com\\@10.0.0.1/", "(malformed)"},
      {"http://127.1.1.1:80\\@127.2.2.2:80/", "(malformed)"},
      {"https:\\\\example.com\\x", "(malformed)"},
      {"https://example.com/a\\b", "(malformed)"},
      {"https://example.com/?a\\b", "(malformed)"},
      {"https://example.com\r\nX-Evil: 1/", "(malformed)"},
      {"https://example.com\0.evil.org/"s, "(malformed)"},
  });
}

TEST_CASE("url: user info and fragments") {
  CHECK(outcome("https://example.com/%23x") == "https://example.com/%23x");
  expect_refused("user_info",
                 "https://user@example.com/ https://user:secret@example.com/ "
                 "https://@example.com/ https://:@example.com/ "
                 "https://a@b@example.com/ https://example.com:443@10.0.0.1/ "
                 "https://example.com@ https://[::1]@example.com/");
  expect_refused("invalid_host",
                 "https://user%40example.com/ https://user\uff20example.com/");
  expect_refused("fragment",
                 "https://example.com/#top https://example.com# "
                 "https://example.com?x#y https://example.com#@10.0.0.1/");
}

TEST_CASE("url: ports") {
  expect_refused("malformed",
                 "https://example.com:65536/ "
                 "https://example.com:99999999999999999999/ "
                 "https://example.com:-1/ https://example.com:+443/ "
                 "https://example.com:4a/ https://example.com:0x1bb/ "
                 "https://example.com:443:443/ https://example.com:%34%34%33/ "
                 "https://example.com:\uff14/ https://[2606:4700::1]x/ "
                 "https://[2606:4700::1]443/ https://2606:4700::1111/");
  // The Fetch standard's, and those of databases, caches, brokers and daemons.
  for (const int bad :
       {0,    1,    22,   25,   6000,  6667,  10080, 1433, 3306, 5432,  6379,
        8123, 9000, 9092, 9200, 11211, 27017, 2375,  2379, 6443, 10250, 5672}) {
    INFO(bad);
    for (const std::string host :
         {"example.com", "8.8.8.8", "[2606:4700::1]"}) {
      CHECK(outcome("https://" + host + ":" + std::to_string(bad) + "/") ==
            "(blocked_port)");
    }
  }
  for (const int good : {2, 24, 80, 443, 591, 1024, 3000, 4000, 8000, 8080,
                         8443, 8843, 10081, 65535}) {
    INFO(good);
    CHECK(check_url("https://example.com:" + std::to_string(good), any_scheme())
              .ok());
  }
  int allowed = 0;
  for (int port = 0; port <= 65535; ++port) {
    const auto url =
        check_url("https://a.bc:" + std::to_string(port), any_scheme());
    if (url.ok() && url.value().port == port) ++allowed;
  }
  CHECK(allowed == 65536 - 83 - 82);

  // An entry names a destination, and no other one at that port.
  CHECK(outcome("http://db.example:5432/", with_private()) ==
        "http://db.example:5432/");
  CHECK(outcome("http://db.example:6379/", with_private()) == "(blocked_port)");
  CHECK(outcome("http://x.example:5432/", with_private()) == "(blocked_port)");
  CHECK(outcome("http://127.0.0.1:5432/", with_private()) ==
        "http://127.0.0.1:5432/");
  CHECK(outcome("http://127.0.0.1:0/", with_private()) == "(blocked_port)");
}

TEST_CASE("url: host names") {
  const std::string label(63, 'a');
  const std::string longest =  // 253 bytes
      label + "." + label + "." + label + "." + std::string(61, 'b');
  expect_all({
      {"https://" + longest + "/", "https://" + longest + "/"},
      {"https://" + longest + "./", "https://" + longest + "/"},
      {"https://" + longest + "b/", "(invalid_host)"},
      {"https://" + label + ".com/", "https://" + label + ".com/"},
      {"https://" + label + "a.com/", "(invalid_host)"},
  });
  expect_refused("invalid_host",
                 "https://./ https://../ https://.example.com/ "
                 "https://example..com/ https://example.com../ "
                 "https://-example.com/ https://example-.com/ "
                 "https://example.-com/ https://example.c_m/ "
                 "https://exa%mple.com/ https://exa%6/ https://exa%/ "
                 "https://example.com%/ https://example.com%2e%2e/ "
                 "https://example.com%2f.evil.org/ https://example.com%3a80/ "
                 "https://example.com%20/ https://example.com%0d%0a/ "
                 "https://example.com%00.evil.org/ https://%2531.1.1.1/ "
                 "https://exam!ple.com/ https://(example).com/ "
                 "https://$HOME.com/ https://*.example.com/ "
                 "https://{a,b}.example.com/ https://a,b.example.com/ "
                 "https://<x>.com/ https://foo.123/ https://foo.0x1f/ "
                 "https://foo.0x/ https://foo.0X1/ https://1.2.3.4.5/ "
                 "https://1.2.3.256/ https://256.2.3.4/ https://1.2.65536/ "
                 "https://1.16777216/ https://4294967296/ "
                 "https://99999999999999999999/ https://0x100000000/ "
                 "https://08.8.8.8/ https://8.8.8.08/ https://1..2/ "
                 "https://8.8.8.8../ https://8.8.8.8%20/ https://[::1/ "
                 "https://[]/ https://[/ https://]/ https://[8.8.8.8]/ "
                 "https://[example.com]/ https://[v1.fe80::a]/ "
                 "https://[1:2:3:4:5:6:7]/ https://[::1::]/ "
                 "https://[::ffff:256.1.1.1]/ https://[::ffff:010.1.1.1]/");
  expect_refused("zone_id",
                 "https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ "
                 "https://[::%25example.com]/");
}

TEST_CASE("url: invalid UTF-8 is refused anywhere") {
  for (const std::string& bytes :
       {"\xff"s, "\xc3"s, "\xed\xa0\x80"s, "\xc0\xaf"s, "\xf4\x90\x80\x80"s}) {
    for (const std::string& url :
         {"https://" + bytes + ".example/", "https://example.com/" + bytes,
          "https://example.com/?x=" + bytes + std::string(40, 'y')}) {
      CHECK(outcome(url) == "(malformed)");
    }
  }
}

TEST_CASE("url: local names") {
  for (const std::string_view name :
       words("localhost LOCALHOST localhost. foo.localhost a.b.localhost. "
             "printer.local local x.internal metadata.google.internal "
             "router.home.arpa home.arpa x.onion n8n plausible metadata "
             "x.localdomain nas.lan nas.home intra.corp wiki.intranet "
             "x.private %6cocalhost loc%61l")) {
    const std::string host(name);
    INFO(host);
    CHECK(outcome("http://" + host + "/") == "(local_name)");
  }
  for (const std::string_view name :
       words("notlocalhost.com localhost.example.com mylocal.example "
             "local.example internal.example arpa.example home.arpa.com "
             "1.in-addr.arpa onion.example example.mylan x.notlocal "
             "x.smith-home.arpa")) {
    const std::string host(name);
    INFO(host);
    CHECK(check_url("http://" + host + "/", any_scheme()).ok());
  }
}

TEST_CASE("url: policies on addresses") {
  for (const std::string_view host :
       words("localhost LOCALHOST localhost. %6cocalhost loc%61lhost")) {
    INFO(host);
    CHECK(outcome("http://" + std::string(host) + ":4000/", with_private()) ==
          "http://localhost:4000/");
  }
  expect_all(
      {
          {"http://127.0.0.1:4000/x", "http://127.0.0.1:4000/x"},
          {"http://[::1]/", "http://[::1]/"},
          {"http://10.1/", "http://10.0.0.1/"},
          {"http://[::ffff:10.2.3.4]/", "http://[::ffff:10.2.3.4]/"},
          {"http://169.254.169.254/", "(blocked_address)"},
          {"http://0/", "(blocked_address)"},
          {"http://192.168.0.1/", "(blocked_address)"},
          {"http://n8n:5678/", "http://n8n:5678/"},
          {"http://N8N:5678/", "http://n8n:5678/"},
          {"http://n8n/", "(local_name)"},
          {"http://other:5678/", "(local_name)"},
          {"http://db.internal:5432/", "http://db.internal:5432/"},
          {"http://db.internal/", "(local_name)"},
      },
      with_private());
}

TEST_CASE("url: length is limited before and after normalizing") {
  const std::string start = "https://example.com/";
  const std::string longest =
      start + std::string(kUrlBytesMax - start.size(), 'a');
  CHECK(outcome(longest) == longest);
  CHECK(outcome(longest + "a") == "(too_long)");
  CHECK(outcome(start + repeated("\u00e4", 400)) == "(too_long)");
  CHECK(outcome(std::string(1 << 20, 'a')) == "(too_long)");
}

TEST_CASE("url: what is returned is what curl dials") {
  for (const std::string text :
       {"https://EXAMPLE.com.:8443/a/../b?c", "http://134744072:8080",
        "https://[2606:4700:0::1111]/", "https://b\u00fccher.example",
        "https://example.com/%2e%2e/x", "https://example.com/?"}) {
    INFO(text);
    const auto url = check_url(text, any_scheme());
    REQUIRE(url.ok());
    CURLU* handle = curl_url();
    REQUIRE(curl_url_set(handle, CURLUPART_URL, url.value().text.c_str(), 0) ==
            CURLUE_OK);
    const auto part = [&](CURLUPart which) {
      char* raw = nullptr;
      REQUIRE(curl_url_get(handle, which, &raw, CURLU_DEFAULT_PORT) ==
              CURLUE_OK);
      std::string value(raw);
      curl_free(raw);
      return value;
    };
    CHECK(part(CURLUPART_SCHEME) == url.value().scheme);
    CHECK(part(CURLUPART_PORT) == std::to_string(url.value().port));
    const std::string host = part(CURLUPART_HOST);
    CHECK((host == url.value().host || host == "[" + url.value().host + "]"));
    curl_url_cleanup(handle);
  }
}

TEST_CASE("url: no error repeats path or query") {
  for (const std::string text :
       {"https://example.com/SECRET#x", "https://u:SECRET@example.com/",
        "https://10.0.0.1/SECRET?SECRET", "https://localhost/SECRET",
        "https://example.com:22/SECRET", "https://exa mple.com/SECRET",
        "ftp://example.com/SECRET", "https://foo.123/SECRET?SECRET",
        "https://example.com:x/SECRET", "http://example.com/SECRET"}) {
    INFO(text);
    const auto url = check_url(text, UrlPolicy{});
    REQUIRE_FALSE(url.ok());
    CHECK(url.error().detail.find("SECRET") == std::string::npos);
  }
}
