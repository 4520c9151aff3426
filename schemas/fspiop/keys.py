"""Public keys of FSPs, in the forms in which operators get them: PEM, an X.509 certificate in PEM, or a JWK.

Taken are RSA keys of 2,048 to 8,192 bits, which sign with RS256, and keys on P-256, which sign with ES256; the algorithm is
the key's, and a signature that names the other one does not fit it. A private key is refused with a word to its owner. Of
a certificate only the key and the validity are read: who may be trusted is what the operator says by registering it.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

RS256: Final = "RS256"
ES256: Final = "ES256"
ALGORITHMS: Final = (RS256, ES256)

RSA_BITS_MIN: Final = 2_048
# Larger keys make a check slow, and nobody needs them.
RSA_BITS_MAX: Final = 8_192
_RSA_EXPONENT_BITS_MAX = 32

_P256_BYTES = 32
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

VerifyingKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class UnusableKey(ValueError):
    """What was given is no public key that can check a signature; the text says why."""


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A key as it was given. `kid` and the validity are those of the JWK or the certificate, where it had some."""

    key: VerifyingKey
    kid: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    @property
    def algorithm(self) -> str:
        return algorithm_of(self.key)

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo: the same key has the same bytes, in whatever form it came."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


def algorithm_of(key: VerifyingKey) -> str:
    return RS256 if isinstance(key, rsa.RSAPublicKey) else ES256


def read_key(given: str | Mapping[str, Any]) -> GivenKey:
    """A key from PEM text or from the object of a JWK; raises UnusableKey."""
    if not isinstance(given, str):
        return _from_jwk(given)
    if "PRIVATE KEY" in given:
        raise UnusableKey("this is a private key: keep it, and register the public key that belongs to it")
    try:
        if "BEGIN CERTIFICATE" in given:
            return _from_certificate(x509.load_pem_x509_certificate(given.encode()))
        return GivenKey(_checked(load_pem_public_key(given.encode())))
    except UnusableKey:
        raise
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey("this is no public key or certificate in PEM") from None


def _from_certificate(certificate: x509.Certificate) -> GivenKey:
    return GivenKey(
        _checked(certificate.public_key()),
        valid_from=certificate.not_valid_before_utc,
        valid_until=certificate.not_valid_after_utc,
    )


def _from_jwk(jwk: Mapping[str, Any]) -> GivenKey:
    if any(name in jwk for name in ("d", "p", "q", "k")):
        raise UnusableKey("the JWK holds a secret: keep it, and register the public key that belongs to it")
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("the JWK is not for signatures")
    if jwk.get("kty") == "RSA":
        numbers = rsa.RSAPublicNumbers(e=_integer(jwk, "e"), n=_integer(jwk, "n"))
    elif jwk.get("kty") == "EC" and jwk.get("crv") == "P-256":
        return _jwk_key(jwk, _point(jwk))
    else:
        raise UnusableKey("the JWK is neither an RSA key nor one on P-256")
    # Before the library builds it: a modulus of any length would be worked on.
    _require_rsa(numbers)
    return _jwk_key(jwk, numbers)


def _point(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicNumbers:
    return ec.EllipticCurvePublicNumbers(_integer(jwk, "x"), _integer(jwk, "y"), ec.SECP256R1())


def _jwk_key(jwk: Mapping[str, Any], numbers: rsa.RSAPublicNumbers | ec.EllipticCurvePublicNumbers) -> GivenKey:
    try:
        key = _checked(numbers.public_key())
    except UnusableKey:
        raise
    except ValueError:
        raise UnusableKey("the JWK is no valid key") from None
    if jwk.get("alg", algorithm_of(key)) != algorithm_of(key):
        raise UnusableKey(f"the JWK's alg is not {algorithm_of(key)}")
    kid = jwk.get("kid")
    return GivenKey(key, kid=kid if isinstance(kid, str) else None)


def _integer(jwk: Mapping[str, Any], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise UnusableKey(f"the JWK has no {name}")
    return int.from_bytes(read_base64url(value.rstrip("="), f"the JWK's {name}"))


def read_base64url(text: str, what: str) -> bytes:
    """The bytes; raises UnusableKey naming `what`."""
    try:
        if _BASE64URL.fullmatch(text) is None:
            raise UnusableKey(f"{what} is not base64url")
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise UnusableKey(f"{what} is not base64url") from None


def _checked(key: object) -> VerifyingKey:
    if isinstance(key, rsa.RSAPublicKey):
        _require_rsa(key.public_numbers())
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise UnusableKey("the key is neither an RSA key nor one on P-256")


def _require_rsa(numbers: rsa.RSAPublicNumbers) -> None:
    bits = numbers.n.bit_length()
    if not RSA_BITS_MIN <= bits <= RSA_BITS_MAX:
        raise UnusableKey(f"the RSA key has {bits} bits, not {RSA_BITS_MIN} to {RSA_BITS_MAX}")
    if numbers.e.bit_length() > _RSA_EXPONENT_BITS_MAX:
        raise UnusableKey("the RSA key's exponent is too large")
