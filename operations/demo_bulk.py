"""The demo's bulk: seed 002's own example (BULK-09), with reasons that one meets in life.

A thousand salaries are sent. The switch can reserve 900 of them: 40 are in a currency in which the payer has no account,
30 would take its position past its limit, 30 are more than it has ever brought in. The payee commits the first 800 and
refuses the last 100. The three kinds are refused whatever the order in which items reach the position handler: a mistyped
salary is larger than what the limit, or the cover, leaves when nothing at all is reserved.
"""

from dataclasses import dataclass

from domain.money import format_amount, parse_amount

PAYER_FSP = "payerfsp"
PAYEE_FSP = "payeefsp"
CURRENCY = "USD"
CURRENCY_WITHOUT_ACCOUNT = "EUR"

ITEMS = 1_000
COMMITTED = 800
ABORTED = 100
REFUSED = 100

# What the payer may owe, and what it has brought in, above where it stands when the demo begins.
NET_DEBIT_CAP = parse_amount("1500000")
COVER = parse_amount("5000000")

_REFUSED_EVERY = 10
_OVER_THE_LIMIT = "1600000"
_OVER_THE_COVER = "6000000"


@dataclass(frozen=True, slots=True)
class Salaries:
    """Amount and currency of each item, in the order of the request."""

    amounts: list[str]
    currencies: list[str]


def salaries() -> Salaries:
    """A thousand of them; every tenth is one that the switch refuses."""
    amounts, currencies = [], []
    for number in range(ITEMS):
        amount, currency = format_amount(parse_amount("900") + (number * 7_919 % 60_000) * 100), CURRENCY
        if number % _REFUSED_EVERY == _REFUSED_EVERY - 1:
            kind = number // _REFUSED_EVERY % _REFUSED_EVERY
            if kind < 4:
                currency = CURRENCY_WITHOUT_ACCOUNT
            else:
                amount = _OVER_THE_LIMIT if kind < 7 else _OVER_THE_COVER
        amounts.append(amount)
        currencies.append(currency)
    return Salaries(amounts, currencies)
