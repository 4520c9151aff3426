"""FSPIOP-Signature: what is signed and sent is accepted, and every way to bend it is refused with 3105."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from schemas.fspiop.bodies import parse_post
from schemas.fspiop.errors import Refusal
from schemas.fspiop.keys import read_key
from schemas.fspiop.signatures import (
    SIGNATURE_BYTES_MAX,
    Signer,
    SourceKey,
    UnusableSigningKey,
    canonical,
    read_signature,
    require_made_by,
)
from tests.fspiop.requests import BULK_ID, headers, post_body
from tests.fspiop.signing import KeyPair, key_pair, request_headers, signed

BODY = orjson.dumps(post_body())
PATH = f"/bulkTransfers/{BULK_ID}"
KINDS = ["RS256", "ES256"]


def verify(
    method: str, path: str, values: Mapping[str, str], body: bytes, *keys: KeyPair, kids: tuple[str | None, ...] = ()
) -> None:
    given = kids or (None,) * len(keys)
    source_keys = [SourceKey(kid, read_key(key.public).key) for key, kid in zip(keys, given, strict=True)]
    require_made_by(read_signature(method, path, request_headers(method, values)), body, source_keys)


def refusal_of(method: str, path: str, values: Mapping[str, str], body: bytes, *keys: KeyPair) -> str:
    with pytest.raises(Refusal) as refused:
        verify(method, path, values, body, *keys)
    assert (refused.value.error.code, refused.value.http_status) == ("3105", 400)
    assert len(refused.value.error.description) < 128, "no text is cut"
    return refused.value.error.description


def resigned(values: Mapping[str, str], key: KeyPair, **changes: Any) -> dict[str, str]:
    """A valid signature over a protected header with these changes; `...` takes a field out."""
    protected = json.loads(base64.urlsafe_b64decode(json.loads(values["fspiop-signature"])["protectedHeader"] + "=="))
    for name, value in changes.items():
        protected[name.replace("_", "-")] = value
    protected = {name: value for name, value in protected.items() if value is not ...}
    return {**values, "fspiop-signature": raw_signature(json.dumps(protected), key)}


def raw_signature(protected: str, key: KeyPair, body: bytes = BODY) -> str:
    encoded = base64.urlsafe_b64encode(protected.encode()).rstrip(b"=").decode()
    payload = base64.urlsafe_b64encode(body).rstrip(b"=").decode()
    private: Any = serialization.load_pem_private_key(key.private, password=None)
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    signature = private.sign(f"{encoded}.{payload}".encode(), padding.PKCS1v15(), hashes.SHA256())
    text = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return json.dumps({"signature": text, "protectedHeader": encoded})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/bulkTransfers", BODY), ("PUT", PATH, b"{}"), ("PUT", f"{PATH}/error", b"{}"), ("GET", PATH, b"")],
)
def test_what_is_signed_is_accepted_and_not_under_another_key(kind: str, method: str, path: str, body: bytes) -> None:
    own, other = key_pair("payerfsp", kind), key_pair("otherfsp", kind)
    values = signed(own.signer, method, path, body)
    verify(method, path, values, body, own)
    verify(method, path, values, body, other, own)
    assert "is not the source's" in refusal_of(method, path, values, body, other)
    assert f"no valid {kind} key" in refusal_of(method, path, values, body)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_message_has_the_same_signature(kind: str) -> None:
    # an attempt that is repeated has the same bytes; ES256 is deterministic by RFC 6979.
    signer = key_pair("payerfsp", kind).signer
    assert len({signer.sign(headers(fspiop_uri="/bulkTransfers"), BODY) for _ in range(5)}) == 1


@pytest.mark.parametrize("kind", KINDS)
@given(position=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7))
def test_no_bit_of_the_body_can_be_changed(kind: str, position: int, bit: int) -> None:
    own = key_pair("payerfsp", kind)
    changed = bytearray(BODY)
    changed[position] ^= 1 << bit
    values = signed(own.signer, "POST", "/bulkTransfers", BODY)
    refusal_of("POST", "/bulkTransfers", values, bytes(changed), own)


@given(st.binary(max_size=200_000))
def test_any_body_is_hashed_as_its_base64url(body: bytes) -> None:
    own = key_pair("payerfsp")
    values = signed(own.signer, "POST", "/bulkTransfers", body)
    protected = json.loads(values["fspiop-signature"])["protectedHeader"]
    text = base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)).decode()
    assert json.loads(values["fspiop-signature"]) == json.loads(raw_signature(text, own, body))


# What is changed in the protected header, by its owner, and the word of the refusal.
PROTECTED: list[tuple[dict[str, Any], str]] = [
    ({"alg": "none"}, "alg"),
    ({"alg": "HS256"}, "alg"),
    ({"alg": "RS512"}, "alg"),
    ({"alg": "PS256"}, "alg"),
    ({"alg": ["RS256"]}, "alg"),
    ({"alg": ...}, "alg"),
    ({"crit": ["b64"], "b64": False}, "crit"),
    ({"crit": []}, "crit"),
    ({"FSPIOP_URI": ...}, "FSPIOP-URI is missing"),
    ({"FSPIOP_HTTP_Method": ...}, "FSPIOP-HTTP-Method is missing"),
    ({"FSPIOP_Source": ...}, "FSPIOP-Source is missing"),
    ({"FSPIOP_Destination": ...}, "FSPIOP-Destination is in the request"),
    ({"FSPIOP_URI": "/transfers"}, "FSPIOP-URI of the protected header"),
    ({"FSPIOP_HTTP_Method": "PUT"}, "FSPIOP-HTTP-Method of the protected header"),
    ({"FSPIOP_Source": "otherfsp"}, "FSPIOP-Source of the protected header"),
    ({"FSPIOP_Source": None}, "FSPIOP-Source of the protected header"),
    ({"FSPIOP_Destination": "otherfsp"}, "FSPIOP-Destination of the protected header"),
    ({"Date": "Tue, 15 Nov 1994 08:12:32 GMT"}, "Date of the protected header"),
    ({"FSPIOP_Encryption": "x"}, "is in the protected header and not in the request"),
    ({"fspiop_source": "otherfsp"}, "a header of the protected header is not the request's"),
    ({"Content_Type": "application/json"}, "a header of the protected header is not the request's"),
]


@pytest.mark.parametrize(("changes", "text"), PROTECTED)
def test_a_protected_header_that_is_not_the_requests_is_refused(changes: dict[str, Any], text: str) -> None:
    own = key_pair("payerfsp")
    values = resigned(signed(own.signer, "POST", "/bulkTransfers", BODY), own, **changes)
    assert text in refusal_of("POST", "/bulkTransfers", values, BODY, own)


def test_what_else_a_sender_protects_may_stand_there() -> None:
    own = key_pair("payerfsp")
    values = signed(own.signer, "POST", "/bulkTransfers", BODY)
    for changes in ({"Date": ...}, {"typ": "JOSE"}, {"X_Custom": 1}, {"Content_Type": values["content-type"]}):
        verify("POST", "/bulkTransfers", resigned(values, own, **changes), BODY, own)


# The request is another one than was signed: the method, the path, the headers beside the signature.
@pytest.mark.parametrize(
    ("method", "path", "changes", "text"),
    [
        ("PUT", PATH, {"fspiop-uri": f"{PATH}/error"}, "FSPIOP-URI of"),
        ("PUT", f"{PATH}/error", {}, "FSPIOP-URI is not the request's path"),
        ("PUT", PATH.replace("b5", "b6"), {}, "FSPIOP-URI is not the request's path"),
        ("POST", PATH, {}, "FSPIOP-HTTP-Method is not the request's method"),
        ("PUT", PATH, {"fspiop-source": "otherfsp"}, "FSPIOP-Source of"),
        ("PUT", PATH, {"fspiop-destination": "otherfsp"}, "FSPIOP-Destination of"),
        ("PUT", PATH, {"fspiop-destination": ""}, "FSPIOP-Destination is in the protected header and not in"),
        ("PUT", PATH, {"fspiop-uri": ""}, "FSPIOP-URI is in the protected header and not in"),
        ("PUT", PATH, {"fspiop-http-method": ""}, "FSPIOP-HTTP-Method is in the protected header and not in"),
        ("PUT", PATH, {"date": "Tue, 15 Nov 1994 08:12:30 GMT"}, "Date of"),
    ],
)
def test_a_signature_holds_for_its_own_request_only(method: str, path: str, changes: dict[str, str], text: str) -> None:
    own = key_pair("payerfsp")
    values = {**signed(own.signer, "PUT", PATH, b"{}"), "accept": headers()["accept"], **changes}
    sent = {name: value for name, value in values.items() if value}
    assert text in refusal_of(method, path, sent, b"{}", own)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"signature":"AA"}',
        '{"signature":1,"protectedHeader":"e30"}',
        '{"signature":"AA","protectedHeader":"e30="}',
        '{"signature":"AA","protectedHeader":"e3 0"}',
        '{"signature":"AA","protectedHeader":"e"}',
        '{"signature":"AA","protectedHeader":"W10"}',
        '{"signature":"AA","protectedHeader":"e30","protectedHeader":"e30"}',
        "[" * 4_000,
        "9" * 5_000,
        '{"signature":"' + "A" * SIGNATURE_BYTES_MAX + '"}',
    ],
)
def test_a_header_that_is_no_signature_is_refused(value: str) -> None:
    refusal_of("PUT", PATH, headers("PUT", fspiop_signature=value), b"{}", key_pair("payerfsp"))


def test_a_field_that_stands_twice_in_the_protected_header_is_refused() -> None:
    own = key_pair("payerfsp")
    protected = (
        '{"alg":"RS256","FSPIOP-URI":"/bulkTransfers","FSPIOP-HTTP-Method":"POST","FSPIOP-Source":"otherfsp",'
        '"FSPIOP-Source":"payerfsp","FSPIOP-Destination":"payeefsp"}'
    )
    values = {**signed(own.signer, "POST", "/bulkTransfers", BODY), "fspiop-signature": raw_signature(protected, own)}
    assert "twice" in refusal_of("POST", "/bulkTransfers", values, BODY, own)


def test_an_algorithm_that_is_not_the_keys_is_refused() -> None:
    # The classic: a signature that names another algorithm than the key was registered for.
    elliptic, own = key_pair("payerfsp", "ES256"), key_pair("payerfsp")
    values = signed(elliptic.signer, "POST", "/bulkTransfers", BODY)
    assert "no valid ES256 key" in refusal_of("POST", "/bulkTransfers", values, BODY, own)


@pytest.mark.parametrize("size", [0, 1, 63, 65, 72])
def test_an_es256_signature_of_another_length_is_refused(size: int) -> None:
    own = key_pair("payerfsp", "ES256")
    values = signed(own.signer, "POST", "/bulkTransfers", BODY)
    parts = json.loads(values["fspiop-signature"])
    parts["signature"] = base64.urlsafe_b64encode(bytes(size)).rstrip(b"=").decode()
    refusal_of("POST", "/bulkTransfers", {**values, "fspiop-signature": json.dumps(parts)}, BODY, own)


def test_a_path_before_the_service_is_its_gateways_and_nothing_else_is() -> None:
    own = key_pair("payerfsp")
    for uri in ("/bulkTransfers", "/switch/bulkTransfers", "/a/b/bulkTransfers"):
        values = signed(own.signer, "POST", "/bulkTransfers", BODY, fspiop_uri=uri)
        verify("POST", "/bulkTransfers", values, BODY, own)
    for uri in (
        "bulkTransfers",
        "/xbulkTransfers",
        "http://hub/bulkTransfers",
        "/bulkTransfers?x=1",
        "/bulkTransfers/",
    ):
        values = signed(own.signer, "POST", "/bulkTransfers", BODY, fspiop_uri=uri)
        assert "FSPIOP-URI" in refusal_of("POST", "/bulkTransfers", values, BODY, own)


def test_the_key_that_kid_names_is_the_one_and_an_unknown_kid_is_any() -> None:
    first, second = key_pair("first"), key_pair("second")
    values = signed(Signer(first.private, kid="2026"), "POST", "/bulkTransfers", BODY)
    for kids in (("2026", "2027"), ("2025", "2027"), (None, None)):
        verify("POST", "/bulkTransfers", values, BODY, first, second, kids=kids)
    with pytest.raises(Refusal, match="3105"):
        verify("POST", "/bulkTransfers", values, BODY, first, second, kids=("2025", "2026"))


def test_the_hub_signs_with_no_key_that_others_would_refuse() -> None:
    def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    for wrong in (
        pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        pem(ec.generate_private_key(ec.SECP384R1())),
        key_pair("payerfsp").public.encode(),
        b"",
    ):
        with pytest.raises(UnusableSigningKey):
            Signer(wrong)
    assert Signer(pem(ec.generate_private_key(ec.SECP256R1()))).algorithm == "ES256"


def test_a_canonical_body_says_the_same_and_is_what_the_sdk_rebuilds() -> None:
    body = b'{ "b": {"y": "\\u00e9", "x": []},\n "a": "1" }'
    assert canonical(body) == '{"a":"1","b":{"x":[],"y":"é"}}'.encode()
    assert canonical(canonical(BODY)) == canonical(BODY)
    assert json.loads(canonical(BODY)) == json.loads(BODY)


def test_checking_a_bulk_of_a_thousand_costs_less_than_reading_it() -> None:
    own = key_pair("payerfsp")
    body = orjson.dumps(post_body(1_000))
    values = signed(own.signer, "POST", "/bulkTransfers", body)

    def best_of_5(work: Any) -> float:
        times = []
        for _ in range(5):
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
        return min(times)

    check = best_of_5(lambda: verify("POST", "/bulkTransfers", values, body, own))
    parse = best_of_5(lambda: parse_post(body, 1_000))
    print(f"{len(body)} bytes: check {check * 1000:.2f} ms, parse {parse * 1000:.2f} ms, ratio {check / parse:.2f}")
    assert check < parse, "a ratio within one run, of this thread's own time"
