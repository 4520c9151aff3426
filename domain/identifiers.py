"""The names things go by: random ids from outside as 16 bytes, time-ordered keys of our own as one integer.

A bulk's key is drawn from a sequence; the key of its item n is `bulk_key * ITEMS_PER_BULK + n`, so that a bulk's items
are one range of the primary key and stand beside each other on disk. A single transfer takes a number of the same sequence
and stands at its place 0, which no item has. The payer's random transferId is kept in one unique index only (random keys
everywhere cost twice the CPU and up to seven times the WAL).
"""

ID_BYTES = 16
# Room for the item's number in the key: the highest setting of items per bulk is one less.
ITEMS_PER_BULK = 10_000


def id_bytes(text: str) -> bytes:
    """16 bytes of a UUID's text form; raises ValueError."""
    value = bytes.fromhex(text.replace("-", ""))
    if len(value) != ID_BYTES:
        raise ValueError(f"{text[:40]!r} is not a UUID")
    return value


def id_text(value: bytes) -> str:
    """The lower-case text form that FSPIOP wants of 16 bytes."""
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def transfer_key(bulk_key: int, item_number: int) -> int:
    """The key of a bulk's item; `item_number` counts from 1 in the order of the request."""
    assert 1 <= item_number < ITEMS_PER_BULK
    return bulk_key * ITEMS_PER_BULK + item_number


def single_key(number: int) -> int:
    """The key of a single transfer."""
    return number * ITEMS_PER_BULK


def is_single(transfer_key: int) -> bool:
    """Whether this is the key of a single transfer, and not of a bulk's item."""
    return transfer_key % ITEMS_PER_BULK == 0


def bulk_key_of(transfer_key: int) -> int:
    return transfer_key // ITEMS_PER_BULK


def item_number_of(transfer_key: int) -> int:
    return transfer_key % ITEMS_PER_BULK
