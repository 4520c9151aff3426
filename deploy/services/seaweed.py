"""SeaweedFS as an S3 server: all its parts in one process on loopback, one identity with generated keys, one bucket.

`weed mini` starts its parts in order and is there within two seconds (`weed server`'s take seven, and fifteen to stop). What
it would do beyond S3 is switched off: telemetry, WebDAV, the admin pages, table catalogues. The identity is in s3.json, so
that unsigned requests are refused. What was answered has reached the operating system, not the disk: it survives kill -9,
not a power cut (production replicates, or asks for fsync).
"""

import io
import json
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import urllib3
from minio import Minio
from minio.error import MinioException

from deploy.services.daemon import Daemon
from deploy.services.downloads import weed_program
from deploy.services.errors import ServiceError
from deploy.services.ports import HOST
from deploy.services.service import Service
from deploy.services.tls import ServerTls

BUCKET = "bulk-switch"
_REGION = "us-east-1"
_PARTS = ("master", "volume", "filer", "s3")
# Where the question is put whether it is well: not among the switch's objects, whose versions are kept.
_CHECK_BUCKET = "health"
_CHECK_KEY = "question"
_CHECK_WAIT_S = 2.0
_VOLUME_MB_MAX = 256


class SeaweedService(Service):
    """One server with the bucket `bulk-switch`; with `tls` it speaks HTTPS only."""

    name: ClassVar[str] = "s3"
    # Its admin part has no page here, and still listens on two ports that far from each other.
    _also_listens_at: ClassVar[int] = 10_000

    def __init__(self, folder: Path, *, tls: ServerTls | None = None) -> None:
        self._tls = tls
        super().__init__(folder)

    @property
    def url(self) -> str:
        return self.url_of(BUCKET)

    def url_of(self, bucket: str) -> str:
        secure = "true" if self._tls is not None else "false"
        return f"s3://{self._endpoint}/{bucket}?secure={secure}&region={_REGION}"

    @property
    def access_key(self) -> str:
        return self._credentials()["accessKey"]

    @property
    def secret_key(self) -> str:
        return self._credentials()["secretKey"]

    def check(self) -> None:
        """The identity puts an object and gets it back."""
        with urllib3.PoolManager(
            timeout=urllib3.Timeout(_CHECK_WAIT_S),
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(self._tls.ca_file) if self._tls is not None else None,
        ) as pool:
            client = Minio(
                self._endpoint,
                access_key=self.access_key,
                secret_key=self.secret_key,
                secure=self._tls is not None,
                region=_REGION,
                http_client=pool,
            )
            try:
                for bucket in (BUCKET, _CHECK_BUCKET):
                    if not client.bucket_exists(bucket):
                        client.make_bucket(bucket)
                question = secrets.token_bytes(16)
                client.put_object(_CHECK_BUCKET, _CHECK_KEY, io.BytesIO(question), len(question))
                answer = client.get_object(_CHECK_BUCKET, _CHECK_KEY)
                told = answer.read()
                answer.release_conn()
            except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
                raise ServiceError(str(error)) from None
        if told != question:
            raise ServiceError("it does not give back what it was given")

    @property
    def _endpoint(self) -> str:
        return f"{HOST}:{self._ports()['s3']}"

    def _credentials(self) -> dict[str, str]:
        try:
            [identity] = json.loads((self.folder / "s3.json").read_text())["identities"]
        except FileNotFoundError:
            raise ServiceError(f"{self.name} in {self.folder} was never started") from None
        credentials: dict[str, str] = identity["credentials"][0]
        return credentials

    def _daemon_names(self) -> list[str]:
        return [self.name]

    def _port_names(self) -> list[str]:
        return [*_PARTS, *(f"{part}-grpc" for part in _PARTS), "admin"]

    def _prepare(self) -> None:
        weed_program()
        (self.folder / "data").mkdir(exist_ok=True)
        file = self.folder / "s3.json"
        if not file.exists():
            credentials = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}
            actions = ["Admin", "Read", "Write", "List", "Tagging"]
            part = file.with_suffix(".part")
            part.touch(0o600)
            part.write_text(
                json.dumps({"identities": [{"name": BUCKET, "credentials": [credentials], "actions": actions}]})
            )
            part.replace(file)

    def _launch(self, name: str, daemon: Daemon) -> None:
        ports = self._ports()
        listening = [f"-{part}.port={ports[part]}" for part in _PARTS]
        listening += [f"-{part}.port.grpc={ports[f'{part}-grpc']}" for part in _PARTS]
        without = ["-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        without += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-volume.preStopSeconds=0"]
        tls = []
        if self._tls is not None:
            certificate, key = self._tls.copied_to(self.folder)
            tls = [f"-s3.cert.file={certificate}", f"-s3.key.file={key}"]
        daemon.start(
            [
                *(str(weed_program()), "-logtostderr=true", "mini"),
                *(f"-dir={self.folder / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}"),
                *(f"-master.volumeSizeLimitMB={_VOLUME_MB_MAX}", f"-s3.config={self.folder / 's3.json'}"),
                *(*listening, f"-admin.port={ports['admin']}", *without, *tls),
            ]
        )

    def kill(self) -> None:
        super().kill()
        self._remove_sockets()

    def _stop(self, names: Sequence[str]) -> None:
        super()._stop(names)
        self._remove_sockets()

    def _remove_sockets(self) -> None:
        """It leaves some of its Unix sockets behind; their names have the ports in them, which are ours alone."""
        try:
            ports = self._ports()
        except ServiceError:
            # Never started.
            return
        for port in {port + more for port in ports.values() for more in (0, self._also_listens_at)}:
            for socket in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)
