"""What has ended was told: one final callback per side, and nobody was told an end that has not come.

A callback is written a moment after the end, by another handler: what ended less than `settled_ms` ago may still be on its
way, and what ended before the horizon of retention may be gone again.
"""

from db.verification.check import Check
from db.verification.states import CURRENT_BULK_STATE, CURRENT_TRANSFER_STATE

_SETTLED = """
    {at} < now() - CAST(:settled_ms AS bigint) * interval '1 millisecond'
    AND {at} >= coalesce((SELECT horizon FROM retention_horizon WHERE kind = 'callbacks'), '-infinity')
"""

CALLBACKS = (
    Check(
        "bulk-final-callbacks",
        "an ended bulk has a final callback for its payer, and for its payee if it was ever ACCEPTED; no other bulk has one",
        f"""
        SELECT 'bulk ' || b.bulk_transfer_id,
               CASE WHEN d.delivery_id IS NULL THEN 'the final callback of ' || side.fsp || ' is missing'
                    ELSE side.fsp || ' was told an end that has not come' END
        FROM bulk_transfer b
        JOIN ({CURRENT_BULK_STATE}) AS c ON c.bulk_key = b.bulk_key
        CROSS JOIN LATERAL (
            SELECT b.payer_fsp, c.to_state = ANY(:final_bulk)
            UNION ALL
            SELECT b.payee_fsp, c.to_state = ANY(:final_bulk) AND EXISTS (
                SELECT FROM bulk_transfer_state_change s WHERE s.bulk_key = b.bulk_key AND s.to_state = 'ACCEPTED')
            -- A bulk may have been refused because its payee was its payer, or nobody.
            WHERE b.payee_fsp <> b.payer_fsp
        ) AS side(fsp, is_told)
        LEFT JOIN delivery d ON d.resource = 'bulkTransfers' AND d.entity_id = b.bulk_transfer_id
             AND d.fsp = side.fsp AND d.kind = 'FINAL'
        WHERE (d.delivery_id IS NULL AND side.is_told AND {_SETTLED.format(at="c.created_date")})
           OR (d.delivery_id IS NOT NULL AND NOT side.is_told)
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "single-final-callbacks",
        "an ended single transfer has a final callback for its payer, and for its payee if that has to be told the end",
        f"""
        SELECT 'transfer ' || t.transfer_id,
               CASE WHEN d.delivery_id IS NULL THEN 'the final callback of ' || side.fsp || ' is missing'
                    ELSE side.fsp || ' was told an end that has not come, or is not told of it' END
        FROM single_transfer x
        JOIN transfer t ON t.transfer_key = x.transfer_key
        JOIN ({CURRENT_TRANSFER_STATE}) AS c ON c.transfer_key = x.transfer_key
        CROSS JOIN LATERAL (
            SELECT x.payer_fsp, c.to_state = ANY(:final_transfer)
            UNION ALL
            -- The payee answered RESERVED, or the transfer was taken back from it when its time was over.
            SELECT x.payee_fsp, c.to_state = 'EXPIRED_RESERVED' OR (
                c.to_state IN ('COMMITTED', 'ABORTED_ERROR') AND c.reason IN ('reserve', 'reserved-aborted'))
            WHERE x.payee_fsp <> x.payer_fsp
        ) AS side(fsp, is_told)
        LEFT JOIN delivery d ON d.resource = 'transfers' AND d.entity_id = t.transfer_id
             AND d.fsp = side.fsp AND d.kind = 'FINAL'
        WHERE (d.delivery_id IS NULL AND side.is_told AND {_SETTLED.format(at="c.created_date")})
           OR (d.delivery_id IS NOT NULL AND NOT side.is_told)
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "forwards",
        "only what was reserved was forwarded to its payee",
        """
        SELECT 'callback ' || d.delivery_id, d.resource || ' ' || d.entity_id || ' was forwarded, and never ready for it'
        FROM delivery d
        LEFT JOIN bulk_transfer b ON d.resource = 'bulkTransfers' AND b.bulk_transfer_id = d.entity_id
        LEFT JOIN transfer t ON d.resource = 'transfers' AND t.transfer_id = d.entity_id
        WHERE d.kind = 'FORWARD'
          AND NOT EXISTS (SELECT FROM bulk_transfer_state_change s
                          WHERE s.bulk_key = b.bulk_key AND s.to_state = 'ACCEPTED')
          AND NOT EXISTS (SELECT FROM transfer_state_change s
                          WHERE s.transfer_key = t.transfer_key AND s.to_state = 'RESERVED')
        """,
    ),
)
