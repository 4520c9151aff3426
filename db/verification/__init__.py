"""What must hold of all rows together, proven on a live database; `bulk-switch verify` runs it (operations/verification.py).

    check       what a check is, and running one
    keys        every reference between rows that no foreign key declares
    states      every history is a path of its machine, and bulk, item and transfer agree
    positions   every position is what its transfers' steps say, in an order the records prove, and within its limits
    callbacks   what has ended was told, once per side

Each check is one set-based statement over the whole database (hash joins and sorts that spill to disk), which finds what is
broken and nothing else; all of them see one snapshot.
"""
