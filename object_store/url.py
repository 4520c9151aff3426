"""The URL of an object store: a folder (also as file:///folder), or

    s3://host[:port]/bucket[/prefix][?secure=false&region=us-east-1]

which means HTTPS unless `secure=false`. Credentials stand beside the URL, never in it, because URLs are printed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEME = "s3://"
FORM = "a folder, file:///folder or s3://host[:port]/bucket[/prefix][?secure=false&region=…]"
DEFAULT_REGION = "us-east-1"
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")
# What every server takes: AWS's rule for new buckets.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9._-]+/)*")
_SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where a store lives: `endpoint` is host or host:port, `prefix` is empty or ends with a slash."""

    endpoint: str
    bucket: str
    prefix: str = ""
    secure: bool = True
    region: str = DEFAULT_REGION


def read_url(url: str) -> Path | S3Place:
    """The folder, or the place on an S3 server, that a URL means; raises ValueError."""
    if url.startswith(SCHEME):
        return _s3_place(url)
    if url.startswith("file:///"):
        return Path(unquote(urlsplit(url).path))
    if not url or "://" in url or url.startswith("file:"):
        raise ValueError(f"must be {FORM}")
    return Path(url).absolute()


def _s3_place(url: str) -> S3Place:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials; they have settings of their own")
    bucket, _, prefix = parts.path.strip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secure = _SWITCHES.get(options.pop("secure", "true"))
    region = options.pop("region", DEFAULT_REGION)
    if (
        not _HOST.fullmatch(parts.netloc)
        or not _BUCKET.fullmatch(bucket)
        or not _PREFIX.fullmatch(prefix)
        or any(part in {".", ".."} for part in prefix.split("/"))
        or secure is None
        or not region
        or options
        or parts.fragment
    ):
        raise ValueError(f"must be {FORM}")
    return S3Place(parts.netloc, bucket, prefix, secure, region)
