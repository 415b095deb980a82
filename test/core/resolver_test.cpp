// Purpose: lookups that fail, hang or come late cost their own name and no
// other. Deadlines and cache ages run on a clock that the test sets; only the
// lookups themselves take real time.
// Thread: one; lookups run on the resolver's threads.
#include "webhooks/resolver.hpp"

#include <netdb.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "timing.hpp"

using namespace webhooks;
using namespace std::chrono_literals;
using webhooks::test::eventually;
using State = Resolver::State;

namespace {

constexpr std::int64_t kSecondUs = 1'000'000;

// A name server of our own. Names that start with "hang" do not come back
// until `release`. Lookups may outlive the Resolver, so every one holds it.
class Names {
 public:
  Resolution look_up(const std::string& host) {
    std::unique_lock lock(mutex_);
    ++calls_[host];
    running_peak_ = std::max(running_peak_, ++running_);
    if (host.starts_with("hang")) {
      changed_.wait(lock, [this] { return released_; });
    }
    --running_;
    const bool fails = failing_ || host.starts_with("none");
    changed_.notify_all();
    if (host.starts_with("throw")) {
      throw std::runtime_error("no");
    }
    if (fails) {
      return {{}, "no such name"};
    }
    return {{*IpAddress::parse("127.0.0.1")}, {}};
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  void fail(bool yes) {
    const std::lock_guard lock(mutex_);
    failing_ = yes;
  }
  int calls(const std::string& host) {
    const std::lock_guard lock(mutex_);
    return calls_[host];
  }
  std::size_t running() {
    const std::lock_guard lock(mutex_);
    return running_;
  }
  std::size_t running_peak() {
    const std::lock_guard lock(mutex_);
    return running_peak_;
  }
  void woken() {
    const std::lock_guard lock(mutex_);
    ++wakes_;
    changed_.notify_all();
  }
  int wakes() {
    const std::lock_guard lock(mutex_);
    return wakes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> calls_;
  std::size_t running_ = 0;
  std::size_t running_peak_ = 0;
  int wakes_ = 0;
  bool released_ = false;
  bool failing_ = false;
};

struct Fixture {
  std::shared_ptr<Names> names = std::make_shared<Names>();
  std::int64_t now = 1'000 * kSecondUs;
  std::unique_ptr<Resolver> resolver;

  explicit Fixture(ResolverOptions options = {}) {
    options.resolve = [names = names](const std::string& host) {
      return names->look_up(host);
    };
    options.wake = [names = names] { names->woken(); };
    resolver = std::make_unique<Resolver>(std::move(options));
  }
  // Nothing of ours runs on when the test is over.
  ~Fixture() {
    names->release();
    resolver.reset();
    eventually([this] { return names->running() == 0; });
  }
  State state(const std::string& host) {
    return resolver->lookup(host, now).state;
  }
  // Settles until the name is among the settled ones.
  bool settles(const std::string& host,
               std::chrono::milliseconds patience = 5s) {
    return eventually(
        [&] {
          for (const std::string& name : resolver->settle(now)) {
            if (name == host) {
              return true;
            }
          }
          return false;
        },
        patience);
  }
};

}  // namespace

TEST_CASE("resolver: pending, then known, then from memory") {
  Fixture f;
  CHECK(f.resolver->next_deadline_us() ==
        std::numeric_limits<std::int64_t>::max());
  REQUIRE(f.state("good") == State::kPending);
  CHECK(f.resolver->next_deadline_us() <= f.now + 5 * kSecondUs);
  REQUIRE(f.settles("good"));
  CHECK(f.names->wakes() == 1);
  const auto lookup = f.resolver->lookup("good", f.now);
  REQUIRE(lookup.state == State::kKnown);
  REQUIRE(lookup.resolution != nullptr);
  REQUIRE(lookup.resolution->addresses.size() == 1);
  CHECK(lookup.resolution->addresses.front().to_string() == "127.0.0.1");
  f.now += 29 * kSecondUs;
  CHECK(f.state("good") == State::kKnown);
  CHECK(f.names->calls("good") == 1);
  CHECK(f.resolver->settle(f.now).empty());
}

TEST_CASE("resolver: one lookup per name, whoever asks") {
  Fixture f;
  for (int i = 0; i < 100; ++i) {
    CHECK(f.state("hang.one") == State::kPending);
  }
  REQUIRE(eventually([&] { return f.names->running() == 1; }));
  f.names->release();
  REQUIRE(f.settles("hang.one"));
  CHECK(f.names->calls("hang.one") == 1);
  CHECK(f.state("hang.one") == State::kKnown);
}

TEST_CASE("resolver: a stale answer serves while a fresh one is fetched") {
  Fixture f;
  f.state("good");
  REQUIRE(f.settles("good"));
  f.now += 31 * kSecondUs;
  CHECK(f.state("good") == State::kKnown);
  REQUIRE(eventually([&] { return f.names->calls("good") == 2; }));
  // A refresh that fails does not take the usable answer away.
  f.names->fail(true);
  REQUIRE(eventually([&] {
    f.resolver->settle(f.now);
    return f.names->running() == 0 && f.names->wakes() >= 2;
  }));
  f.now += 31 * kSecondUs;
  CHECK(f.state("good") == State::kKnown);
  REQUIRE(eventually([&] { return f.names->wakes() == 3; }));
  f.resolver->settle(f.now);
  CHECK(f.state("good") == State::kKnown);
  // But not for ever.
  f.now += 400 * kSecondUs;
  REQUIRE(f.state("good") == State::kPending);
  REQUIRE(f.settles("good"));
  CHECK(f.state("good") == State::kFailed);
}

TEST_CASE("resolver: a failure says why, and is soon asked again") {
  Fixture f;
  REQUIRE(f.state("none.example") == State::kPending);
  REQUIRE(f.settles("none.example"));
  const auto lookup = f.resolver->lookup("none.example", f.now);
  REQUIRE(lookup.state == State::kFailed);
  REQUIRE(lookup.resolution != nullptr);
  CHECK(lookup.resolution->failure == "no such name");
  CHECK(f.names->calls("none.example") == 1);
  f.now += 3 * kSecondUs;
  CHECK(f.state("none.example") == State::kPending);
  REQUIRE(f.settles("none.example"));
  CHECK(f.names->calls("none.example") == 2);
}

TEST_CASE("resolver: a lookup that throws is a failure") {
  Fixture f;
  REQUIRE(f.state("throw.example") == State::kPending);
  REQUIRE(f.settles("throw.example"));
  const auto lookup = f.resolver->lookup("throw.example", f.now);
  REQUIRE(lookup.state == State::kFailed);
  CHECK_FALSE(lookup.resolution->failure.empty());
}

TEST_CASE("resolver: a deadline ends the wait, not the lookup") {
  ResolverOptions options;
  options.deadline_ms = 50;
  Fixture f(options);
  REQUIRE(f.state("hang.a") == State::kPending);
  REQUIRE(eventually([&] { return f.names->running() == 1; }));
  CHECK(f.resolver->next_deadline_us() <= f.now + 50'000);
  f.now += 49'000;
  CHECK(f.resolver->settle(f.now).empty());
  f.now += 2'000;
  REQUIRE(f.settles("hang.a"));
  CHECK(f.state("hang.a") == State::kTimedOut);
  CHECK(f.names->calls("hang.a") == 1);
  REQUIRE(eventually([&] { return f.resolver->stuck() == 1; }));
  // What comes late is still an answer.
  f.names->release();
  REQUIRE(eventually([&] {
    f.resolver->settle(f.now);
    return f.state("hang.a") == State::kKnown;
  }));
  CHECK(f.resolver->stuck() == 0);
}

TEST_CASE("resolver: 300 hanging names at once do not starve good ones") {
  Fixture f;
  const auto real_us = [] {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  // Looks no more often than the loop would: when woken, or when told to.
  int wakes = 0;
  std::size_t settled = 0;
  const auto settle_fresh = [&] {
    const std::int64_t next = f.resolver->next_deadline_us();
    while (real_us() < next && f.names->wakes() == wakes) {
      std::this_thread::sleep_for(1ms);
    }
    wakes = f.names->wakes();
    f.now = real_us();
    for (const std::string& name : f.resolver->settle(f.now)) {
      settled += !name.starts_with("hang.") && f.state(name) == State::kKnown;
    }
  };
  f.now = real_us();
  f.state("good.known");
  while (settled < 1) {
    settle_fresh();
  }
  for (int i = 0; i < 300; ++i) {
    f.state("hang." + std::to_string(i));
  }
  for (int i = 0; i < 20; ++i) {
    f.state("fresh." + std::to_string(i));
  }
  const std::int64_t begin = real_us();
  while (settled < 21 && real_us() - begin < 20 * kSecondUs) {
    settle_fresh();
  }
  CHECK(settled == 21);
  CHECK(real_us() - begin < 3 * kSecondUs * test::kSlowdown);
  CHECK(f.resolver->threads() <= 512);
  // A name that worked before is better off than those nobody knows.
  f.now = real_us() + 3'000 * kSecondUs;
  const std::int64_t again = real_us();
  REQUIRE(f.state("good.known") == State::kPending);
  REQUIRE(f.settles("good.known"));
  CHECK(real_us() - again < kSecondUs * test::kSlowdown);
}

TEST_CASE("resolver: hanging names never take all threads") {
  ResolverOptions options;
  options.threads_max = 16;
  options.active_max = 16;
  options.deadline_ms = 100;
  Fixture f(options);
  f.state("good");
  REQUIRE(f.settles("good"));
  for (int i = 0; i < 200; ++i) {
    f.state("hang." + std::to_string(i));
  }
  REQUIRE(eventually([&] {
    f.resolver->settle(f.now);
    return f.names->running() == 12;
  }));
  std::this_thread::sleep_for(50ms);
  f.resolver->settle(f.now);
  CHECK(f.names->running() == 12);
  CHECK(f.resolver->threads() <= 16);
  f.now += 31 * kSecondUs;
  CHECK(f.state("good") == State::kKnown);  // stale, and asked anew
  CHECK(eventually([&] { return f.names->calls("good") == 2; }));
}

TEST_CASE("resolver: does not wait for hanging lookups when it goes") {
  Fixture f;
  for (int i = 0; i < 10; ++i) {
    f.state("hang." + std::to_string(i));
  }
  REQUIRE(eventually([&] { return f.names->running() == 10; }));
  const auto begin = std::chrono::steady_clock::now();
  f.resolver.reset();
  CHECK(std::chrono::steady_clock::now() - begin < 500ms * test::kSlowdown);
  const int wakes = f.names->wakes();
  f.names->release();
  REQUIRE(eventually([&] { return f.names->running() == 0; }));
  std::this_thread::sleep_for(20ms);
  CHECK(f.names->wakes() == wakes);
}

TEST_CASE("resolver: many names, many deadlines, each settled once") {
  ResolverOptions options;
  options.threads_max = 8;
  options.active_max = 8;
  Fixture f(options);
  std::map<std::string, int> settled;
  for (int i = 0; i < 500; ++i) {
    REQUIRE(f.state("good." + std::to_string(i)) == State::kPending);
  }
  REQUIRE(eventually([&] {
    for (const std::string& name : f.resolver->settle(f.now)) {
      ++settled[name];
    }
    return settled.size() == 500;
  }));
  for (const auto& [name, count] : settled) {
    INFO(name);
    CHECK(count == 1);
  }
  CHECK(f.names->running_peak() <= 8);
}

TEST_CASE("resolver: the system's own lookup") {
  const Resolution literal = resolve_with_getaddrinfo("127.0.0.9");
  REQUIRE(literal.addresses.size() == 1);
  CHECK(literal.addresses.front().to_string() == "127.0.0.9");
  // What the system knows, we know. A bare one has no /etc/hosts.
  addrinfo* known = nullptr;
  const bool knows = getaddrinfo("localhost", nullptr, nullptr, &known) == 0;
  if (knows) {
    freeaddrinfo(known);
  }
  CHECK(resolve_with_getaddrinfo("localhost").addresses.empty() != knows);
  // Too long to be asked of any server.
  const Resolution none = resolve_with_getaddrinfo(std::string(300, 'a'));
  CHECK(none.addresses.empty());
  CHECK_FALSE(none.failure.empty());
}
