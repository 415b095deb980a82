// Purpose: the resolver's questions to DNS, when it repeats them, and which
// answers it uses meanwhile. TTLs run on a clock that the test sets; c-ares and
// the name server take real time.
// Thread: one; the name server has its own.
#include "core/resolver.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "core/clock.hpp"
#include "core/event_loop.hpp"
#include "dns_server.hpp"
#include "timing.hpp"
#include "tls_support.hpp"

using namespace webhooks;
using namespace webhooks::test;
using namespace std::chrono_literals;
using State = Resolver::State;

namespace {

constexpr std::int64_t kMs = 1'000;
constexpr std::int64_t kSecond = 1'000'000;

struct Fixture {
  std::unique_ptr<EventLoop> loop = std::move(EventLoop::create({})).value();
  std::int64_t now = steady_now_us();
  std::vector<std::string> settled;
  std::map<std::string, std::size_t> moved;  // and how many addresses are left
  std::unique_ptr<Resolver> resolver;

  explicit Fixture(const DnsServer& server, ResolverOptions options = {}) {
    options.channel.servers = server.address();
    open(std::move(options));
  }
  explicit Fixture(ResolverOptions options) { open(std::move(options)); }

  void open(ResolverOptions options) {
    options.channel.watch = [this](int descriptor, bool in, bool out) {
      loop->watch_other(descriptor, in, out);
    };
    options.moved = [this](const std::string& host, const auto& addresses) {
      moved[host] = addresses.size();
    };
    auto created = Resolver::create(std::move(options));
    REQUIRE(created.ok());
    resolver = std::move(created).value();
    loop->set_on_other([this](int descriptor, bool in, bool out) {
      resolver->on_socket(descriptor, in, out);
    });
  }

  State state(const std::string& host) {
    return resolver->lookup(host, now).state;
  }
  // One turn of the loop.
  void turn() {
    const std::int64_t wait = std::clamp<std::int64_t>(
        resolver->next_deadline_us(now) - now, 0, 5'000);
    const std::int64_t before = steady_now_us();
    loop->poll(wait, [](CURL*, CURLcode) {});
    now += steady_now_us() - before;
    for (std::string& name : resolver->settle(now)) {
      settled.push_back(std::move(name));
    }
  }
  template <class Condition>
  bool until(Condition condition) {
    return eventually([&] {
      turn();
      return condition();
    });
  }
  bool settles(const std::string& host) {
    return until([&] { return std::erase(settled, host) == 1; });
  }
  // Looks up until there is an answer.
  std::vector<std::string> addresses(const std::string& host) {
    for (;;) {
      const auto lookup = resolver->lookup(host, now);
      if (lookup.state != State::kPending) {
        std::vector<std::string> texts;
        for (const IpAddress& address : lookup.resolution->addresses) {
          texts.push_back(address.to_string());
        }
        return texts;
      }
      REQUIRE(settles(host));
    }
  }
};

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("resolver: pending, then answered, then cached") {
  const DnsServer server({"127.0.0.1"});
  Fixture f(server);
  CHECK(f.resolver->next_deadline_us(f.now) == kNever);
  for (int i = 0; i < 100; ++i) {
    CHECK(f.state("good.example") == State::kPending);
  }
  CHECK(f.resolver->next_deadline_us(f.now) < f.now + 2 * kSecond);
  REQUIRE(f.settles("good.example"));
  CHECK(f.addresses("good.example") == Texts{"127.0.0.1"});
  CHECK(server.count("good.example") == 1);
  CHECK(f.resolver->running() == 0);
  CHECK(f.resolver->settle(f.now).empty());
}

TEST_CASE("resolver: an answer serves for its TTL, within bounds") {
  struct Row {
    std::uint32_t ttl_s;
    std::int64_t fresh;  // still so, and not asked for anew
    std::int64_t ahead;  // asked for anew while it serves
    std::int64_t over;
  };
  const auto row =
      GENERATE(Row{0, 850 * kMs, 950 * kMs, 1'100 * kMs},
               Row{20, 17 * kSecond, 19 * kSecond, 21 * kSecond},
               Row{86'400, 268 * kSecond, 290 * kSecond, 301 * kSecond});
  INFO("TTL " << row.ttl_s);
  const DnsServer server([&](const std::string&, bool) {
    return DnsAnswer{{"127.0.0.1"}, row.ttl_s};
  });
  Fixture f(server);
  f.addresses("a.example");
  f.addresses("b.example");
  f.now += row.fresh;
  CHECK(f.state("a.example") == State::kKnown);
  CHECK(f.resolver->running() == 0);
  f.now += row.ahead - row.fresh;
  CHECK(f.state("a.example") == State::kKnown);
  CHECK(f.resolver->running() == 1);
  f.now += row.over - row.ahead;
  CHECK(f.state("b.example") == State::kPending);
}

TEST_CASE("resolver: IPv4 and IPv6 do not wait for each other") {
  const std::string v4 = "127.0.0.1";
  const std::string v6 = "::1";
  // What the answer to the AAAA question is, or to the A question.
  enum class Other { kGood, kNone, kFails, kHangs };
  const auto other =
      GENERATE(Other::kGood, Other::kNone, Other::kFails, Other::kHangs);
  const bool other_v6 = GENERATE(true, false);
  std::atomic<bool> late{false};
  const DnsServer server(
      [&](const std::string&, bool is_v6) -> std::optional<DnsAnswer> {
        if (is_v6 != other_v6 || other == Other::kGood || late) {
          return DnsAnswer{{v4, v6}};
        }
        if (other == Other::kHangs) {
          return std::nullopt;
        }
        return DnsAnswer{
            {}, 60, other == Other::kFails ? kServFail : std::uint8_t{0}};
      });
  Fixture f(server);
  const Texts one = {other_v6 ? v4 : v6};
  CHECK(f.addresses("two.example") ==
        (other == Other::kGood ? Texts{v6, v4} : one));
  if (other == Other::kHangs) {
    late = true;
    REQUIRE(f.until([&] { return f.resolver->running() == 0; }));
    CHECK(f.addresses("two.example") == Texts{v6, v4});
  }
  CHECK(f.moved.empty());
}

TEST_CASE("resolver: a stale answer serves only while DNS itself fails") {
  enum class Dns { kFine, kDenies, kFails, kHangs };
  std::atomic<Dns> dns{Dns::kFine};
  std::atomic<bool> elsewhere{false};
  const DnsServer server(
      [&](const std::string&, bool) -> std::optional<DnsAnswer> {
        switch (dns.load()) {
          case Dns::kFine:
            break;
          case Dns::kDenies:
            return DnsAnswer{{}, 60, kNxDomain};
          case Dns::kFails:
            return DnsAnswer{{}, 60, kServFail};
          case Dns::kHangs:
            return std::nullopt;
        }
        return DnsAnswer{{elsewhere ? "127.0.0.2" : "127.0.0.1"}};
      });
  Fixture f(server);
  f.addresses("a.example");
  f.now += 61 * kSecond;
  SECTION("not when it works") {
    elsewhere = true;
    REQUIRE(f.state("a.example") == State::kPending);
    CHECK(f.addresses("a.example") == Texts{"127.0.0.2"});
    CHECK(f.moved["a.example"] == 1);
  }
  SECTION("not when it denies the name") {
    dns = Dns::kDenies;
    CHECK(f.addresses("a.example").empty());
    CHECK(f.moved.count("a.example") == 1);
  }
  SECTION("while it fails, but not for ever") {
    dns = Dns::kFails;
    CHECK(f.addresses("a.example") == Texts{"127.0.0.1"});
    f.now += 5 * kSecond;
    CHECK(f.state("a.example") == State::kKnown);  // and asked for anew
    CHECK(f.resolver->running() == 1);
    REQUIRE(f.until([&] { return f.resolver->running() == 0; }));
    f.now += 3'700 * kSecond;
    CHECK(f.addresses("a.example").empty());
    CHECK(f.resolver->lookup("a.example", f.now).state == State::kFailed);
  }
  SECTION("while it does not answer") {
    dns = Dns::kHangs;
    REQUIRE(f.state("a.example") == State::kPending);
    REQUIRE(f.until([&] { return server.held() == 2; }));
    f.now += 2 * kSecond;
    REQUIRE(f.settles("a.example"));
    CHECK(f.addresses("a.example") == Texts{"127.0.0.1"});
    elsewhere = true;
    dns = Dns::kFine;
    REQUIRE(f.until([&] { return f.resolver->running() == 0; }));
    CHECK(f.addresses("a.example") == Texts{"127.0.0.2"});
  }
}

TEST_CASE("resolver: a failure has a reason and is retried soon") {
  const DnsServer server([](const std::string&, bool) {
    return DnsAnswer{{}, 60, kNxDomain};
  });
  Fixture f(server);
  CHECK(f.addresses("none.example").empty());
  const auto lookup = f.resolver->lookup("none.example", f.now);
  REQUIRE(lookup.state == State::kFailed);
  CHECK_FALSE(lookup.resolution->failure.empty());
  CHECK_FALSE(lookup.resolution->timed_out);
  CHECK(server.count("none.example") == 1);
  f.now += 3 * kSecond;
  CHECK(f.state("none.example") == State::kPending);
}

TEST_CASE("resolver: 64 addresses are judged, with more the name is refused") {
  const std::size_t v4 = GENERATE(40U, 41U, 1'000U);
  Texts all;
  for (std::size_t i = 0; i < v4; ++i) {
    all.push_back("127.0." + std::to_string(i / 250) + "." +
                  std::to_string(i % 250 + 1));
  }
  for (int i = 1; i <= 24; ++i) {
    all.push_back("::" + std::to_string(i));
  }
  const DnsServer server(all);
  Fixture f(server);
  const Texts found = f.addresses("many.example");
  CHECK(found.size() == (v4 == 40 ? 64 : 0));
  const auto lookup = f.resolver->lookup("many.example", f.now);
  CHECK((lookup.state == State::kKnown) == (v4 == 40));
  CHECK((lookup.resolution->failure.find("64") != std::string::npos) ==
        (v4 != 40));
}

TEST_CASE("resolver: an answer that failed is looked up again") {
  std::atomic<bool> elsewhere{false};
  const DnsServer server([&](const std::string&, bool) {
    return DnsAnswer{{elsewhere ? "127.0.0.2" : "127.0.0.1"}, 3'600};
  });
  Fixture f(server);
  f.addresses("a.example");
  elsewhere = true;
  // Not at once: a receiver that is down must not cause a question for each
  // attempt.
  f.resolver->distrust("a.example", f.now);
  CHECK(f.addresses("a.example") == Texts{"127.0.0.1"});
  f.now += kSecond;
  CHECK(f.addresses("a.example") == Texts{"127.0.0.2"});
  f.resolver->distrust("unknown.example", f.now);
}

TEST_CASE("resolver: the number of lookups at a time is limited") {
  DnsServer server;
  ResolverOptions options;
  options.lookups_max = 3;
  Fixture f(server, options);
  for (int i = 0; i < 5; ++i) {
    CHECK(f.state("held" + std::to_string(i) + ".example") == State::kPending);
  }
  CHECK(f.state("good.example") == State::kPending);
  REQUIRE(f.until([&] { return server.held() == 6; }));
  CHECK(f.resolver->running() == 6);
  CHECK(server.count("good.example") == 0);
  server.release();
  REQUIRE(f.until([&] { return f.settled.size() == 6; }));
  CHECK(f.addresses("good.example") == Texts{"127.0.0.1"});
  CHECK(f.resolver->running() == 0);
}

TEST_CASE("resolver: can be destroyed during lookups") {
  DnsServer server;
  Fixture f(server);
  for (int i = 0; i < 300; ++i) {
    f.state("held" + std::to_string(i) + ".example");
  }
  f.turn();
  f.resolver.reset();
}

TEST_CASE("resolver: the hosts file comes before DNS") {
  std::ifstream hosts("/etc/hosts");
  std::string address;
  std::string name;
  for (std::string line; std::getline(hosts, line);) {
    std::istringstream words(line);
    if (words >> address >> name && IpAddress::parse(address)) {
      break;
    }
  }
  if (name.empty()) {
    return;  // a bare system has none
  }
  const DnsServer server({"127.9.9.9"});
  Fixture f(server);
  const auto lookup = f.resolver->lookup(name, f.now);
  REQUIRE(lookup.state == State::kKnown);
  CHECK(lookup.resolution->addresses.front().to_string() != "127.9.9.9");
  CHECK(server.count(name) == 0);
}

TEST_CASE("resolver: a new resolv.conf applies to running lookups") {
  // Nobody listens at either address. The first one is in a network that drops
  // packets, so the failure is noticed later.
  TempFile file("nameserver 192.0.2.1\n");
  ResolverOptions options;
  options.channel.resolv_conf = file.path();
  Fixture f(options);
  CHECK(f.state("a.example") == State::kPending);
  f.turn();
  f.now += 6 * kSecond;
  std::ofstream(file.path()) << "nameserver 127.0.0.99\n";
  CHECK(f.state("b.example") == State::kPending);
  REQUIRE(f.until([&] { return f.settled.size() == 2; }));
  CHECK(f.resolver->lookup("a.example", f.now).state == State::kFailed);
}

TEST_CASE("resolver: invalid name servers are refused") {
  ResolverOptions options;
  options.channel.servers = "not an address";
  const auto created = Resolver::create(options);
  REQUIRE_FALSE(created.ok());
  CHECK(created.error().reason == "dns_servers");
}
