"""TCP ports of this machine: whether one is free, and one that is, for whoever asks alone.

A port that is free now is bound seconds later, and is free again while the process that listens on it is started anew. So
that no two worlds are given the same, a port is reserved: by an abstract Unix socket, which has a name and no file. Such
names are of one network namespace, as ports are, and go with the process that has chosen the port. Elsewhere than on Linux
there is no such thing, and chance alone keeps worlds apart.
"""

import errno
import os
import random
import socket
import sys
from collections import deque

# Linux takes the ports of outgoing connections from 32,768 on; SeaweedFS's and Kafka's of deploy/services lie below these.
_OWN_PORTS = range(22_800, 32_700)

# What this process has reserved, the oldest first: bare descriptors, which nobody needs to close and no child is given.
_reserved: deque[int] = deque()
# A world takes about ten. Of a process that starts one after the other (tests, a bench) the oldest have long ended; it must
# neither keep all ports from everybody nor have more files open than it may.
_RESERVED_MAX = 200


def trouble_with_port(host: str, port: int) -> str | None:
    """Why a server could not listen there; None when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def reserve_port(port: int) -> bool:
    """Keep a port from all who ask here or in another process, until this one ends; False when it is somebody's already.

    It can still be bound by anybody. Of many ports of one process the oldest are given back.
    """
    if not sys.platform.startswith("linux"):
        return True
    with socket.socket(socket.AF_UNIX) as mark:
        try:
            mark.bind(f"\0bulk-switch-port-{port}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        _reserved.append(mark.detach())
    while len(_reserved) > _RESERVED_MAX:
        os.close(_reserved.popleft())
    return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports that nobody listens on now, at random, and reserved (`reserve_port`); raises OSError without enough.

    None is of the range from which the system takes the ports of outgoing connections: it would be somebody else's soon.
    """
    ports: list[int] = []
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        if len(ports) == count:
            break
        # Reserved first: whoever had it, and has just ended, may have left a process that listens.
        if reserve_port(port) and trouble_with_port(host, port) is None:
            ports.append(port)
    if len(ports) < count:
        raise OSError(f"fewer than {count} free ports between {_OWN_PORTS.start} and {_OWN_PORTS.stop - 1}")
    return ports
