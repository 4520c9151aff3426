"""Apache Kafka, PostgreSQL and an S3 server as ordinary processes of this machine, without Docker.

errors      ServiceError: a service does not start, or does not answer; the text says why
downloads   Kafka's jars and SeaweedFS's program, pinned, compared with their hashes, fetched once into a cache
ports       free ports, chosen once and kept in the service's folder
daemon      one process that outlives who started it, found again by its pid file
service     what all three can do: start, stop, kill -9, pause, resume, and whether they are well
kafka       one node, or three that keep three copies of each record
postgres    the server of the wheel (or the system's, when that is newer) on a TCP port with a password
seaweed     SeaweedFS with one identity and one bucket
tls         what a server shows to its clients
choice      which services `scripts/services` knows, and where their folders are
__main__    the command `scripts/services`

Each service lives in a folder of its own: data, log, ports, secrets, pid files. Constructing one does nothing; `start` is
idempotent and returns when the service has answered a real question; ports and data stay across `stop`, `kill` and the
machine's restart. A file lock on the folder makes concurrent starts and stops wait for each other. Everything listens on
127.0.0.1 only. These are services for people, tests and failures made on purpose; production has its own.
"""

from deploy.services.errors import ServiceError
from deploy.services.kafka import KafkaService
from deploy.services.postgres import PostgresService
from deploy.services.seaweed import SeaweedService

__all__ = ["KafkaService", "PostgresService", "SeaweedService", "ServiceError"]
