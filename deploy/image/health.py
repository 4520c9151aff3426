"""A container's health check: `health.py URL` asks once, and exits with 1 and the answer unless it is 200."""

import sys
import urllib.error
import urllib.request

_WAIT_S = 4


def trouble_at(url: str) -> str:
    """What is wrong, empty when nothing is."""
    # A proxy in the environment has no say about the container itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_WAIT_S) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}: {error.read(2_000).decode(errors='replace')}"
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(trouble_at(sys.argv[1]) or 0)
