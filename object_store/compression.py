"""Bodies made smaller for the way to a server and for its disks: Zstandard, which Python has from 3.14 on.

Level 1: what is in a bulk beside field names are ids, hashes and signatures, of which no level makes less.
"""

import sys
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What an object says of itself that was made smaller so.
ENCODING: Final = "zstd"
# Of such bytes; said so that no server on the way tries to make them smaller once more.
CONTENT_TYPE: Final = "application/zstd"
_LEVEL = 1


class NotCompressed(Exception):
    """These bytes were not made by `compress`."""


def compress(body: bytes) -> bytes:
    return zstd.compress(body, _LEVEL)


def decompress(compressed: bytes) -> bytes:
    """Raises NotCompressed."""
    try:
        return zstd.decompress(compressed)
    except zstd.ZstdError as error:
        raise NotCompressed(str(error)) from None
