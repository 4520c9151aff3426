"""Apache Kafka in KRaft mode: one node, or three that keep three copies of every record.

Each node is broker and controller in one Java process, with three ports on loopback: for clients (whose protocol may be
TLS or SASL, with what `properties` says), for the other nodes, for the controllers. With three nodes a record is
acknowledged when two have it, an unclean leader is never elected, and any one node may die.
"""

import base64
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.services.daemon import Daemon
from deploy.services.downloads import ROOT, java_program, kafka_jars
from deploy.services.errors import ServiceError
from deploy.services.ports import HOST
from deploy.services.service import Service

_TEMPLATE = ROOT / "deploy" / "kafka" / "server.properties"
_LISTENERS = ("client", "nodes", "controller")
_REPLICATION_MAX = 3
_CHECK_WAIT_S = 2.0
# Where the client complains about a broker that does not listen yet, which is no news here.
_SILENT = logging.getLogger("deploy.services.kafka.client")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_FORMAT_WAIT_S = 60.0
# For a broker that lives for minutes on a small machine: the second compiler and parallel collectors would spend more than
# they save (38 µs of CPU a transfer instead of 70 in a run of scripts/bench --stream kafka).
_JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.apache.logging.log4j.level=WARN")


class KafkaService(Service):
    """A cluster of `nodes` nodes, numbered from 1.

    `properties` are further lines of server.properties, for every node; `client_protocol` is the protocol of the clients'
    listener: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    """

    name: ClassVar[str] = "kafka"

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        *,
        properties: Mapping[str, str] | None = None,
        client_protocol: str = "PLAINTEXT",
        heap_mb: int = 512,
    ) -> None:
        self.nodes = nodes
        self._properties = dict(properties or {})
        self._client_protocol = client_protocol
        self._heap_mb = heap_mb
        super().__init__(folder)

    @property
    def bootstrap(self) -> str:
        """host:port of every node, for clients."""
        ports = self._ports()
        return ",".join(f"{HOST}:{ports[_port_name('client', node)]}" for node in self._numbers())

    @property
    def nodes_bootstrap(self) -> str:
        """host:port of every node, for whoever looks after the cluster: the nodes' own listener, which stays plain."""
        ports = self._ports()
        return ",".join(f"{HOST}:{ports[_port_name('nodes', node)]}" for node in self._numbers())

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    @property
    def replication_factor(self) -> int:
        """How many copies of a record this cluster can keep."""
        return min(self.nodes, _REPLICATION_MAX)

    def start_node(self, node: int) -> None:
        """Return when all nodes that run know each other; raises ServiceError."""
        with self._locked():
            self._start([self._daemon_name(node)])

    def stop_node(self, node: int) -> None:
        """Controlled: its leaders move to the other nodes first."""
        with self._locked():
            self._stop([self._daemon_name(node)])

    def kill_node(self, node: int) -> None:
        """kill -9."""
        self._daemons[self._daemon_name(node)].kill()

    def node_pids(self) -> dict[int, int]:
        """The process of each node that runs."""
        running = {node: self._daemons[self._daemon_name(node)].process() for node in self._numbers()}
        return {node: process.pid for node, process in running.items() if process is not None}

    def check(self) -> None:
        """Every node that runs answers for the whole cluster, in which all of them take part."""
        ports = self._ports()
        running = set(self.node_pids())
        if not running:
            raise ServiceError("no node runs")
        for node in sorted(running):
            known = _nodes_known_at(ports[_port_name("nodes", node)])
            if not running <= known:
                missing = ", ".join(str(one) for one in sorted(running - known))
                raise ServiceError(f"node {node} does not know of node {missing}")

    def _numbers(self) -> range:
        return range(1, self.nodes + 1)

    def _daemon_name(self, node: int) -> str:
        if node not in self._numbers():
            raise ServiceError(f"there is no node {node}, only 1 to {self.nodes}")
        return f"node-{node}"

    def _daemon_names(self) -> list[str]:
        return [f"node-{node}" for node in self._numbers()]

    def _port_names(self) -> list[str]:
        return [_port_name(listener, node) for node in self._numbers() for listener in _LISTENERS]

    def _ports_of(self, name: str) -> dict[str, int]:
        return {port: number for port, number in self._ports().items() if port.endswith(name)}

    def _prepare(self) -> None:
        java_program()
        kafka_jars()
        cluster_id = self._cluster_id()
        for node in self._numbers():
            self._configuration(node).write_text(self._server_properties(node))
            if not (self._log_folder(node) / "meta.properties").exists():
                self._format(node, cluster_id)

    def _cluster_id(self) -> str:
        """The same for all nodes, and for good: what clients remember of the cluster belongs to this data."""
        file = self.folder / "cluster-id"
        if not file.exists():
            # A UUID as Kafka writes it; a leading hyphen would look like an option.
            file.write_text("A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:])
        return file.read_text()

    def _configuration(self, node: int) -> Path:
        return self.folder / f"node-{node}.properties"

    def _log_folder(self, node: int) -> Path:
        return self.folder / f"node-{node}"

    def _server_properties(self, node: int) -> str:
        ports = self._ports()
        replication = self.replication_factor
        values = {
            "NODE": node,
            "VOTERS": ",".join(f"{one}@{HOST}:{ports[_port_name('controller', one)]}" for one in self._numbers()),
            "CLIENT_PORT": ports[_port_name("client", node)],
            "NODES_PORT": ports[_port_name("nodes", node)],
            "CONTROLLER_PORT": ports[_port_name("controller", node)],
            "CLIENT_PROTOCOL": self._client_protocol,
            "LOG_FOLDER": self._log_folder(node),
            "REPLICATION": replication,
            "IN_SYNC_MIN": max(1, replication - 1),
        }
        text = _TEMPLATE.read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text + "".join(f"{name}={value}\n" for name, value in self._properties.items())

    def _format(self, node: int, cluster_id: str) -> None:
        daemon = Daemon(self.folder, f"format-{node}")
        configuration = str(self._configuration(node))
        daemon.start(self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", configuration))
        daemon.wait_or_kill(_FORMAT_WAIT_S)
        if not (self._log_folder(node) / "meta.properties").exists():
            raise ServiceError(f"kafka: cannot format the folder of node {node}:\n{daemon.last_lines()}")

    def _launch(self, name: str, daemon: Daemon) -> None:
        daemon.start(self._java("kafka.Kafka", str(self.folder / f"{name}.properties")))

    def _java(self, *arguments: str) -> list[str]:
        return [java_program(), f"-Xmx{self._heap_mb}m", *_JAVA_OPTIONS, "-cp", f"{kafka_jars()}/*", *arguments]


def _port_name(listener: str, node: int) -> str:
    return f"{listener} node-{node}"


def _nodes_known_at(port: int) -> set[int]:
    admin = AdminClient({"bootstrap.servers": f"{HOST}:{port}"}, logger=_SILENT)
    try:
        return {int(broker) for broker in admin.list_topics(timeout=_CHECK_WAIT_S).brokers}
    except KafkaException as error:
        raise ServiceError(error.args[0].str()) from None
