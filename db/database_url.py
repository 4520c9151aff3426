"""The database's URL, taken apart without connecting: what it may look like, and where its password stands.

The form is `postgresql://[user[:password]@][host[:port]]/[database][?name=value&…]`, with whatever libpq understands
after the question mark. What else there is to say about a wrong one is said without repeating it: it may hold a password
in an unexpected place.
"""

import re
from urllib.parse import parse_qsl, unquote, urlencode

_FORM = "must be postgresql://[user[:password]@]host[:port]/database[?sslmode=…]"
_URL = re.compile(
    r"(?P<scheme>postgresql(?:\+psycopg)?|postgres)://"
    r"(?:(?P<user>[^:/@?]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^\]/@?]+\]|[^:/@?\[\]]*)(?P<port>:\d*)?"
    r"(?P<path>/[^?@/]*)?(?:\?(?P<query>[^#@]*(?:@[^#]*)?))?"
)
_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# The names of libpq for files that must be there; `system` means the machine's own authorities.
TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


class WrongDatabaseUrl(ValueError):
    """The text says what is wrong, and repeats nothing of the URL."""


def split_password(url: str) -> tuple[str, str]:
    """The URL without its password, and the password, empty when there is none. Raises WrongDatabaseUrl."""
    match = _URL.fullmatch(url)
    if match is None:
        raise WrongDatabaseUrl(f"{_FORM}, with %40 for an @, %2F for a / and %3A for a : in user and password")
    names = _query_of(match["query"])
    if "sslpassword" in dict(names):
        raise WrongDatabaseUrl("sslpassword is not taken; give a key without a passphrase, readable by its user alone")
    in_query = [value for name, value in names if name == "password"]
    passwords = [*([unquote(match["password"])] if match["password"] else []), *in_query]
    if not passwords:
        return url, ""
    user = match["user"] or ""
    rest = [(name, value) for name, value in names if name != "password"]
    query = f"?{urlencode(rest, safe='/:,')}" if rest else ""
    place = f"{match['host']}{match['port'] or ''}{match['path'] or ''}"
    return f"{match['scheme']}://{user + '@' if user else ''}{place}{query}", passwords[-1]


def tls_files(url: str) -> dict[str, str]:
    """The files that the URL names for TLS, by libpq's names; raises WrongDatabaseUrl for a mode that is none."""
    names = dict(_query_of(url.partition("?")[2]))
    mode = names.get("sslmode", "prefer")
    if mode not in _TLS_MODES:
        raise WrongDatabaseUrl(f"sslmode must be one of {', '.join(_TLS_MODES)}")
    return {name: names[name] for name in TLS_FILES if names.get(name) and names[name] != "system"}


def _query_of(query: str | None) -> list[tuple[str, str]]:
    return parse_qsl(query or "", keep_blank_values=True)
