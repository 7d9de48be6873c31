"""The netlink messages of the embedded network: a bridge, a veth pair into the pod, addresses and routes."""

from __future__ import annotations

import errno
import hashlib
import struct
import time
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sandbox.network.embedded.ranges import Interface, IPAddress
from sandbox.network.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, Netlink

# include/uapi/linux/rtnetlink.h, if_addr.h, if.h, if_link.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _NEWROUTE, _GETADDR, _GETROUTE = 20, 24, 22, 26
_IFA_F_NODAD = 0x02
_IFF_UP = 1
_TABLE_MAIN, _PROTO_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 4, 0, 253, 1
_SKIP_STATS = 8
_IFLA_OPERSTATE, _IF_OPER_UP = 16, 6
_AF = {4: 2, 6: 10}
_VETH_PREFIX = "sb"


def veth_name(bridge: str, container_id: str, ifname: str) -> str:
    """The host's end of a pod's pair: 15 characters that a later process can find again."""
    return _VETH_PREFIX + hashlib.sha256(f"{bridge}/{container_id}/{ifname}".encode()).hexdigest()[:13]


def is_veth_name(name: str) -> bool:
    """True for names that `veth_name` makes."""
    tail = name.removeprefix(_VETH_PREFIX)
    return len(name) == 15 and len(tail) == 13 and set(tail) <= set("0123456789abcdef")


def mac_of_address(address: IPAddress) -> str:
    """A locally administered hardware address that follows the address: no neighbour entry goes stale on reuse."""
    return ":".join(f"{octet:02x}" for octet in b"\x0a\x58" + address.packed[-4:])


def mac_of_name(name: str) -> str:
    """A hardware address that never changes, for the host's ends."""
    return ":".join(f"{octet:02x}" for octet in b"\x0e\x58" + hashlib.sha256(name.encode()).digest()[:4])


def new_bridge(name: str, mac: str, mtu: int, owner: str) -> Message:
    attrs: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
        ("IFLA_IFALIAS", owner),
    ]
    if mtu:
        attrs.append(("IFLA_MTU", mtu))
    # Concurrent invocations may both find it missing: the second is content.
    return Message(
        ifinfmsg,
        _NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        f"create bridge {name}",
        attrs=attrs,
        allow=(errno.EEXIST,),
    )


def set_alias(index: int, alias: str) -> Message:
    return Message(ifinfmsg, _NEWLINK, 0, "set the bridge's alias", {"index": index}, [("IFLA_IFALIAS", alias)])


def set_up(index: int, what: str) -> Message:
    return Message(ifinfmsg, _NEWLINK, 0, what, {"index": index, "flags": _IFF_UP, "change": _IFF_UP})


def new_veth(name: str, master: int, peer_name: str, peer_mac: str, netns_fd: int, mtu: int, host_mac: str) -> Message:
    """Creates the pair, its peer already inside the pod's namespace; the host's end up and a port of the bridge."""
    peer: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", peer_name),
        ("IFLA_ADDRESS", peer_mac),
        ("IFLA_NET_NS_FD", netns_fd),
    ]
    attrs: list[tuple[str, Any]] = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", host_mac), ("IFLA_MASTER", master)]
    if mtu:
        peer.append(("IFLA_MTU", mtu))
        attrs.append(("IFLA_MTU", mtu))
    info = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]})]
    attrs.append(("IFLA_LINKINFO", {"attrs": info}))
    return Message(
        ifinfmsg,
        _NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        f"create veth pair {name} with {peer_name} in the pod",
        {"flags": _IFF_UP, "change": _IFF_UP},
        attrs,
    )


def set_hairpin(name: str) -> Message:
    """Lets frames leave through the bridge port that they came from."""
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1)]})]
    return Message(
        ifinfmsg,
        _NEWLINK,
        0,
        f"set hairpin mode of {name}",
        attrs=[("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": info})],
    )


def set_group(name: str, group: int) -> Message:
    return Message(
        ifinfmsg,
        _NEWLINK,
        0,
        f"put {name} into group {group}",
        attrs=[("IFLA_IFNAME", name), ("IFLA_GROUP", group)],
        allow=(errno.ENODEV,),
    )


def delete_group(group: int) -> Message:
    return Message(
        ifinfmsg,
        _DELLINK,
        0,
        f"delete the links of group {group}",
        attrs=[("IFLA_GROUP", group)],
        allow=(errno.ENODEV,),
    )


def delete_link(name: str) -> Message:
    """Idempotent."""
    return Message(ifinfmsg, _DELLINK, 0, f"delete link {name}", attrs=[("IFLA_IFNAME", name)], allow=(errno.ENODEV,))


def new_address(index: int, interface: Interface, allow_existing: bool = False) -> Message:
    attrs: list[tuple[str, Any]] = [("IFA_ADDRESS", str(interface.ip)), ("IFA_LOCAL", str(interface.ip))]
    if interface.version == 4 and interface.network.prefixlen < 31:
        attrs.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
    return Message(
        ifaddrmsg,
        _NEWADDR,
        NLM_F_CREATE | NLM_F_EXCL,
        f"add address {interface}",
        {
            "family": _AF[interface.version],
            "prefixlen": interface.network.prefixlen,
            "index": index,
            # Addresses come from our own management: probing for duplicates would only delay the pod.
            "flags": _IFA_F_NODAD if interface.version == 6 else 0,
        },
        attrs,
        allow=(errno.EEXIST,) if allow_existing else (),
    )


def new_route(index: int, destination: str, gateway: str) -> Message:
    """`destination` in CIDR notation; without gateway it is on the link."""
    address, _, length = destination.partition("/")
    attrs: list[tuple[str, Any]] = [("RTA_OIF", index)]
    if int(length):
        attrs.append(("RTA_DST", address))
    if gateway:
        attrs.append(("RTA_GATEWAY", gateway))
    return Message(
        rtmsg,
        _NEWROUTE,
        NLM_F_CREATE | NLM_F_EXCL,
        f"add route to {destination}" + (f" by {gateway}" if gateway else ""),
        {
            "family": _AF[6 if ":" in address else 4],
            "dst_len": int(length),
            "table": _TABLE_MAIN,
            "proto": _PROTO_STATIC,
            "scope": _SCOPE_UNIVERSE if gateway else _SCOPE_LINK,
            "type": _UNICAST,
        },
        attrs,
    )


def _get(name: str) -> Message:
    attrs = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _SKIP_STATS)]
    return Message(ifinfmsg, _GETLINK, 0, f"find link {name}", attrs=attrs)


def link_index(netlink: Netlink, name: str) -> int:
    """Raises NetlinkError (ENODEV)."""
    index: int = struct.unpack_from("=BxHi", netlink.get(_get(name)))[2]
    return index


def wait_until_up(netlink: Netlink, name: str, timeout_s: float = 1.0) -> bool:
    """Returns when packets can be sent: a link whose carrier has just come drops them until the kernel's link watch
    has run. Since Linux 6.8 the question itself runs it; before, it is a matter of a millisecond. False: time-out.
    """
    deadline = time.monotonic() + timeout_s
    while _operstate(netlink.get(_get(name))) != _IF_OPER_UP:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0003)
    return True


def _operstate(body: bytes) -> int:
    offset = 16
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == _IFLA_OPERSTATE:
            return body[offset + 4]
        offset += max(4, (length + 3) & ~3)
    return 0


def describe_link(netlink: Netlink, name: str) -> dict[str, Any]:
    """index, up, mac, mtu, kind, alias, master (0 when none). Raises NetlinkError (ENODEV)."""
    body = netlink.get(_get(name))
    message = ifinfmsg(struct.pack("=IHHII", len(body) + 16, _NEWLINK, 0, 0, 0) + body)
    message.decode()
    return _describe(message)


def links(netlink: Netlink) -> list[dict[str, Any]]:
    """Every link of the namespace, as `describe_link` has it, with its name."""
    return [_describe(message) for message in netlink.dump(Message(ifinfmsg, _GETLINK, 0, "list the links"))]


def _describe(message: Any) -> dict[str, Any]:
    info = message.get_attr("IFLA_LINKINFO")
    return {
        "name": message.get_attr("IFLA_IFNAME"),
        "index": message["index"],
        "up": bool(message["flags"] & _IFF_UP),
        "mac": message.get_attr("IFLA_ADDRESS") or "",
        "mtu": message.get_attr("IFLA_MTU") or 0,
        "kind": (info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        "alias": message.get_attr("IFLA_IFALIAS") or "",
        "master": message.get_attr("IFLA_MASTER") or 0,
    }


def addresses(netlink: Netlink, index: int) -> list[str]:
    """The addresses of a link, in CIDR notation."""
    dump = netlink.dump(Message(ifaddrmsg, _GETADDR, 0, "list the addresses"))
    return [f"{m.get_attr('IFA_ADDRESS')}/{m['prefixlen']}" for m in dump if m["index"] == index]


def routes(netlink: Netlink) -> list[tuple[str, str, int]]:
    """(destination, gateway, link index) of the main table, both families; the default route is 0.0.0.0/0 or ::/0."""
    found = []
    for message in netlink.dump(Message(rtmsg, _GETROUTE, 0, "list the routes")):
        if (message.get_attr("RTA_TABLE") or message["table"]) != _TABLE_MAIN or message["type"] != _UNICAST:
            continue
        anywhere = "0.0.0.0" if message["family"] == _AF[4] else "::"
        destination = f"{message.get_attr('RTA_DST') or anywhere}/{message['dst_len']}"
        found.append((destination, message.get_attr("RTA_GATEWAY") or "", message.get_attr("RTA_OIF") or 0))
    return found
