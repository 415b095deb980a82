#include "core/dns_channel.hpp"

#include <ares.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "core/files.hpp"

namespace webhooks {
namespace {

constexpr std::int64_t kSecondUs = 1'000'000;
// A server that does not answer is asked again after this time, and then after
// twice as long.
constexpr int kTryMs = 1'500;
constexpr int kTries = 3;
constexpr int kDatagramBytes = 1'232;  // passes every network unfragmented
constexpr std::int64_t kLookAtConfigUs = 5 * kSecondUs;

DnsResult answer_of(int status, const ares_addrinfo* list) {
  DnsResult answer;
  if (status == ARES_SUCCESS && (list == nullptr || list->nodes == nullptr)) {
    status = ARES_ENODATA;
  }
  if (status != ARES_SUCCESS) {
    answer.failure = ares_strerror(status);
    answer.denied = status == ARES_ENOTFOUND || status == ARES_ENODATA;
    answer.timed_out = status == ARES_ETIMEOUT;
    return answer;
  }
  const auto shorten = [&answer](int ttl_s) {
    answer.ttl_us = std::min(answer.ttl_us, std::int64_t{ttl_s} * kSecondUs);
  };
  for (const auto* name = list->cnames; name != nullptr; name = name->next) {
    shorten(name->ttl);
  }
  for (const auto* node = list->nodes; node != nullptr; node = node->ai_next) {
    shorten(node->ai_ttl);
    if (const auto address = IpAddress::from_sockaddr(node->ai_addr)) {
      answer.addresses.push_back(*address);
    }
  }
  return answer;
}

}  // namespace

void DnsChannel::Delete::operator()(ares_channeldata* channel) const noexcept {
  ares_destroy(channel);
}

DnsChannel::~DnsChannel() = default;

Result<std::unique_ptr<DnsChannel>> DnsChannel::create(Options options) {
  static std::once_flag once;
  std::call_once(once, [] { ares_library_init(ARES_LIB_INIT_ALL); });
  std::unique_ptr<DnsChannel> channel(new DnsChannel(std::move(options)));
  const Status opened = channel->open();
  if (!opened) {
    return opened.error();
  }
  return channel;
}

Status DnsChannel::open() {
  ares_options settings{};
  settings.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS;
  settings.timeout = kTryMs;
  settings.tries = kTries;
  settings.ednspsz = kDatagramBytes;
  char lookups[] = "b";  // name servers alone, see hosts_file()
  settings.lookups = lookups;
  settings.resolvconf_path = options_.resolv_conf.data();
  settings.sock_state_cb = on_ares_socket;
  settings.sock_state_cb_data = this;
  // Of these, `ndots` and `ndomains` are 0.
  int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
             ARES_OPT_NDOTS | ARES_OPT_DOMAINS | ARES_OPT_EDNSPSZ |
             ARES_OPT_LOOKUPS | ARES_OPT_RESOLVCONF | ARES_OPT_SOCK_STATE_CB;
#ifdef ARES_OPT_QUERY_CACHE
  settings.qcache_max_ttl = 0;  // the cache is the Resolver's
  mask |= ARES_OPT_QUERY_CACHE;
#endif
#ifdef ARES_OPT_UDP_MAX_QUERIES
  // A broken answer closes its socket and fails what else was asked through it;
  // and each port of its own is another one to guess.
  settings.udp_max_queries = 1;
  mask |= ARES_OPT_UDP_MAX_QUERIES;
#endif
  ares_channel opened = nullptr;
  if (ares_init_options(&opened, &settings, mask) != ARES_SUCCESS) {
    return Error{"system_limit", "c-ares does not start"};
  }
  Channel fresh(opened);
  if (!options_.servers.empty() &&
      ares_set_servers_ports_csv(opened, options_.servers.c_str()) !=
          ARES_SUCCESS) {
    return Error{"dns_servers", {}};
  }
  channel_ = std::move(fresh);
  called_ = true;
  return Ok{};
}

// Containers and laptops get other name servers while they run, but c-ares
// reads its configuration at the start only.
bool DnsChannel::reopen_if_changed(std::int64_t now_us) {
  if (!options_.servers.empty() ||
      now_us - config_looked_us_ < kLookAtConfigUs) {
    return false;
  }
  const bool first = config_looked_us_ == 0;
  config_looked_us_ = now_us;
  const std::int64_t modified = modification_ns(options_.resolv_conf);
  return std::exchange(config_ns_, modified) != modified && !first &&
         open().ok();
}

void DnsChannel::on_ares_socket(void* channel, int descriptor, int in,
                                int out) noexcept {
  try {
    static_cast<DnsChannel*>(channel)->options_.watch(descriptor, in != 0,
                                                      out != 0);
  } catch (...) {  // NOLINT(bugprone-empty-catch): the question times out
  }
}

void DnsChannel::on_ares_answer(void* argument, int status, int /*timeouts*/,
                                ares_addrinfo* list) noexcept {
  const std::unique_ptr<OnAnswer> on_answer(static_cast<OnAnswer*>(argument));
  const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owned(
      list, ares_freeaddrinfo);
  if (status == ARES_EDESTRUCTION) {
    return;
  }
  try {
    (*on_answer)(answer_of(status, list));
  } catch (...) {  // NOLINT(bugprone-empty-catch): the attempt times out
  }
}

void DnsChannel::ask(const std::string& host, IpAddress::Family family,
                     OnAnswer on_answer) {
  ares_addrinfo_hints hints{};
  hints.ai_family = family == IpAddress::Family::kV4 ? AF_INET : AF_INET6;
  hints.ai_socktype = SOCK_STREAM;  // else each address comes several times
  hints.ai_flags = ARES_AI_NOSORT;  // servers spread load by the order
  auto owned = std::make_unique<OnAnswer>(std::move(on_answer));
  called_ = true;
  ares_getaddrinfo(channel_.get(), host.c_str(), nullptr, &hints,
                   on_ares_answer, owned.release());
}

// Not by ares_getaddrinfo: asked for one family, it goes on to the name servers
// when the file has an address of the other one.
std::vector<IpAddress> DnsChannel::hosts_file(const std::string& host) {
  std::vector<IpAddress> addresses;
  for (const int family : {AF_INET6, AF_INET}) {
    hostent* list = nullptr;
    if (ares_gethostbyname_file(channel_.get(), host.c_str(), family, &list) !=
            ARES_SUCCESS ||
        list == nullptr) {
      continue;
    }
    for (char** address = list->h_addr_list; *address != nullptr; ++address) {
      IpAddress ip;
      ip.family =
          family == AF_INET6 ? IpAddress::Family::kV6 : IpAddress::Family::kV4;
      std::copy_n(*address, list->h_length, ip.bytes.begin());
      addresses.push_back(ip);
    }
    ares_free_hostent(list);
  }
  return addresses;
}

void DnsChannel::on_socket(int descriptor, bool in, bool out) {
  called_ = true;
  ares_process_fd(channel_.get(), in ? descriptor : ARES_SOCKET_BAD,
                  out ? descriptor : ARES_SOCKET_BAD);
}

void DnsChannel::on_time(std::int64_t now_us) {
  if (now_us >= due_us_) {
    on_socket(ARES_SOCKET_BAD, false, false);
  }
}

std::int64_t DnsChannel::next_deadline_us(std::int64_t now_us) {
  // Not after every turn: the c-ares of Debian 12 looks at all questions.
  if (std::exchange(called_, false)) {
    timeval left{};
    const timeval* next = ares_timeout(channel_.get(), nullptr, &left);
    due_us_ = next == nullptr ? kNever
                              : now_us + std::int64_t{left.tv_sec} * kSecondUs +
                                    left.tv_usec + 1'000;
  }
  return due_us_;
}

}  // namespace webhooks
