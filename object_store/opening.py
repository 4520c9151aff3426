"""One URL chooses the object store (object_store/url.py); credentials and limits concern S3 only."""

from pathlib import Path

from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStore
from object_store.limits import S3Limits
from object_store.url import read_url


def open_object_store(
    url: str,
    *,
    access_key: str = "",
    secret_key: str = "",
    ca_file: Path | None = None,
    limits: S3Limits | None = None,
) -> ObjectStore:
    """The store behind the URL. Raises ValueError. No connection is made yet."""
    place = read_url(url)
    if isinstance(place, Path):
        return FolderObjectStore(place)
    if not access_key or not secret_key:
        raise ValueError("an S3 server asks for an access key and a secret key")
    # Imported only now: a world in a folder need not load an S3 client.
    from object_store.s3 import S3ObjectStore

    return S3ObjectStore(place, access_key, secret_key, ca_file=ca_file, limits=limits or S3Limits())
