"""Forgets the flows of a UDP host port, so that a client that goes on sending follows the port to its next pod.

The kernel translates the first packet of a flow and remembers; a UDP flow that never pauses would lead to the old pod,
or to nobody, for ever.
"""

from __future__ import annotations

import errno
import socket

from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from sandbox.network.netlink import Message, Netlink, NetlinkError

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # include/uapi/linux/netfilter/nfnetlink_conntrack.h
_FILTER_PROTO_NUM, _FILTER_DST_PORT = 1 << 3, 1 << 5  # net/netfilter/nf_conntrack_netlink.c, since Linux 5.8
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def forget_udp(netlink: Netlink, family: int, port: int) -> int:
    """Deletes every UDP flow that was sent to `port`; returns how many. `netlink` is a netfilter socket.

    The kernel picks them out; one too old to do so answers an error, and its flows end by their time-out.
    """
    header = {"nfgen_family": int(_FAMILY[family])}
    protocol = {"attrs": [("CTA_PROTO_NUM", socket.IPPROTO_UDP), ("CTA_PROTO_DST_PORT", port)]}
    wanted = [
        ("CTA_TUPLE_ORIG", {"attrs": [("CTA_TUPLE_PROTO", protocol)]}),
        ("CTA_FILTER", {"attrs": [("CTA_FILTER_ORIG_FLAGS", _FILTER_PROTO_NUM | _FILTER_DST_PORT)]}),
    ]
    try:
        flows = netlink.dump(Message(nfct_msg, _GET, 0, f"list the UDP flows to port {port}", header, wanted))
    except NetlinkError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT):
            return 0
        raise
    for flow in flows:
        key = [(name, flow.get_attr(name)) for name in ("CTA_TUPLE_ORIG", "CTA_ZONE") if flow.get_attr(name)]
        what = f"forget a UDP flow to port {port}"
        netlink.request(Message(nfct_msg, _DELETE, 0, what, header, key, allow=(errno.ENOENT,)))
    return len(flows)
