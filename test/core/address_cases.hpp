// Purpose: addresses and what the policy must decide about them: the bounds of
// every registry row with their neighbours, forms that embed another address,
// cloud metadata services, multicast groups and ordinary hosts.
// Ownership: static storage.
// Thread: any.
#pragma once

#include <string_view>
#include <vector>

#include "words.hpp"

namespace webhooks_test {

struct AddressCase {
  std::string_view address;
  std::string_view reason;  // kReachable: may be dialled
};
inline constexpr std::string_view kReachable;

inline std::vector<AddressCase> address_cases() {
  constexpr AddressCase kByReason[] = {
      {"198.18.0.0 198.19.255.255 2001:2:: "
       "2001:2:0:ffff:ffff:ffff:ffff:ffff",
       "benchmarking"},
      {"255.255.255.255 ::ffff:255.255.255.255 64:ff9b::ffff:ffff",
       "broadcast"},
      {"192.0.2.0 192.0.2.255 198.51.100.0 198.51.100.255 203.0.113.0 "
       "203.0.113.255 2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff "
       "3fff:: 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
       "documentation"},
      {"169.254.0.0 169.254.42.42 169.254.169.254 169.254.170.2 "
       "169.254.255.255 ::ffff:169.254.169.254 64:ff9b::169.254.169.254 "
       "64:ff9b::a9fe:a9fe fe80:: fe80::5efe:10.0.0.1 "
       "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
       "link_local"},
      {"127.0.0.0 127.255.255.255 ::1 ::ffff:127.0.0.1 ::ffff:7f00:1 "
       "64:ff9b::127.0.0.1",
       "loopback"},
      {"100.100.100.200 168.63.129.16 ::ffff:100.100.100.200 "
       "::ffff:168.63.129.16 64:ff9b::168.63.129.16 fd00:42::42 "
       "fd00:c1::a9fe:a9fe fd00:ec2:: "
       "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff fd20:ce::254",
       "metadata"},
      {"224.0.0.0 224.0.0.251 232.1.1.1 233.252.0.1 239.255.255.250 "
       "239.255.255.255 ::ffff:224.0.0.1 64:ff9b::224.0.0.1 ff00:: ff02::1 "
       "ff02::fb ff0e::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
       "multicast"},
      {"::2 ::8.8.8.8 ::10.0.0.1 ::127.0.0.1 ::fffe:ffff:ffff ::1:0:0:0 "
       "::ffff:0:8.8.8.8 ::ffff:0:127.0.0.1 "
       "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff 64:ff9b::1:0:0 "
       "64:ff9b:0:ffff:ffff:ffff:ffff:ffff 64:ff9b:2:: "
       "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 100:0:0:2:: "
       "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 5f01:: "
       "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe00:: "
       "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0:: fec0::1 feff::1 "
       "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
       "not_global_unicast"},
      {"10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 "
       "192.168.255.255 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 "
       "64:ff9b::192.168.1.1 fc00:: fd00:42::41 fd00:42::43 "
       "fd00:c1::a9fe:a9fd fd00:c1::a9fe:a9ff "
       "fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff fd00:ec3:: fd20:ce::253 "
       "fd20:ce::255 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
       "private"},
      {"192.0.0.0 192.0.0.7 192.0.0.8 192.0.0.11 192.0.0.169 192.0.0.170 "
       "192.0.0.171 192.0.0.172 192.0.0.192 192.0.0.255 192.88.99.2 "
       "240.0.0.0 255.255.255.254 64:ff9b:1:: 64:ff9b:1::8.8.8.8 "
       "64:ff9b:1::10.0.0.1 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 100:: "
       "100::ffff:ffff:ffff:ffff 100:0:0:1:: 100::1:ffff:ffff:ffff:ffff "
       "2001:1:: 2001:1::4 2001:1:ffff:ffff:ffff:ffff:ffff:ffff 2001:2:1:: "
       "2001:2:ffff:ffff:ffff:ffff:ffff:ffff 2001:4:: "
       "2001:4:111:ffff:ffff:ffff:ffff:ffff 2001:4:113:: "
       "2001:f:ffff:ffff:ffff:ffff:ffff:ffff 2001:10:: "
       "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff 2001:40:: "
       "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff 3ffe:: "
       "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 5f00:: "
       "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
       "reserved"},
      {"100.64.0.0 100.100.100.199 100.100.100.201 100.127.255.255", "shared"},
      {"192.88.99.0 192.88.99.1 192.88.99.3 192.88.99.255 2002:: "
       "2002:808:808::1 2002:7f00:1::1 2002:a9fe:a9fe::1 "
       "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
       "six_to_four"},
      {"2001:: 2001:0:4136:e378:8000:63bf:3fff:fdd2 "
       "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
       "teredo"},
      {"0.0.0.0 0.0.0.1 0.255.255.255 :: ::ffff:0.0.0.0 64:ff9b::",
       "this_network"},
      {"1.0.0.0 1.1.1.1 8.8.8.8 9.9.9.9 9.255.255.255 11.0.0.0 "
       "13.107.42.14 17.253.144.10 20.189.173.1 34.117.59.81 52.95.110.1 "
       "93.184.216.34 100.0.0.1 100.63.255.255 100.128.0.0 100.200.0.1 "
       "104.16.132.229 126.255.255.255 128.0.0.0 140.82.112.3 151.101.1.69 "
       "157.240.22.35 168.63.129.15 168.63.129.17 169.253.0.1 "
       "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 172.64.0.1 "
       "172.217.16.142 185.199.108.153 191.255.255.255 192.0.0.9 "
       "192.0.0.10 192.0.1.0 192.0.1.255 192.0.3.0 192.1.0.1 "
       "192.30.255.112 192.31.195.255 192.31.196.0 192.31.196.255 "
       "192.31.197.0 192.52.192.255 192.52.193.0 192.52.193.255 "
       "192.52.194.0 192.88.98.255 192.88.100.0 192.167.255.255 "
       "192.169.0.0 192.175.47.255 192.175.48.0 192.175.48.255 "
       "192.175.49.0 193.0.14.129 198.17.255.255 198.20.0.0 198.41.0.4 "
       "198.51.99.255 198.51.101.0 199.7.83.42 202.12.27.33 203.0.112.1 "
       "203.0.112.255 203.0.114.0 208.67.222.222 223.255.255.254 "
       "223.255.255.255 ::ffff:1.1.1.1 ::ffff:8.8.8.8 ::ffff:808:808 "
       "::ffff:192.0.0.9 64:ff9b::1.1.1.1 64:ff9b::8.8.8.8 "
       "64:ff9b::192.0.0.10 2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
       "2001:1::1 2001:1::2 2001:1::3 2001:3:: "
       "2001:3:ffff:ffff:ffff:ffff:ffff:ffff 2001:4:112:: "
       "2001:4:112:ffff:ffff:ffff:ffff:ffff 2001:20:: "
       "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff 2001:30:: "
       "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff 2001:200:: 2001:200::1 "
       "2001:500:2::c 2001:600::1 2001:7fd::1 2001:7fe::53 "
       "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9:: 2001:dc3::35 "
       "2001:4860:4860::8888 2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
       "2003:: 2003::1 2400:cb00::1 2600:1f18::1 2606:4700:4700::1111 "
       "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff 2620:4f:8000:: "
       "2620:4f:8000:ffff:ffff:ffff:ffff:ffff 2620:4f:8001:: 2620:fe::fe "
       "2800:3f0::1 2a00:1450:4001:80b::200e 2a01:4f8::1 "
       "2a03:2880:f12f:83:face:b00c:0:25de 2c0f:fb50::1 "
       "3ffd:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000::",
       kReachable},
  };
  std::vector<AddressCase> cases;
  for (const auto& [addresses, reason] : kByReason) {
    for (const std::string_view address : words(addresses)) {
      cases.push_back({address, reason});
    }
  }
  return cases;
}

}  // namespace webhooks_test
