"""TCP ports of this machine: whether one is free, and one that is."""

import random
import socket

# Linux takes the ports of outgoing connections from 32,768 on; SeaweedFS's and Kafka's of deploy/services lie below these.
_OWN_PORTS = range(22_800, 32_700)


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


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports that nobody listens on now, at random, so that two who look at once hardly find the same.

    None is of the range from which the system takes the ports of outgoing connections: it would be somebody else's soon.
    """
    ports: list[int] = []
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        if len(ports) == count:
            return ports
        if trouble_with_port(host, port) is None:
            ports.append(port)
    raise OSError(f"fewer than {count} free ports between {_OWN_PORTS.start} and {_OWN_PORTS.stop - 1}")
