// Purpose: what the policy must say of addresses: the first and the last of
// every registry row with their neighbours, forms that carry another address,
// and ordinary hosts.
// Ownership: static storage.
// Thread: any.
#pragma once

#include <string_view>

namespace webhooks_test {

struct AddressCase {
  std::string_view address;
  std::string_view reason;  // kReachable: may be dialled
};
inline constexpr std::string_view kReachable;

inline constexpr AddressCase kAddressCases[] = {
    // 0.0.0.0/8 This network
    {"0.0.0.0", "this_network"},
    {"0.255.255.255", "this_network"},
    {"1.0.0.0", kReachable},
    // 0.0.0.0/32 This host on this network
    {"0.0.0.1", "this_network"},
    // 10.0.0.0/8 Private-Use
    {"9.255.255.255", kReachable},
    {"10.0.0.0", "private"},
    {"10.255.255.255", "private"},
    {"11.0.0.0", kReachable},
    // 100.64.0.0/10 Shared Address Space
    {"100.63.255.255", kReachable},
    {"100.64.0.0", "shared"},
    {"100.127.255.255", "shared"},
    {"100.128.0.0", kReachable},
    // 127.0.0.0/8 Loopback
    {"126.255.255.255", kReachable},
    {"127.0.0.0", "loopback"},
    {"127.255.255.255", "loopback"},
    {"128.0.0.0", kReachable},
    // 169.254.0.0/16 Link Local
    {"169.253.255.255", kReachable},
    {"169.254.0.0", "link_local"},
    {"169.254.255.255", "link_local"},
    {"169.255.0.0", kReachable},
    // 172.16.0.0/12 Private-Use
    {"172.15.255.255", kReachable},
    {"172.16.0.0", "private"},
    {"172.31.255.255", "private"},
    {"172.32.0.0", kReachable},
    // 192.0.0.0/24 IETF Protocol Assignments
    {"191.255.255.255", kReachable},
    {"192.0.0.0", "reserved"},
    {"192.0.0.255", "reserved"},
    {"192.0.1.0", kReachable},
    // 192.0.0.0/29 IPv4 Service Continuity Prefix
    {"192.0.0.7", "reserved"},
    {"192.0.0.8", "reserved"},
    // 192.0.0.8/32 IPv4 dummy address
    {"192.0.0.9", kReachable},
    // 192.0.0.9/32 Port Control Protocol Anycast
    {"192.0.0.10", kReachable},
    // 192.0.0.10/32 Traversal Using Relays around NAT Anycast
    {"192.0.0.11", "reserved"},
    // 192.0.0.170/32 NAT64/DNS64 Discovery
    {"192.0.0.169", "reserved"},
    {"192.0.0.170", "reserved"},
    {"192.0.0.171", "reserved"},
    // 192.0.0.171/32 NAT64/DNS64 Discovery
    {"192.0.0.172", "reserved"},
    // 192.0.2.0/24 Documentation (TEST-NET-1)
    {"192.0.1.255", kReachable},
    {"192.0.2.0", "documentation"},
    {"192.0.2.255", "documentation"},
    {"192.0.3.0", kReachable},
    // 192.31.196.0/24 AS112-v4
    {"192.31.195.255", kReachable},
    {"192.31.196.0", kReachable},
    {"192.31.196.255", kReachable},
    {"192.31.197.0", kReachable},
    // 192.52.193.0/24 AMT
    {"192.52.192.255", kReachable},
    {"192.52.193.0", kReachable},
    {"192.52.193.255", kReachable},
    {"192.52.194.0", kReachable},
    // 192.88.99.0/24 Deprecated (6to4 Relay Anycast)
    {"192.88.98.255", kReachable},
    {"192.88.99.0", "six_to_four"},
    {"192.88.99.255", "six_to_four"},
    {"192.88.100.0", kReachable},
    // 192.88.99.2/32 6a44-relay anycast address
    {"192.88.99.1", "six_to_four"},
    {"192.88.99.2", "reserved"},
    {"192.88.99.3", "six_to_four"},
    // 192.168.0.0/16 Private-Use
    {"192.167.255.255", kReachable},
    {"192.168.0.0", "private"},
    {"192.168.255.255", "private"},
    {"192.169.0.0", kReachable},
    // 192.175.48.0/24 Direct Delegation AS112 Service
    {"192.175.47.255", kReachable},
    {"192.175.48.0", kReachable},
    {"192.175.48.255", kReachable},
    {"192.175.49.0", kReachable},
    // 198.18.0.0/15 Benchmarking
    {"198.17.255.255", kReachable},
    {"198.18.0.0", "benchmarking"},
    {"198.19.255.255", "benchmarking"},
    {"198.20.0.0", kReachable},
    // 198.51.100.0/24 Documentation (TEST-NET-2)
    {"198.51.99.255", kReachable},
    {"198.51.100.0", "documentation"},
    {"198.51.100.255", "documentation"},
    {"198.51.101.0", kReachable},
    // 203.0.113.0/24 Documentation (TEST-NET-3)
    {"203.0.112.255", kReachable},
    {"203.0.113.0", "documentation"},
    {"203.0.113.255", "documentation"},
    {"203.0.114.0", kReachable},
    // 240.0.0.0/4 Reserved
    {"239.255.255.255", "multicast"},
    {"240.0.0.0", "reserved"},
    {"255.255.255.255", "broadcast"},
    // 255.255.255.255/32 Limited Broadcast
    {"255.255.255.254", "reserved"},
    // ::1/128 Loopback Address
    {"::", "this_network"},
    {"::1", "loopback"},
    {"::2", "not_global_unicast"},
    // ::/128 Unspecified Address
    // ::ffff:0:0/96 IPv4-mapped Address
    {"::fffe:ffff:ffff", "not_global_unicast"},
    {"::ffff:0.0.0.0", "this_network"},
    {"::ffff:255.255.255.255", "broadcast"},
    {"::1:0:0:0", "not_global_unicast"},
    // 64:ff9b::/96 IPv4-IPv6 Translat.
    {"64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"64:ff9b::", "this_network"},
    {"64:ff9b::ffff:ffff", "broadcast"},
    {"64:ff9b::1:0:0", "not_global_unicast"},
    // 64:ff9b:1::/48 IPv4-IPv6 Translat.
    {"64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"64:ff9b:1::", "reserved"},
    {"64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"64:ff9b:2::", "not_global_unicast"},
    // 100::/64 Discard-Only Address Block
    {"ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"100::", "reserved"},
    {"100::ffff:ffff:ffff:ffff", "reserved"},
    {"100:0:0:1::", "reserved"},
    // 100:0:0:1::/64 Dummy IPv6 Prefix
    {"100::1:ffff:ffff:ffff:ffff", "reserved"},
    {"100:0:0:2::", "not_global_unicast"},
    // 2001::/23 IETF Protocol Assignments
    {"2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2001::", "teredo"},
    {"2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"2001:200::", kReachable},
    // 2001::/32 TEREDO
    {"2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "teredo"},
    {"2001:1::", "reserved"},
    // 2001:1::1/128 Port Control Protocol Anycast
    {"2001:1::1", kReachable},
    {"2001:1::2", kReachable},
    // 2001:1::2/128 Traversal Using Relays around NAT Anycast
    {"2001:1::3", kReachable},
    // 2001:1::3/128 DNS-SD Service Registration Protocol Anycast
    {"2001:1::4", "reserved"},
    // 2001:2::/48 Benchmarking
    {"2001:1:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"2001:2::", "benchmarking"},
    {"2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarking"},
    {"2001:2:1::", "reserved"},
    // 2001:3::/32 AMT
    {"2001:2:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"2001:3::", kReachable},
    {"2001:3:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2001:4::", "reserved"},
    // 2001:4:112::/48 AS112-v6
    {"2001:4:111:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"2001:4:112::", kReachable},
    {"2001:4:112:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2001:4:113::", "reserved"},
    // 2001:10::/28 Deprecated (previously ORCHID)
    {"2001:f:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"2001:10::", "reserved"},
    {"2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"2001:20::", kReachable},
    // 2001:20::/28 ORCHIDv2
    {"2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2001:30::", kReachable},
    // 2001:30::/28 Drone Remote ID Protocol Entity Tags (DETs) Prefix
    {"2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2001:40::", "reserved"},
    // 2001:db8::/32 Documentation
    {"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2001:db8::", "documentation"},
    {"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
    {"2001:db9::", kReachable},
    // 2002::/16 6to4
    {"2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2002::", "six_to_four"},
    {"2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "six_to_four"},
    {"2003::", kReachable},
    // 2620:4f:8000::/48 Direct Delegation AS112 Service
    {"2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2620:4f:8000::", kReachable},
    {"2620:4f:8000:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"2620:4f:8001::", kReachable},
    // 3fff::/20 Documentation
    {"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"3fff::", "documentation"},
    {"3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"},
    {"3fff:1000::", kReachable},
    // 5f00::/16 Segment Routing (SRv6) SIDs
    {"5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"5f00::", "reserved"},
    {"5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"},
    {"5f01::", "not_global_unicast"},
    // fc00::/7 Unique-Local
    {"fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"fc00::", "private"},
    {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private"},
    {"fe00::", "not_global_unicast"},
    // fe80::/10 Link-Local Unicast
    {"fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"fe80::", "link_local"},
    {"febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link_local"},
    {"fec0::", "not_global_unicast"},
    // 224.0.0.0/4 Multicast
    {"223.255.255.255", kReachable},
    {"224.0.0.0", "multicast"},
    // 168.63.129.16/32 Azure metadata
    {"168.63.129.15", kReachable},
    {"168.63.129.16", "metadata"},
    {"168.63.129.17", kReachable},
    // 100.100.100.200/32 Alibaba metadata
    {"100.100.100.199", "shared"},
    {"100.100.100.200", "metadata"},
    {"100.100.100.201", "shared"},
    // ff00::/8 Multicast
    {"feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "not_global_unicast"},
    {"ff00::", "multicast"},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"},
    // 3ffe::/16 6bone reserved
    {"3ffd:ffff:ffff:ffff:ffff:ffff:ffff:ffff", kReachable},
    {"3ffe::", "reserved"},
    // fd00:ec2::/32 EC2 metadata
    {"fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff", "private"},
    {"fd00:ec2::", "metadata"},
    {"fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff", "metadata"},
    {"fd00:ec3::", "private"},
    // fd20:ce::254/128 GCP metadata
    {"fd20:ce::253", "private"},
    {"fd20:ce::254", "metadata"},
    {"fd20:ce::255", "private"},
    // fd00:c1::a9fe:a9fe/128 OCI metadata
    {"fd00:c1::a9fe:a9fd", "private"},
    {"fd00:c1::a9fe:a9fe", "metadata"},
    {"fd00:c1::a9fe:a9ff", "private"},
    // fd00:42::42/128 Scaleway metadata
    {"fd00:42::41", "private"},
    {"fd00:42::42", "metadata"},
    {"fd00:42::43", "private"},
    // Cloud metadata services
    {"169.254.169.254", "link_local"},
    {"169.254.170.2", "link_local"},
    {"169.254.42.42", "link_local"},
    {"192.0.0.192", "reserved"},
    // v4-mapped: judged by the address inside
    {"::ffff:8.8.8.8", kReachable},
    {"::ffff:1.1.1.1", kReachable},
    {"::ffff:192.0.0.9", kReachable},
    {"::ffff:10.0.0.1", "private"},
    {"::ffff:127.0.0.1", "loopback"},
    {"::ffff:169.254.169.254", "link_local"},
    {"::ffff:168.63.129.16", "metadata"},
    {"::ffff:100.100.100.200", "metadata"},
    {"::ffff:224.0.0.1", "multicast"},
    {"::ffff:7f00:1", "loopback"},
    {"::ffff:808:808", kReachable},
    // NAT64: judged by the address inside
    {"64:ff9b::8.8.8.8", kReachable},
    {"64:ff9b::1.1.1.1", kReachable},
    {"64:ff9b::192.0.0.10", kReachable},
    {"64:ff9b::10.0.0.1", "private"},
    {"64:ff9b::127.0.0.1", "loopback"},
    {"64:ff9b::169.254.169.254", "link_local"},
    {"64:ff9b::168.63.129.16", "metadata"},
    {"64:ff9b::192.168.1.1", "private"},
    {"64:ff9b::224.0.0.1", "multicast"},
    {"64:ff9b::a9fe:a9fe", "link_local"},
    // NAT64 with a prefix of one's own: nobody outside knows what is behind
    {"64:ff9b:1::8.8.8.8", "reserved"},
    {"64:ff9b:1::10.0.0.1", "reserved"},
    // v4-compatible and v4-translated: out of use, whatever they carry
    {"::8.8.8.8", "not_global_unicast"},
    {"::10.0.0.1", "not_global_unicast"},
    {"::127.0.0.1", "not_global_unicast"},
    {"::ffff:0:8.8.8.8", "not_global_unicast"},
    {"::ffff:0:127.0.0.1", "not_global_unicast"},
    // 6to4 and Teredo: a relay decides where they end
    {"2002:808:808::1", "six_to_four"},
    {"2002:7f00:1::1", "six_to_four"},
    {"2002:a9fe:a9fe::1", "six_to_four"},
    {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "teredo"},
    // ISATAP and former site-local
    {"fe80::5efe:10.0.0.1", "link_local"},
    {"fec0::1", "not_global_unicast"},
    {"feff::1", "not_global_unicast"},
    // Multicast groups
    {"224.0.0.251", "multicast"},
    {"232.1.1.1", "multicast"},
    {"233.252.0.1", "multicast"},
    {"239.255.255.250", "multicast"},
    {"ff02::1", "multicast"},
    {"ff02::fb", "multicast"},
    {"ff0e::1", "multicast"},
    // Ordinary hosts
    {"1.1.1.1", kReachable},
    {"8.8.8.8", kReachable},
    {"9.9.9.9", kReachable},
    {"13.107.42.14", kReachable},
    {"17.253.144.10", kReachable},
    {"20.189.173.1", kReachable},
    {"34.117.59.81", kReachable},
    {"52.95.110.1", kReachable},
    {"93.184.216.34", kReachable},
    {"100.0.0.1", kReachable},
    {"100.200.0.1", kReachable},
    {"104.16.132.229", kReachable},
    {"140.82.112.3", kReachable},
    {"151.101.1.69", kReachable},
    {"157.240.22.35", kReachable},
    {"169.253.0.1", kReachable},
    {"172.64.0.1", kReachable},
    {"172.217.16.142", kReachable},
    {"185.199.108.153", kReachable},
    {"192.1.0.1", kReachable},
    {"192.30.255.112", kReachable},
    {"193.0.14.129", kReachable},
    {"198.41.0.4", kReachable},
    {"199.7.83.42", kReachable},
    {"202.12.27.33", kReachable},
    {"203.0.112.1", kReachable},
    {"208.67.222.222", kReachable},
    {"223.255.255.254", kReachable},
    {"2001:200::1", kReachable},
    {"2001:500:2::c", kReachable},
    {"2001:600::1", kReachable},
    {"2001:7fd::1", kReachable},
    {"2001:7fe::53", kReachable},
    {"2001:dc3::35", kReachable},
    {"2001:4860:4860::8888", kReachable},
    {"2003::1", kReachable},
    {"2400:cb00::1", kReachable},
    {"2600:1f18::1", kReachable},
    {"2606:4700:4700::1111", kReachable},
    {"2620:fe::fe", kReachable},
    {"2800:3f0::1", kReachable},
    {"2a00:1450:4001:80b::200e", kReachable},
    {"2a01:4f8::1", kReachable},
    {"2a03:2880:f12f:83:face:b00c:0:25de", kReachable},
    {"2c0f:fb50::1", kReachable},
};

}  // namespace webhooks_test
