"""A public key is read from PEM, a certificate or a JWK, and what cannot check a signature is refused by name."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from schemas.fspiop.keys import UnusableKey, read_key
from tests.fspiop.signing import key_pair


def base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rsa_jwk(key: rsa.RSAPublicKey) -> dict[str, Any]:
    numbers = key.public_numbers()
    return {"kty": "RSA", "n": base64url(numbers.n), "e": base64url(numbers.e)}


def ec_jwk(key: ec.EllipticCurvePublicKey, curve: str = "P-256") -> dict[str, Any]:
    numbers = key.public_numbers()
    return {"kty": "EC", "crv": curve, "x": base64url(numbers.x), "y": base64url(numbers.y)}


def pem(key: Any) -> str:
    text: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def certificate(private: Any, days: int) -> str:
    now = datetime.now(UTC).replace(microsecond=0)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payerfsp")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
def test_the_same_key_is_the_same_in_every_form(kind: str) -> None:
    pair = key_pair("payerfsp", kind)
    from_pem = read_key(pair.public)
    jwk = rsa_jwk(from_pem.key) if isinstance(from_pem.key, rsa.RSAPublicKey) else ec_jwk(from_pem.key)
    from_jwk = read_key({**jwk, "kid": "2026", "alg": kind, "use": "sig"})
    from_certificate = read_key(certificate(load_pem_private_key(pair.private, None), 30))
    assert from_pem.algorithm == from_jwk.algorithm == from_certificate.algorithm == kind
    assert from_pem.fingerprint == from_jwk.fingerprint == from_certificate.fingerprint
    assert (from_pem.kid, from_jwk.kid) == (None, "2026")
    assert from_certificate.valid_until is not None
    assert timedelta(days=29) < from_certificate.valid_until - datetime.now(UTC) < timedelta(days=31)


RSA_2048 = read_key(key_pair("payerfsp").public).key
P_256 = read_key(key_pair("payerfsp", "ES256").public).key
assert isinstance(RSA_2048, rsa.RSAPublicKey)
assert isinstance(P_256, ec.EllipticCurvePublicKey)
P_384 = ec.generate_private_key(ec.SECP384R1()).public_key()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("", "no public key or certificate"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key or certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no public key or certificate"),
        (key_pair("payerfsp").private.decode(), "private key"),
        (pem(rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()), "1024 bits"),
        (pem(P_384), "neither an RSA key nor one on P-256"),
        (pem(ed25519.Ed25519PrivateKey.generate().public_key()), "neither an RSA key nor one on P-256"),
        ({}, "neither an RSA key nor one on P-256"),
        ({"kty": "oct", "k": "AAAA"}, "secret"),
        ({**rsa_jwk(RSA_2048), "d": "AAAA"}, "secret"),
        ({**rsa_jwk(RSA_2048), "use": "enc"}, "not for signatures"),
        ({**rsa_jwk(RSA_2048), "alg": "RS512"}, "alg is not RS256"),
        ({**rsa_jwk(RSA_2048), "n": "AAAA"}, "0 bits"),
        ({**rsa_jwk(RSA_2048), "n": base64url(1 << 9_000)}, "9001 bits"),
        ({**rsa_jwk(RSA_2048), "e": base64url(1 << 64 | 1)}, "exponent"),
        ({**rsa_jwk(RSA_2048), "e": "Ag"}, "no valid key"),
        ({**rsa_jwk(RSA_2048), "n": "not base64url!"}, "the JWK's n is not base64url"),
        ({"kty": "RSA", "e": "AQAB"}, "has no n"),
        (ec_jwk(P_384, "P-384"), "neither an RSA key nor one on P-256"),
        (ec_jwk(P_384), "no valid key"),
        ({**ec_jwk(P_256), "y": ec_jwk(P_256)["x"]}, "no valid key"),
    ],
)
def test_what_cannot_check_a_signature_is_refused(given: str | dict[str, Any], text: str) -> None:
    with pytest.raises(UnusableKey, match=text):
        read_key(given)
