"""The FSPIOP resource /bulkTransfers.

app       the routes: what each request is checked for, kept as, published as, answered with
limits    every limit of the edge, with its unit in its name
intake    keeps a checked request and publishes its record; health of both
"""
