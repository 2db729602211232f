"""Which addresses are those of the public internet.

`ipaddress` knows the registries of special addresses, each Python those of its year; what they lack
stands here. https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

import ipaddress

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address

UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA gives out. Outside lie addresses that carry one of IPv4 (mapped and compatible, RFC
4291; translated, RFC 2765; local NAT64, RFC 8215), and all that is local or reserved."""

NEVER: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # RFC 6890: of protocols
    ipaddress.IPv4Network("192.88.99.0/24"),  # RFC 7526: relays of 6to4, which are no more
    ipaddress.IPv6Network("3fff::/20"),  # RFC 9637: for documentation
)
"""What older Pythons take for public."""


def is_public(address: str) -> bool:
    """Say whether an address is one of the public internet, and so is one that it carries."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:  # one of this host's own networks
            return False
        if ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in UNICAST or ip.sixtofour or ip.teredo:  # the last two carry one of IPv4
            return False
    return ip.is_global and not (
        ip.is_private or ip.is_multicast or ip.is_reserved or any(ip in net for net in NEVER)
    )
