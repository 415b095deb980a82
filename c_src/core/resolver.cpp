#include "core/resolver.hpp"

#include <algorithm>
#include <deque>
#include <iterator>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/clock.hpp"

namespace webhooks {
namespace {

constexpr std::int64_t kSecondUs = 1'000'000;
// More is an attack, or none of a web server's names.
constexpr std::size_t kAddressesMax = 64;
constexpr std::size_t kEntriesMax = 16'384;
constexpr std::int64_t kTtlMinUs = kSecondUs;
constexpr std::int64_t kTtlMaxUs = 300 * kSecondUs;
constexpr std::int64_t kHostsFileTtlUs = 5 * kSecondUs;
constexpr std::int64_t kFailureTtlUs = 2 * kSecondUs;
// What RFC 8305 (3) grants the second answer, and RFC 8767 (5) a stale one: how
// long DNS may take before it serves, and how long it may serve.
constexpr std::int64_t kSecondAnswerUs = 50'000;
constexpr std::int64_t kStaleAfterUs = 1'800'000;
constexpr std::int64_t kStaleMaxUs = 3'600 * kSecondUs;

struct Entry {
  std::string host;
  Resolution answer;  // the last one
  bool answered = false;
  std::int64_t fresh_until_us = 0;
  std::int64_t refresh_us = 0;  // from then on a lookup runs ahead
  std::int64_t stale_until_us = 0;
  bool dns_fails = false;   // a stale answer may serve
  bool waited_for = false;  // somebody got kPending

  // The lookup under way.
  bool running = false;
  bool sent = false;  // not in line
  int pending = 0;    // of the two questions
  std::int64_t asked_us = 0;
  std::int64_t due_us = kNever;  // in Impl::due
  Resolution found;
  std::int64_t ttl_us = kTtlMaxUs;
  bool failed = false;            // DNS did, for one of the two
  std::vector<IpAddress> before;  // the addresses when it was asked

  bool usable_stale(std::int64_t now) const {
    return !answer.addresses.empty() && now < stale_until_us;
  }
};

}  // namespace

struct Resolver::Impl {
  ResolverOptions options;
  std::unordered_map<std::string, Entry> entries;
  std::deque<Entry*> line;      // running, but not sent
  std::vector<Entry*> touched;  // by an answer of c-ares
  std::set<std::pair<std::int64_t, Entry*>> due;
  std::vector<std::string> settled;
  std::size_t running = 0;
  std::size_t sent = 0;
  std::unique_ptr<DnsChannel> channel;  // dies first, see take()

  void evict(std::int64_t now);

  void start(Entry& entry, std::int64_t now);
  void send(Entry& entry, std::int64_t now);
  void take(Entry& entry, DnsResult answer);
  void set_due(Entry& entry, std::int64_t at_us);
  void progress(Entry& entry, std::int64_t now);
  void become_due(Entry& entry, std::int64_t now);
  void conclude(Entry& entry, std::int64_t now);
  void accept(Entry& entry, std::int64_t now);
  void deny(Entry& entry, std::int64_t now);
  void report_move(const Entry& entry,
                   const std::vector<IpAddress>& named) const;
  void release(Entry& entry);
  void advance(std::int64_t now);
};

// From within the channel.
void Resolver::Impl::take(Entry& entry, DnsResult answer) {
  --entry.pending;
  Resolution& found = entry.found;
  found.addresses.insert(found.addresses.end(), answer.addresses.begin(),
                         answer.addresses.end());
  if (answer.addresses.empty()) {
    if (found.failure.empty() || !answer.denied) {
      found.failure = std::move(answer.failure);
    }
    found.timed_out |= answer.timed_out;
    entry.failed |= !answer.denied;
  } else {
    entry.ttl_us = std::min(entry.ttl_us, answer.ttl_us);
  }
  touched.push_back(&entry);
}

void Resolver::Impl::start(Entry& entry, std::int64_t now) {
  if (channel->reopen_if_changed(now)) {
    touched.clear();
    for (auto& [host, open] : entries) {
      if (open.sent) {
        --sent;
        send(open, now);
      }
    }
  }
  entry.running = true;
  ++running;
  if (sent < options.lookups_max) {
    send(entry, now);
  } else if (entry.answer.addresses.empty()) {
    line.push_back(&entry);
  } else {
    line.push_front(&entry);  // it worked before
  }
}

void Resolver::Impl::send(Entry& entry, std::int64_t now) {
  entry.sent = true;
  ++sent;
  entry.asked_us = now;
  entry.found = {};
  entry.failed = false;
  entry.pending = 0;
  entry.before = entry.answer.addresses;
  set_due(entry, entry.usable_stale(now) ? now + kStaleAfterUs : kNever);
  entry.found.addresses = channel->hosts_file(entry.host);
  if (!entry.found.addresses.empty()) {
    entry.ttl_us = kHostsFileTtlUs;
    touched.push_back(&entry);
    return;
  }
  entry.ttl_us = kTtlMaxUs;
  entry.pending = 2;
  for (const auto family : {IpAddress::Family::kV4, IpAddress::Family::kV6}) {
    channel->ask(entry.host, family, [this, &entry](DnsResult answer) {
      take(entry, std::move(answer));
    });
  }
}

void Resolver::Impl::set_due(Entry& entry, std::int64_t at_us) {
  if (entry.due_us != kNever) {
    due.erase({entry.due_us, &entry});
  }
  entry.due_us = at_us;
  if (at_us != kNever) {
    due.emplace(at_us, &entry);
  }
}

void Resolver::Impl::progress(Entry& entry, std::int64_t now) {
  if (!entry.sent) {
    return;
  }
  if (entry.pending == 0) {
    conclude(entry, now);
  } else if (!entry.found.addresses.empty()) {
    set_due(entry, now + kSecondAnswerUs);
  }
}

void Resolver::Impl::become_due(Entry& entry, std::int64_t now) {
  set_due(entry, kNever);
  if (entry.found.addresses.empty()) {
    entry.dns_fails = true;
  } else {
    accept(entry, now);
  }
  release(entry);
}

void Resolver::Impl::conclude(Entry& entry, std::int64_t now) {
  set_due(entry, kNever);
  entry.running = entry.sent = false;
  --running;
  --sent;
  if (!entry.found.addresses.empty()) {
    accept(entry, now);
  } else {
    deny(entry, now);
  }
  release(entry);
  if (!line.empty()) {
    Entry& next = *line.front();
    line.pop_front();
    send(next, now);
  }
}

// The first of the two answers, or both.
void Resolver::Impl::accept(Entry& entry, std::int64_t now) {
  std::vector<IpAddress> addresses = entry.found.addresses;
  // IPv6 first (RFC 6724); curl tries the other family soon after. Not
  // std::ranges: clang 14, which builds the fuzz targets on Debian 12, does not
  // compile it.
  std::stable_partition(addresses.begin(), addresses.end(),
                        [](const IpAddress& address) {
                          return address.family == IpAddress::Family::kV6;
                        });
  // An address of the family that has not answered yet may still be named.
  std::vector<IpAddress> named = addresses;
  std::ranges::copy_if(
      entry.before, std::back_inserter(named), [&](const IpAddress& address) {
        return entry.pending != 0 && address.family != addresses.front().family;
      });
  report_move(entry, named);
  entry.answer = {};
  entry.answered = true;
  entry.dns_fails = false;
  if (addresses.size() > kAddressesMax) {
    entry.answer.failure = "the name has more than 64 addresses";
    entry.fresh_until_us = entry.refresh_us = now + kFailureTtlUs;
    entry.stale_until_us = 0;
    return;
  }
  const std::int64_t ttl_us = std::clamp(entry.ttl_us, kTtlMinUs, kTtlMaxUs);
  entry.answer.addresses = std::move(addresses);
  entry.fresh_until_us = now + ttl_us;
  // Steady traffic does not wait for DNS.
  entry.refresh_us = now + ttl_us * 9 / 10;
  entry.stale_until_us = entry.fresh_until_us + kStaleMaxUs;
}

void Resolver::Impl::report_move(const Entry& entry,
                                 const std::vector<IpAddress>& named) const {
  if (std::ranges::any_of(entry.before, [&](const IpAddress& address) {
        return std::ranges::find(named, address) == named.end();
      })) {
    options.moved(entry.host, named);
  }
}

void Resolver::Impl::deny(Entry& entry, std::int64_t now) {
  entry.fresh_until_us = entry.refresh_us = now + kFailureTtlUs;
  entry.answered = true;
  entry.dns_fails = entry.failed;
  if (entry.failed && entry.usable_stale(now)) {
    return;
  }
  report_move(entry, {});
  entry.answer = std::move(entry.found);
}

void Resolver::Impl::release(Entry& entry) {
  if (std::exchange(entry.waited_for, false)) {
    settled.push_back(entry.host);
  }
}

void Resolver::Impl::advance(std::int64_t now) {
  // Whoever is sent from the line may be answered at once, and be touched.
  for (std::size_t i = 0; i < touched.size(); ++i) {
    progress(*touched[i], now);
  }
  touched.clear();
  while (!due.empty() && due.begin()->first <= now) {
    become_due(*due.begin()->second, now);
  }
}

// Names in use come back at their next attempt.
void Resolver::Impl::evict(std::int64_t now) {
  if (entries.size() < kEntriesMax) {
    return;
  }
  for (const bool useful_too : {false, true}) {
    for (auto it = entries.begin();
         it != entries.end() && entries.size() > kEntriesMax * 7 / 8;) {
      const Entry& entry = it->second;
      const bool useful = now < entry.fresh_until_us || entry.usable_stale(now);
      it = !entry.running && (useful_too || !useful) ? entries.erase(it)
                                                     : std::next(it);
    }
  }
}

Resolver::Resolver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Resolver::~Resolver() = default;

Result<std::unique_ptr<Resolver>> Resolver::create(ResolverOptions options) {
  auto channel = DnsChannel::create(options.channel);
  if (!channel) {
    return channel.error();
  }
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  impl->channel = std::move(channel).value();
  return std::unique_ptr<Resolver>(new Resolver(std::move(impl)));
}

Resolver::Lookup Resolver::lookup(const std::string& host, std::int64_t now) {
  Impl& impl = *impl_;
  auto found = impl.entries.find(host);
  if (found == impl.entries.end()) {
    impl.evict(now);
    found = impl.entries.try_emplace(host).first;
    found->second.host = host;
  }
  Entry& entry = found->second;
  if (!entry.running && (!entry.answered || now >= entry.refresh_us)) {
    impl.start(entry, now);
    impl.advance(now);  // a name of the hosts file is known at once
  }
  const bool stale = entry.dns_fails && entry.usable_stale(now);
  if ((entry.answered && now < entry.fresh_until_us) || stale) {
    const bool good = !entry.answer.addresses.empty();
    return {good ? State::kKnown : State::kFailed, &entry.answer};
  }
  entry.waited_for = true;
  return {State::kPending, nullptr};
}

void Resolver::distrust(const std::string& host, std::int64_t now) {
  const auto found = impl_->entries.find(host);
  if (found == impl_->entries.end()) {
    return;
  }
  // An answer that is younger than the least TTL stays: a receiver that is
  // down must not turn each attempt into a question.
  Entry& entry = found->second;
  const std::int64_t at = std::max(now, entry.asked_us + kTtlMinUs);
  entry.fresh_until_us = std::min(entry.fresh_until_us, at);
  entry.refresh_us = std::min(entry.refresh_us, at);
}

void Resolver::on_socket(int descriptor, bool in, bool out) {
  impl_->channel->on_socket(descriptor, in, out);
}

std::vector<std::string> Resolver::settle(std::int64_t now) {
  impl_->channel->on_time(now);
  impl_->advance(now);
  return std::exchange(impl_->settled, {});
}

std::int64_t Resolver::next_deadline_us(std::int64_t now) {
  if (!impl_->touched.empty() || !impl_->settled.empty()) {
    return now;
  }
  const auto& due = impl_->due;
  return std::min(impl_->channel->next_deadline_us(now),
                  due.empty() ? kNever : due.begin()->first);
}

std::size_t Resolver::running() const { return impl_->running; }

}  // namespace webhooks
