"""Keys and signed requests for tests: what an FSP holds, and what it sends with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from schemas.fspiop.headers import RequestHeaders, check_headers
from schemas.fspiop.signatures import Signer
from tests.fspiop.requests import headers


@dataclass(frozen=True)
class KeyPair:
    """A key pair in PEM; the private part in the form of its kind that the SDK tells apart (SEC 1, PKCS 1)."""

    private: bytes
    public: str

    @property
    def signer(self) -> Signer:
        return Signer(self.private)


@cache
def key_pair(name: str, kind: str = "RS256") -> KeyPair:
    """The key pair of this name, the same each time within a test process."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if kind == "RS256":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    return KeyPair(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )


def signed(signer: Signer, method: str, path: str, body: bytes, **changes: str | None) -> dict[str, str]:
    """The headers of a request that its source has signed; `changes` are made before it signs."""
    values = headers(method, **{"fspiop_uri": path, "fspiop_http_method": method, **changes})
    return {**values, "fspiop-signature": signer.sign(values, body)}


def request_headers(method: str, values: Mapping[str, str]) -> RequestHeaders:
    return check_headers(method, list(values.items()))
