# Classifies addresses with Python's ipaddress.
# stdin:  an address per line.
# stdout: the address and "unicast" for public ones, otherwise "refused". An address inside
#         ::ffff:0:0/96 or 64:ff9b::/96 counts as the IPv4 address it carries.
import ipaddress
import sys

CARRIERS = [ipaddress.ip_network(block) for block in ("::ffff:0:0/96", "64:ff9b::/96")]

for line in sys.stdin:
    text = line.strip()
    address = ipaddress.ip_address(text)
    if any(address in carrier for carrier in CARRIERS):
        address = ipaddress.ip_address(address.packed[12:])
    public = address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or getattr(address, "is_site_local", False)
    )
    print(text, "unicast" if public else "refused")
