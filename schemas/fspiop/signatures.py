"""FSPIOP-Signature, as FSPs send it and as the hub does: a JWS whose payload is the whole body (reference §8).

    FSPIOP-Signature: {"signature": base64url, "protectedHeader": base64url of {"alg", "FSPIOP-URI", …}}

What is signed is `protectedHeader.base64url(body)`, over the bytes of the body as they came. The protected header is checked
in this order, as the Mojaloop SDK's validator does and a little more strictly; whatever fails is refused with 3105:

    the header is JSON of at most SIGNATURE_BYTES_MAX with the two fields, no field twice in it or in the protected header
    alg is RS256 or ES256, never none or a shared secret · no crit: there is no extension of JWS that must be understood
    FSPIOP-Source is the source's · FSPIOP-HTTP-Method and FSPIOP-URI are the request's, in its headers too
    FSPIOP-Destination is there as soon as the request has one, and equal · Date and every other header it names are equal
    one of the source's keys of that algorithm made the signature; the key that kid names, where one is called so

FSPIOP-URI starts at the service. A sender that reaches it behind a path of its own (`/switch/bulkTransfers`) may say so:
whole segments before the service's path are a matter of its gateway. A GET has no body, and the SDK does not sign it;
one that is signed is checked over an empty payload.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from domain.fspiop_errors import ErrorCode
from schemas.fspiop.errors import Refusal
from schemas.fspiop.headers import RequestHeaders
from schemas.fspiop.keys import (
    ALGORITHMS,
    RSA_BITS_MAX,
    RSA_BITS_MIN,
    UnusableKey,
    VerifyingKey,
    algorithm_of,
    read_base64url,
)

HEADER: Final = "fspiop-signature"
# A signature of 8,192 bits and a protected header with every field take less than half of it.
SIGNATURE_BYTES_MAX: Final = 8_192

# What the protected header calls them; the names are case-sensitive there.
URI: Final = "FSPIOP-URI"
METHOD: Final = "FSPIOP-HTTP-Method"
SOURCE: Final = "FSPIOP-Source"
DESTINATION: Final = "FSPIOP-Destination"
DATE: Final = "Date"
# Those that must be among the request's headers when they are protected; others that were not kept cannot be compared.
_ALWAYS_KEPT = ("fspiop-", "date")

_PREHASHED = Prehashed(hashes.SHA256())
_COORDINATE_BYTES = 32
# A multiple of 3, so that the pieces' base64 is that of the whole.
_PIECE_BYTES = 3 * 16_384
_TO_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class SourceKey:
    """A key of the FSP that a request says it is from."""

    kid: str | None
    key: VerifyingKey


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature whose protected header fits its request; whose key made it is still to be checked."""

    algorithm: str
    kid: str | None
    protected: bytes
    signature: bytes


def read_signature(method: str, path: str, headers: RequestHeaders) -> Signature:
    """What FSPIOP-Signature says, with its protected header checked against the request; raises Refusal with 3105."""
    text = headers.kept.get(HEADER)
    if text is None:
        raise _refusal("FSPIOP-Signature header is missing")
    if len(text) > SIGNATURE_BYTES_MAX:
        raise _refusal(f"FSPIOP-Signature is larger than {SIGNATURE_BYTES_MAX} bytes")
    parts = _object(text, "FSPIOP-Signature")
    encoded, signature = parts.get("protectedHeader"), parts.get("signature")
    if not isinstance(encoded, str) or not isinstance(signature, str):
        raise _refusal("FSPIOP-Signature has not both protectedHeader and signature")
    protected = _object(_decoded(encoded, "protectedHeader"), "the protected header")
    algorithm = protected.get("alg")
    if algorithm not in ALGORITHMS:
        raise _refusal(f"alg of the protected header is not {' or '.join(ALGORITHMS)}")
    if "crit" in protected:
        raise _refusal("the protected header has crit, and no extension of JWS is understood here")
    _check_request(protected, method, path, headers)
    kid = protected.get("kid")
    return Signature(
        algorithm, kid if isinstance(kid, str) else None, encoded.encode(), _decoded(signature, "signature")
    )


def require_made_by(signature: Signature, body: bytes, keys: Iterable[SourceKey]) -> None:
    """Check that one of the source's keys made the signature over this body; raises Refusal with 3105."""
    fitting = [key for key in keys if algorithm_of(key.key) == signature.algorithm]
    named = [key for key in fitting if signature.kid is not None and key.kid == signature.kid]
    if not fitting:
        raise _refusal(f"no valid {signature.algorithm} key of the source is registered")
    digest = _digest(signature.protected, body)
    if not any(_verifies(key.key, signature.signature, digest) for key in named or fitting):
        raise _refusal("the signature is not the source's over this protected header and body")


def _refusal(text: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_SIGNATURE, text)


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object without a name twice: two readers could take different ones for the signed one."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise _refusal(f"{what} has a field twice")
        return fields

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise _refusal(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise _refusal(f"{what} is not a JSON object")
    return value


def _decoded(text: str, what: str) -> bytes:
    try:
        return read_base64url(text, what)
    except UnusableKey as error:
        raise _refusal(str(error)) from None


def _check_request(protected: Mapping[str, Any], method: str, path: str, headers: RequestHeaders) -> None:
    for name in (URI, METHOD, SOURCE):
        if name not in protected:
            raise _refusal(f"{name} is missing in the protected header")
    if DESTINATION not in protected and headers.destination is not None:
        raise _refusal(f"{DESTINATION} is in the request and not in the protected header")
    for name, value in protected.items():
        header = name.lower()
        if header not in headers.kept:
            if header.startswith(_ALWAYS_KEPT):
                raise _refusal(f"{_shown(name)} is in the protected header and not in the request")
        elif value != headers.kept[header]:
            raise _refusal(f"{_shown(name)} of the protected header is not the request's")
    if protected[METHOD] != method:
        raise _refusal(f"{METHOD} is not the request's method")
    uri = protected[URI]
    if not (uri.startswith("/") and uri.endswith(path)):
        raise _refusal(f"{URI} is not the request's path")


def _shown(name: str) -> str:
    return name if name in {URI, METHOD, SOURCE, DESTINATION, DATE} else "a header"


def _digest(protected: bytes, body: bytes) -> bytes:
    """SHA-256 of the signing input, piece by piece: a large body is not held three times in memory."""
    digest = hashlib.sha256(protected + b".")
    whole = memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        piece = binascii.b2a_base64(whole[start : start + _PIECE_BYTES], newline=False)
        digest.update(piece.translate(_TO_URL_ALPHABET).rstrip(b"="))
    return digest.digest()


def _verifies(key: VerifyingKey, signature: bytes, digest: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), _PREHASHED)
        elif len(signature) == 2 * _COORDINATE_BYTES:
            r, s = signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]
            encoded = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
            key.verify(encoded, digest, ec.ECDSA(_PREHASHED))
        else:
            return False
    except InvalidSignature:
        return False
    return True


class UnusableSigningKey(ValueError):
    """The hub cannot sign with this key; the text says why."""


class Signer:
    """Signs what the hub says, with the hub's own key. The same headers and body have the same signature, always.

    RS256 is deterministic by itself, ES256 is made so with the nonces of RFC 6979. Safe for several threads.
    """

    def __init__(self, pem: bytes, kid: str | None = None) -> None:
        """`pem` is a private key without a passphrase; raises UnusableSigningKey."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UnusableSigningKey("it is no private key in PEM without a passphrase") from None
        if isinstance(key, rsa.RSAPrivateKey):
            if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
                raise UnusableSigningKey(f"it has {key.key_size} bits, not {RSA_BITS_MIN} to {RSA_BITS_MAX}")
        elif not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)):
            raise UnusableSigningKey("it is neither an RSA key nor one on P-256")
        self._key = key
        self._kid = kid
        self.algorithm = algorithm_of(key.public_key())

    def sign(self, headers: Mapping[str, str], body: bytes) -> str:
        """The value of FSPIOP-Signature for a callback with these headers, whose names are in lower case."""
        fields = {"alg": self.algorithm}
        if self._kid is not None:
            fields["kid"] = self._kid
        for name in (URI, METHOD, SOURCE, DESTINATION, DATE):
            if (value := headers.get(name.lower())) is not None:
                fields[name] = value
        protected = _encoded(orjson.dumps(fields))
        signature = _encoded(self._signature(_digest(protected, body)))
        return orjson.dumps({"signature": signature.decode(), "protectedHeader": protected.decode()}).decode()

    def _signature(self, digest: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(digest, padding.PKCS1v15(), _PREHASHED)
        encoded = self._key.sign(digest, ec.ECDSA(_PREHASHED, deterministic_signing=True))
        return b"".join(number.to_bytes(_COORDINATE_BYTES) for number in decode_dss_signature(encoded))


def canonical(body: bytes) -> bytes:
    """The body in the one form that every validator in use rebuilds from the parsed JSON: compact, its names sorted.

    The SDK's validator does not check the bytes it got, but what its serializer makes of the parsed body: compact in all
    releases, sorted in newer ones. A signature over any other form of the same JSON is refused by those clients.
    """
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
