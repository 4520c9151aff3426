"""The FSPIOP resources /bulkTransfers and /transfers.

app             the routes, and the order of checks
reception       the way that every request takes: a place, its headers, its id, its body, its signature
bulk_transfers  what is asked of /bulkTransfers, and the message it becomes
transfers       what is asked of /transfers, and the message it becomes
in_flight       how much each payer, and all of them together, may have in flight
circuit         what is done about a part that is away
retry_after     when a sender that is told to come again should come
intake          keeps a checked request and publishes its record; health of both
authority       whether a request was signed by its source
key_cache       the keys that authority checks with
limits          every limit of the edge, with its unit in its name
"""
