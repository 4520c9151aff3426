"""What lies on an S3 server: compressed bodies that say so, and bodies that somebody else has put there as they are."""

import io

import pytest
from minio import Minio

from object_store.compression import decompress
from object_store.interface import ObjectStore
from object_store.url import S3Place, read_url
from operations.simulated_bulk import build_bulk
from tests.stores import S3Server

pytestmark = pytest.mark.services

KEY = "requests/a/1"


@pytest.fixture
def place(s3_url: str) -> S3Place:
    place = read_url(s3_url)
    assert isinstance(place, S3Place)
    return place


@pytest.fixture
def client(s3_server: S3Server, place: S3Place) -> Minio:
    return Minio(place.endpoint, s3_server.access_key, s3_server.secret_key, secure=place.secure, region=place.region)


def test_a_body_is_kept_compressed_and_says_so(s3_store: ObjectStore, client: Minio, place: S3Place) -> None:
    body = build_bulk("payer", "payee", items=1_000).body
    s3_store.put(KEY, body)
    answer = client.get_object(place.bucket, place.prefix + KEY)
    try:
        kept = answer.read()
        assert answer.headers["x-amz-meta-encoding"] == "zstd"
        assert answer.headers["content-type"] == "application/zstd"
    finally:
        answer.close()
        answer.release_conn()
    assert len(kept) < len(body) * 2 / 3
    assert decompress(kept) == body == s3_store.get(KEY)


def test_a_body_that_says_nothing_is_read_as_it_is(s3_store: ObjectStore, client: Minio, place: S3Place) -> None:
    client.put_object(place.bucket, place.prefix + KEY, io.BytesIO(b"as it is"), 8)
    assert s3_store.get(KEY) == b"as it is"
