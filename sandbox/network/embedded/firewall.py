"""The nftables table of a network: masquerade and host ports.

One table `inet sandbox-<bridge>`. Its rules never change; pods with host ports are elements of its maps, each element
with the pod sandbox's id as comment. Each change is one atomic transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pyroute2.netlink.nfnetlink.nftsocket import nft_table_msg

from sandbox.errors import NetworkError
from sandbox.linux.nftables import Nftables, NftablesError
from sandbox.network.embedded.conntrack import forget_udp
from sandbox.network.embedded.leases import Port
from sandbox.network.embedded.ranges import Range
from sandbox.network.netlink import Message, Netlink, NetlinkError

_NFT_MSG_GETTABLE = (10 << 8) | 1  # include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
_NETLINK_NETFILTER = 12
_NFPROTO_INET = 1
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_WORD = {4: "ip", 6: "ip6"}

_TABLE = """\
table inet {table} {{
  map ports_ip {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports_ip6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  map bound_ports_ip {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map bound_ports_ip6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  chain guard {{
    type filter hook prerouting priority -300;
    # route_localnet lets the host reach host ports by 127.0.0.1; no pod may reach the host's loopback by it.
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
  }}
  chain host_ports {{
    dnat ip to ip daddr . meta l4proto . th dport map @bound_ports_ip
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound_ports_ip6
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports_ip
    meta nfproto ipv6 fib daddr type local ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @ports_ip6
  }}
  chain prerouting {{
    type nat hook prerouting priority -100;
    jump host_ports
  }}
  chain output {{
    type nat hook output priority -100;
    jump host_ports
  }}
  chain postrouting {{
    type nat hook postrouting priority 100;
    # The answer to a translated connection must come back this way: from the host's loopback, from a pod to a pod.
    oifname "{bridge}" ct status dnat ip saddr 127.0.0.0/8 masquerade
{rules}
  }}
}}
"""


def table_name(bridge: str) -> str:
    return f"sandbox-{bridge}"


def base_table(bridge: str, sets: Sequence[Sequence[Range]], masquerade: bool) -> str:
    """The commands that make the table, without host ports."""
    rules = []
    for family in (4, 6):
        subnets = sorted({str(s.subnet) for group in sets for s in group if s.subnet.version == family})
        if not subnets:
            continue
        word, inside = _WORD[family], ", ".join(subnets)
        rules.append(f'    oifname "{bridge}" ct status dnat {word} saddr {{ {inside} }} masquerade')
        if masquerade:
            outside = f"{inside}, {_MULTICAST[family]}"
            rules.append(f"    {word} saddr {{ {inside} }} {word} daddr != {{ {outside} }} masquerade")
    return _TABLE.format(table=table_name(bridge), bridge=bridge, rules="\n".join(rules))


def _element(port: Port, with_target: bool) -> tuple[str, str]:
    """(map, element)."""
    key = f"{port.protocol} . {port.host_port}"
    name = f"ports_{_WORD[port.family]}"
    if port.host_address:
        name, key = f"bound_{name}", f"{port.host_address} . {key}"
    if not with_target:
        return name, key
    comment = re.sub(r"[^A-Za-z0-9._-]", "_", port.container)[:100]
    return name, f'{key} comment "{comment}" : {port.address} . {port.port}'


def port_commands(bridge: str, verb: str, ports: Iterable[Port]) -> str:
    """`add element …` or `delete element …` for each port."""
    lines = []
    for port in ports:
        name, element = _element(port, verb == "add")
        lines.append(f"{verb} element inet {table_name(bridge)} {name} {{ {element} }}\n")
    return "".join(lines)


class Firewall:
    """Owns an nftables context and a netfilter socket, both of the thread's network namespace."""

    def __init__(self, bridge: str, sets: Sequence[Sequence[Range]], masquerade: bool) -> None:
        self._bridge, self._sets, self._masquerade = bridge, sets, masquerade
        self._nftables = Nftables()
        self._netlink = Netlink(protocol=_NETLINK_NETFILTER)

    def close(self) -> None:
        self._nftables.close()
        self._netlink.close()

    def exists(self) -> bool:
        """Some tens of microseconds: asked before each ADD, for firewalls are reloaded under our feet."""
        message = Message(
            nft_table_msg,
            _NFT_MSG_GETTABLE,
            0,
            "find the table",
            {"nfgen_family": _NFPROTO_INET},
            [("NFTA_TABLE_NAME", table_name(self._bridge))],
        )
        try:
            self._netlink.get(message)
        except NetlinkError:
            return False
        return True

    def write(self, ports: Iterable[Port]) -> None:
        """The whole table anew, with all host ports, in place of what is there."""
        name = table_name(self._bridge)
        self._run(
            f"add table inet {name}\ndelete table inet {name}\n"
            + base_table(self._bridge, self._sets, self._masquerade)
            + port_commands(self._bridge, "add", ports),
            "write the table",
        )

    def add(self, ports: Sequence[Port]) -> None:
        self._run(port_commands(self._bridge, "add", ports), "open host ports")
        self._forget(ports)

    def remove(self, ports: Sequence[Port]) -> None:
        """Elements must be there: the caller knows from the leases. Raises NetworkError."""
        self._run(port_commands(self._bridge, "delete", ports), "close host ports")
        self._forget(ports)

    def _forget(self, ports: Iterable[Port]) -> None:
        for family, number in sorted({(port.family, port.host_port) for port in ports if port.protocol == "udp"}):
            forget_udp(self._netlink, family, number)

    def delete(self) -> None:
        """The table and all in it. Idempotent."""
        name = table_name(self._bridge)
        self._run(f"add table inet {name}\ndelete table inet {name}\n", "delete the table")

    def _run(self, commands: str, what: str) -> None:
        try:
            self._nftables.run(commands)
        except NftablesError as error:
            raise NetworkError(
                f"nftables could not {what} {table_name(self._bridge)}: {error}",
                code=100,
                operation=what,
                subject=table_name(self._bridge),
                hint="see `nft list ruleset`; the kernel needs nf_tables with nat, fib and masquerade",
            ) from error
