"""Every history is a path of its machine in domain/states.py, and what stands in several places agrees.

A history is a path when every step is one that the machine allows, exactly one begins at the start, and every state that is
left was entered: a state is left once (the key), and no machine has a cycle, so nothing can stand beside the path.
"""

from db.verification.check import Check


def _history(name: str, of: str, table: str, key: str, label: str, steps: str) -> tuple[Check, Check]:
    """The two checks of one machine's history; `label` makes a subject of a step's key."""
    return (
        Check(
            f"{name}-steps",
            f"every step of {of} is one that its machine allows",
            f"""
            SELECT {label}, 'from ' || s.from_state || ' to ' || s.to_state || ' is no step of its machine'
            FROM {table} s
            LEFT JOIN json_to_recordset(CAST(:{steps} AS json)) AS allowed(from_state text, to_state text)
                 USING (from_state, to_state)
            WHERE allowed.from_state IS NULL
            """,  # noqa: S608 - names of ours
        ),
        Check(
            f"{name}-history",
            f"the steps of {of} follow each other without a gap, from one start",
            f"""
            SELECT {label}, 'it left ' || s.from_state || ' without ever coming to it'
            FROM {table} s
            LEFT JOIN {table} before ON before.{key} = s.{key} AND before.to_state = s.from_state
            WHERE s.from_state <> '-' AND before.{key} IS NULL
            """,  # noqa: S608 - names of ours
        ),
    )


# What an item's state says about its transfer: the states that it may be in, '-' where there may be none.
_ITEM_AND_TRANSFER = """
    (VALUES
        ('RECEIVED', '{-,RECEIVED_PREPARE,INVALID,RESERVED,ABORTED_REJECTED,EXPIRED_PREPARED,RESERVED_TIMEOUT,
                       EXPIRED_RESERVED}'),
        ('RECEIVED_DUPLICATE', '{-}'),
        ('RECEIVED_INVALID', '{-,INVALID,ABORTED_REJECTED}'),
        ('ACCEPTED', '{RESERVED,RECEIVED_FULFIL,RECEIVED_ERROR,RESERVED_TIMEOUT,COMMITTED,ABORTED_ERROR,EXPIRED_RESERVED}'),
        ('COMPLETED', '{COMMITTED}'),
        ('REJECTED', '{ABORTED_ERROR}'),
        ('FULFIL_INVALID', '{ABORTED_ERROR}'),
        ('FULFIL_DUPLICATE', '{COMMITTED,ABORTED_ERROR,EXPIRED_RESERVED}'),
        ('EXPIRED', '{-,EXPIRED_PREPARED,EXPIRED_RESERVED}')
    ) AS agreeing(item_state, transfer_states)
"""

CURRENT_TRANSFER_STATE = """
    SELECT s.transfer_key, s.to_state, s.reason, s.created_date FROM transfer_state_change s
    LEFT JOIN transfer_state_change n ON n.transfer_key = s.transfer_key AND n.from_state = s.to_state
    WHERE n.transfer_key IS NULL
"""
CURRENT_BULK_STATE = """
    SELECT s.bulk_key, s.to_state, s.created_date FROM bulk_transfer_state_change s
    LEFT JOIN bulk_transfer_state_change n ON n.bulk_key = s.bulk_key AND n.from_state = s.to_state
    WHERE n.bulk_key IS NULL
"""

STATES = (
    *_history(
        "transfer",
        "transfers",
        "transfer_state_change",
        "transfer_key",
        "'transfer with key ' || s.transfer_key",
        "transfer_steps",
    ),
    *_history(
        "bulk",
        "bulks",
        "bulk_transfer_state_change",
        "bulk_key",
        "(SELECT 'bulk ' || bulk_transfer_id FROM bulk_transfer b WHERE b.bulk_key = s.bulk_key)",
        "bulk_steps",
    ),
    *_history(
        "funds",
        "funds in and out",
        "funds_transfer_state_change",
        "transfer_id",
        "'funds ' || s.transfer_id",
        "funds_steps",
    ),
    Check(
        "histories-begin",
        "every bulk, transfer and movement of funds has a history, and it has a beginning",
        """
        SELECT 'bulk ' || b.bulk_transfer_id, 'no step leads into its first state' FROM bulk_transfer b
        LEFT JOIN bulk_transfer_state_change s ON s.bulk_key = b.bulk_key AND s.from_state = '-'
        WHERE s.bulk_key IS NULL
        UNION ALL
        SELECT 'transfer ' || t.transfer_id, 'no step leads into its first state' FROM transfer t
        LEFT JOIN transfer_state_change s ON s.transfer_key = t.transfer_key AND s.from_state = '-'
        WHERE s.transfer_key IS NULL
        UNION ALL
        SELECT 'funds ' || f.transfer_id, 'no step leads into its first state' FROM funds_transfer f
        LEFT JOIN funds_transfer_state_change s ON s.transfer_id = f.transfer_id AND s.from_state = '-'
        WHERE s.transfer_id IS NULL
        """,
    ),
    Check(
        "item-transfer-states",
        "the state of an item is one that its transfer's state leads to",
        f"""
        SELECT 'item ' || a.transfer_id,
               'it is ' || a.bulk_processing_state || ', and its transfer ' || coalesce('is ' || c.to_state, 'is not there')
        FROM bulk_transfer_association a
        LEFT JOIN ({CURRENT_TRANSFER_STATE}) AS c ON c.transfer_key = a.transfer_key
        LEFT JOIN {_ITEM_AND_TRANSFER} ON agreeing.item_state = a.bulk_processing_state
        WHERE agreeing.item_state IS NULL
           OR NOT coalesce(c.to_state, '-') = ANY(CAST(agreeing.transfer_states AS text[]))
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "bulk-item-states",
        "the state of a bulk is the one that its items' states lead to",
        f"""
        SELECT 'bulk ' || b.bulk_transfer_id,
               'it is ' || c.to_state || ' with ' || coalesce(i.received, 0) || ' items RECEIVED, '
               || coalesce(i.accepted, 0) || ' ACCEPTED, ' || coalesce(i.completed, 0) || ' COMPLETED'
        FROM bulk_transfer b
        JOIN ({CURRENT_BULK_STATE}) AS c ON c.bulk_key = b.bulk_key
        LEFT JOIN (
            SELECT transfer_key / 10000 AS bulk_key,
                   count(*) FILTER (WHERE bulk_processing_state = 'RECEIVED') AS received,
                   count(*) FILTER (WHERE bulk_processing_state = 'ACCEPTED') AS accepted,
                   count(*) FILTER (WHERE bulk_processing_state = 'COMPLETED') AS completed
            FROM bulk_transfer_association GROUP BY 1) i ON i.bulk_key = b.bulk_key
        WHERE NOT CASE c.to_state
            WHEN 'PENDING_PREPARE' THEN coalesce(i.received > 0 AND i.completed = 0, false)
            WHEN 'ACCEPTED' THEN coalesce(i.received = 0 AND i.accepted > 0 AND i.completed = 0, false)
            WHEN 'PROCESSING' THEN coalesce(i.received = 0 AND i.accepted > 0 AND i.completed = 0, false)
            WHEN 'PENDING_FULFIL' THEN coalesce(i.received = 0 AND i.accepted > 0, false)
            WHEN 'EXPIRING' THEN coalesce(i.received + i.accepted > 0, false)
            WHEN 'COMPLETED' THEN coalesce(i.received = 0 AND i.accepted = 0 AND i.completed > 0, false)
            -- RECEIVED and PENDING_INVALID are left in the transaction that comes to them.
            WHEN 'RECEIVED' THEN false
            WHEN 'PENDING_INVALID' THEN false
            ELSE coalesce(i.received, 0) = 0 AND coalesce(i.accepted, 0) = 0 AND coalesce(i.completed, 0) = 0 END
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "bulk-fulfilments",
        "a bulk has the payee's answer exactly if it was PROCESSING once",
        """
        SELECT 'bulk ' || b.bulk_transfer_id, CASE WHEN f.bulk_key IS NULL THEN 'it was PROCESSING without an answer'
                                                   ELSE 'it has an answer, and was never PROCESSING' END
        FROM bulk_transfer b
        LEFT JOIN bulk_transfer_fulfilment f ON f.bulk_key = b.bulk_key
        LEFT JOIN bulk_transfer_state_change s ON s.bulk_key = b.bulk_key AND s.to_state = 'PROCESSING'
        WHERE (f.bulk_key IS NULL) <> (s.bulk_key IS NULL)
        """,
    ),
    Check(
        "bulk-results",
        "an ended bulk has the payer's result, and the payee's if it was ever ACCEPTED; any other bulk has none",
        """
        SELECT 'bulk ' || b.bulk_transfer_id,
               CASE WHEN r.role IS NULL THEN 'the result of the ' || side.role || ' is missing'
                    ELSE 'there should be no result of the ' || side.role END
        FROM bulk_transfer b
        CROSS JOIN (VALUES ('PAYER'), ('PAYEE')) AS side(role)
        LEFT JOIN bulk_transfer_result r ON r.bulk_key = b.bulk_key AND r.role = side.role
        WHERE (r.role IS NOT NULL) <> (
            EXISTS (SELECT FROM bulk_transfer_state_change s
                    WHERE s.bulk_key = b.bulk_key AND s.to_state = ANY(:final_bulk))
            AND (side.role = 'PAYER' OR EXISTS (SELECT FROM bulk_transfer_state_change s
                                                WHERE s.bulk_key = b.bulk_key AND s.to_state = 'ACCEPTED')))
        """,
    ),
    Check(
        "step-facts",
        "a step has a position exactly if money moved in it, and a fulfilment exactly if it is RECEIVED_FULFIL",
        """
        SELECT 'transfer with key ' || s.transfer_key, 'its step to ' || s.to_state || ' has '
               || CASE WHEN s.position IS NULL THEN 'no position' ELSE 'a position' END || ' and '
               || CASE WHEN s.fulfilment IS NULL THEN 'no fulfilment' ELSE 'a fulfilment' END
        FROM transfer_state_change s
        WHERE (s.position IS NOT NULL)
              <> (s.to_state IN ('RESERVED', 'COMMITTED', 'ABORTED_ERROR', 'EXPIRED_RESERVED'))
           OR (s.fulfilment IS NOT NULL) <> (s.to_state = 'RECEIVED_FULFIL')
        """,
    ),
)
