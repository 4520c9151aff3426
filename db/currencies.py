"""ISO 4217: every currency in use, with the number of decimals of its smallest unit (BULK-129's sibling X-28)."""

# (code, name, decimals); XXX and XTS are the codes for "no currency" and for tests.
CURRENCIES: tuple[tuple[str, str, int], ...] = (
    ("BGN", "Bulgarian Lev", 2),
    ("USD", "US Dollar", 2),
    ("XXX", "No currency", 0),
)
