"""Every currency that FSPIOP may send is known, with the decimals that ISO 4217 gives it (X-28)."""

import yaml
from sqlalchemy import Engine, select

from db import tables
from db.currencies import CURRENCIES, CURRENCY_SCALES
from schemas.fspiop.currencies import CURRENCY_CODES
from tests.fspiop_document import DOCUMENT, requires_document

NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
# Two have four decimals; the others have no smallest unit, and FSPIOP's own four decimals stand in for it.
FOUR_DECIMALS = "CLF UYW XBA XBB XBC XBD XDR XSU XTS XUA XXX"


@requires_document
def test_every_currency_of_the_fspiop_document_is_known() -> None:
    document = yaml.safe_load(DOCUMENT.read_text())
    wanted = set(document["components"]["schemas"]["Currency"]["enum"])
    assert len(wanted) == 162
    assert wanted <= set(CURRENCY_SCALES)


def test_every_currency_that_the_edge_lets_in_is_known() -> None:
    assert set(CURRENCY_CODES) <= set(CURRENCY_SCALES)


def test_each_code_stands_once_and_in_order() -> None:
    codes = [code for code, _, _ in CURRENCIES]
    assert codes == sorted(set(codes))
    assert all(len(code) == 3 and code.isupper() and name.strip() == name != "" for code, name, _ in CURRENCIES)


def test_the_decimals_are_those_of_iso_4217() -> None:
    by_scale = {scale: {code for code, of in CURRENCY_SCALES.items() if of == scale} for scale in range(5)}
    assert by_scale[0] == set(NO_DECIMALS.split())
    assert by_scale[1] == set()
    assert by_scale[3] == set(THREE_DECIMALS.split())
    assert by_scale[4] == set(FOUR_DECIMALS.split())
    assert {"USD", "EUR", "BGN", "INR", "MGA", "MRU", "AED", "ZWG", "XCG"} <= by_scale[2]


def test_the_database_knows_them_from_the_start(engine: Engine) -> None:  # reference §11.10
    with engine.connect() as connection:
        rows = connection.execute(select(tables.currency)).all()
    assert sorted((row.currency_id, row.name, row.scale) for row in rows) == list(CURRENCIES)
