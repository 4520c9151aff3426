"""An object store in a bucket of any S3 server: AWS, Ceph, MinIO, SeaweedFS.

What S3 gives: a PUT that was answered is durable and whole, and every GET, HEAD and listing after it sees it. A listing
tells ages in whole seconds, so an object counts as a second younger where that keeps it. What S3 does not give is a way to
delete an object only if nobody puts it again in that moment (an ETag is the same for the same content, and contents are
put again under their hash): that takes a bucket with versions, where a deletion names the version that it saw. `provision`
turns versions on and `delete_older` refuses to work without; a `put` of a key that is there leaves a version behind, which
goes with the object. SeaweedFS walks folder by folder, which is key order for names of one length, as ours are.

How a request goes: signed, one PUT per object (never in parts, never over the network twice unless it failed), at most
`attempts_max` attempts of at most `attempt_timeout_ms` each, the next one at once, so that together they stay below what
the edge waits. Nothing else tries again: 503, 429 and silence become ObjectStoreUnavailable, and whoever called slows down
(handlers) or says so (the edge). At most `connections_max` connections per process; whoever finds none free waits for one.

Bodies are kept compressed (`compression`) and say so in their metadata; one that says nothing is read as it is. Checked on
the way: a request's bytes by the signature (SHA-256, or TLS and MD5), an answer's length by the client, and what was kept
against the CRC-32 beside it. An answer that is cut off or altered is ObjectStoreUnavailable, never a body.

Trouble, said by status: no such key is ObjectMissing · any other refusal (credentials, bucket, clock), or a certificate that
we do not trust, is ObjectStoreRefused, which the start of a process tells its operator, and which later is waited out like
the rest · everything else, answers that are no S3 among them, is ObjectStoreUnavailable. No text holds a credential: they
only ever travel in a signature.
"""

import io
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from ssl import SSLCertVerificationError
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.commonconfig import ENABLED
from minio.datatypes import Object
from minio.error import InvalidResponseError, MinioException, S3Error
from minio.versioningconfig import VersioningConfig
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, SSLError

from object_store.compression import CONTENT_TYPE, ENCODING, NotCompressed, compress, decompress
from object_store.interface import ObjectMissing, ObjectStoreRefused, ObjectStoreUnavailable, StoredObject
from object_store.limits import S3Limits
from object_store.url import S3Place

# What a server says with these may be otherwise in a moment; the client's own attempts are made for the second row.
_PASSING = frozenset({408, 409, 429})
_TRIED_AGAIN = (500, 502, 503, 504)
_NOT_THERE = frozenset({"NoSuchKey", "NoSuchVersion"})
# Metadata of an object.
_CHECKSUM = "crc32"
_ENCODING = "encoding"
_METADATA = "x-amz-meta-"
# Servers tell times in whole seconds, cut off.
_LAST_MODIFIED_STEP_MS = 1_000
_READ_BYTES = 256 * 1024
# A single PUT may be this large; a larger part size than any body means that there is one part.
_PART_BYTES = 5 * 1024**3


class S3ObjectStore:
    """Implements object_store.interface.ObjectStore; makes no connection before the first call."""

    def __init__(
        self, place: S3Place, access_key: str, secret_key: str, *, ca_file: Path | None = None, limits: S3Limits
    ) -> None:
        self._place = place
        self._bucket = place.bucket
        self._limits = limits
        self._has_versions = False
        self._client = Minio(
            place.endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=place.secure,
            region=place.region,
            http_client=_pool(limits, ca_file),
        )

    def provision(self) -> None:
        """Make the bucket if it is missing, with versions."""
        with _told(f"provision the bucket {self._bucket}"):
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)
            if self._client.get_bucket_versioning(self._bucket).status != ENABLED:
                self._client.set_bucket_versioning(self._bucket, VersioningConfig(ENABLED))

    def check(self) -> None:
        """Whether the credentials are good and the bucket is there; raises ObjectStoreRefused, ObjectStoreUnavailable."""
        with _told(f"look at the bucket {self._bucket}"):
            if not self._client.bucket_exists(self._bucket):
                raise ObjectStoreRefused(f"there is no bucket {self._bucket}: `bulk-switch migrate` makes it")

    def put(self, key: str, body: bytes) -> None:
        kept = compress(body)
        with _told(f"keep {key}"):
            self._client.put_object(
                self._bucket,
                self._name(key),
                io.BytesIO(kept),
                len(kept),
                content_type=CONTENT_TYPE,
                metadata={_CHECKSUM: _checksum(kept), _ENCODING: ENCODING},
                part_size=_PART_BYTES,
            )

    def get(self, key: str) -> bytes:
        deadline_s = time.monotonic() + self._limits.attempts_max * self._limits.attempt_timeout_ms / 1000
        with _told(f"read {key}", key):
            response = self._client.get_object(self._bucket, self._name(key))
            try:
                pieces = []
                while piece := response.read1(_READ_BYTES):
                    pieces.append(piece)
                    if time.monotonic() > deadline_s:
                        # Each wait was short, but not all of them together.
                        raise ObjectStoreUnavailable(f"cannot read {key}: it comes too slowly")
                headers = response.headers
            except BaseException:
                # What is left of the answer must not be taken for the next one.
                response.close()
                raise
            finally:
                response.release_conn()
        return _body_of(b"".join(pieces), headers, key)

    def exists(self, key: str) -> bool:
        if self.put_ms(key) is not None:
            return True
        # The answer to HEAD does not say what it is that is missing.
        self.check()
        return False

    def keys(self, prefix: str) -> list[str]:
        assert prefix.endswith("/")
        with _told(f"list {prefix}"):
            return sorted(one.key for one in self._listed(prefix, ""))

    def delete(self, key: str) -> None:
        with _told(f"delete {key}"):
            for version in self._versions(key):
                self._client.remove_object(self._bucket, self._name(key), version_id=version.version_id)

    def put_ms(self, key: str) -> int | None:
        try:
            with _told(f"look at {key}", key):
                return _milliseconds(self._client.stat_object(self._bucket, self._name(key)).last_modified)
        except ObjectMissing:
            return None

    def page(self, prefix: str, after: str, objects_max: int) -> list[StoredObject]:
        assert prefix.endswith("/")
        with _told(f"list {prefix}"):
            return list(islice(self._listed(prefix, after), objects_max))

    def delete_older(self, key: str, before_ms: int) -> bool:
        with _told(f"delete {key}"):
            self._require_versions()
            versions = self._versions(key)
            if any(_milliseconds(one.last_modified) + _LAST_MODIFIED_STEP_MS > before_ms for one in versions):
                return False
            # Only what was seen goes: a version that is put in this moment is none of these. The newest goes last, so that
            # whoever dies in between leaves an object that the next run finds.
            for version in sorted(
                versions, key=lambda one: (one.is_latest == "true", _milliseconds(one.last_modified))
            ):
                self._client.remove_object(self._bucket, self._name(key), version_id=version.version_id)
            return bool(versions)

    def delete_unfinished(self, before_ms: int) -> int:
        """Nothing to do: a PUT that never ended has left nothing."""
        return 0

    def _name(self, key: str) -> str:
        assert all(part and part not in {".", ".."} for part in key.split("/")), f"not an object key: {key!r}"
        return self._place.prefix + key

    def _listed(self, prefix: str, after: str) -> Iterator[StoredObject]:
        place = self._place.prefix
        for one in self._client.list_objects(
            self._bucket, prefix=place + prefix, recursive=True, start_after=place + after if after else None
        ):
            assert one.object_name is not None
            key = one.object_name.removeprefix(place)
            # Servers may list folders as objects of no size. What does not come after `after` would be listed for ever.
            if not key.endswith("/") and key > after:
                yield StoredObject(key, _milliseconds(one.last_modified))

    def _versions(self, key: str) -> list[Object]:
        name = self._name(key)
        found = self._client.list_objects(self._bucket, prefix=name, recursive=True, include_version=True)
        return [one for one in found if one.object_name == name]

    def _require_versions(self) -> None:
        if not self._has_versions:
            if self._client.get_bucket_versioning(self._bucket).status != ENABLED:
                raise ObjectStoreRefused(
                    f"the bucket {self._bucket} keeps no versions, and without them an object that is put again while it is "
                    "being deleted would be lost: `bulk-switch migrate` turns them on"
                )
            self._has_versions = True


def _pool(limits: S3Limits, ca_file: Path | None) -> PoolManager:
    return PoolManager(
        maxsize=limits.connections_max,
        block=True,
        timeout=Timeout(connect=limits.connect_timeout_ms / 1000, total=limits.attempt_timeout_ms / 1000),
        retries=Retry(
            total=limits.attempts_max - 1,
            redirect=False,
            status_forcelist=_TRIED_AGAIN,
            # All methods used here may be repeated; the last answer is the client's to explain.
            allowed_methods=None,
            raise_on_status=False,
            # How long we wait is for our limits to say, not for the server.
            respect_retry_after_header=False,
        ),
        cert_reqs="CERT_REQUIRED",
        ca_certs=None if ca_file is None else str(ca_file),
    )


@contextmanager
def _told(what: str, key: str | None = None) -> Iterator[None]:
    """Turn what the client raises into the store's own errors; a missing object is one only where a key was asked for."""
    try:
        yield
    except S3Error as error:
        status = error.response.status
        if key is not None and error.code in _NOT_THERE:
            raise ObjectMissing(key) from error
        text = f"cannot {what}: {error.code}: {error.message}"
        if 400 <= status < 500 and status not in _PASSING:
            raise ObjectStoreRefused(text) from error
        raise ObjectStoreUnavailable(text) from error
    except InvalidResponseError as error:
        # Something in between has answered; the page that it sent is of no use to anybody.
        raise ObjectStoreUnavailable(f"cannot {what}: the answer is not of an S3 server") from error
    except (MinioException, HTTPError, ParseError, OSError) as error:
        if _is_untrusted(error):
            raise ObjectStoreRefused(f"cannot {what}: {error}") from error
        raise ObjectStoreUnavailable(f"cannot {what}: {error}") from error


def _is_untrusted(error: Exception) -> bool:
    """Whether the server's certificate is not one that we trust, which no second attempt changes."""
    reason = getattr(error, "reason", None)
    return isinstance(reason, SSLError) and any(isinstance(one, SSLCertVerificationError) for one in reason.args)


def _body_of(kept: bytes, headers: Mapping[str, str], key: str) -> bytes:
    """The body that was kept so; raises ObjectStoreUnavailable for what is altered."""
    checksum = headers.get(_METADATA + _CHECKSUM)
    if checksum is not None and checksum != _checksum(kept):
        raise ObjectStoreUnavailable(f"cannot read {key}: what came is not what was kept")
    encoding = headers.get(_METADATA + _ENCODING)
    if encoding is None:
        return kept
    if encoding != ENCODING:
        raise ObjectStoreUnavailable(f"cannot read {key}: it is kept as {encoding!r}, which this release cannot read")
    try:
        return decompress(kept)
    except NotCompressed as error:
        raise ObjectStoreUnavailable(f"cannot read {key}: what came is no {ENCODING}: {error}") from error


def _checksum(kept: bytes) -> str:
    return f"{zlib.crc32(kept):08x}"


def _milliseconds(last_modified: datetime | None) -> int:
    assert last_modified is not None
    return int(last_modified.timestamp() * 1000)
