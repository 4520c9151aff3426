"""Every reference between rows that no foreign key declares: the per-transfer tables have none (decision 0003).

A transfer's key says what it is: `bulk_key * 10_000 + n` the nth item of a bulk, `number * 10_000` a single transfer.
"""

from db.verification.check import Check

KEYS = (
    Check(
        "item-bulk",
        "every item belongs to a bulk, by its key",
        """
        SELECT 'item ' || a.transfer_id, 'no bulk has the key ' || a.transfer_key / 10000
        FROM bulk_transfer_association a
        LEFT JOIN bulk_transfer b ON b.bulk_key = a.transfer_key / 10000
        WHERE b.bulk_key IS NULL OR a.transfer_key % 10000 = 0
        """,
    ),
    Check(
        "item-count",
        "a bulk that was split has its items, numbered 1 to item_count; one that was refused has none",
        """
        SELECT 'bulk ' || b.bulk_transfer_id,
               'item_count is ' || b.item_count || ', but there are ' || coalesce(i.items, 0) || ' items'
               || CASE WHEN s.bulk_key IS NULL THEN ' of a bulk that was refused' ELSE '' END
        FROM bulk_transfer b
        LEFT JOIN (SELECT transfer_key / 10000 AS bulk_key, count(*) AS items, min(transfer_key % 10000) AS first,
                          max(transfer_key % 10000) AS last
                   FROM bulk_transfer_association GROUP BY 1) i ON i.bulk_key = b.bulk_key
        LEFT JOIN bulk_transfer_state_change s ON s.bulk_key = b.bulk_key AND s.to_state = 'PENDING_PREPARE'
        WHERE CASE WHEN s.bulk_key IS NULL THEN i.items IS NOT NULL
                   ELSE i.items IS NULL OR (i.items, i.first, i.last) <> (b.item_count, 1, b.item_count) END
        """,
    ),
    Check(
        "transfer-item",
        "every transfer of a bulk has its item, under the same transferId",
        """
        SELECT 'transfer ' || t.transfer_id, CASE WHEN a.transfer_key IS NULL THEN 'its item is missing'
                                                  ELSE 'its item has the transferId ' || a.transfer_id END
        FROM transfer t
        LEFT JOIN bulk_transfer_association a ON a.transfer_key = t.transfer_key
        WHERE t.transfer_key % 10000 <> 0 AND a.transfer_id IS DISTINCT FROM t.transfer_id
        """,
    ),
    Check(
        "transfer-single",
        "every other transfer is a single transfer, every single transfer is a transfer, and so is every answer to one",
        """
        SELECT 'transfer ' || t.transfer_id, 'it is neither of a bulk nor single'
        FROM transfer t LEFT JOIN single_transfer x ON x.transfer_key = t.transfer_key
        WHERE t.transfer_key % 10000 = 0 AND x.transfer_key IS NULL
        UNION ALL
        SELECT 'single transfer with key ' || x.transfer_key, 'it is no transfer'
        FROM single_transfer x LEFT JOIN transfer t ON t.transfer_key = x.transfer_key
        WHERE t.transfer_key IS NULL OR x.transfer_key % 10000 <> 0
        UNION ALL
        SELECT 'answer to the single transfer with key ' || f.transfer_key, 'there is no such single transfer'
        FROM single_transfer_fulfilment f LEFT JOIN single_transfer x ON x.transfer_key = f.transfer_key
        WHERE x.transfer_key IS NULL
        """,
    ),
    Check(
        "step-transfer",
        "every step belongs to a transfer",
        """
        SELECT 'step ' || s.from_state || ' to ' || s.to_state || ' with key ' || s.transfer_key,
               'there is no such transfer'
        FROM transfer_state_change s LEFT JOIN transfer t ON t.transfer_key = s.transfer_key
        WHERE t.transfer_key IS NULL
        """,
    ),
    Check(
        "transfer-accounts",
        "a transfer that is not INVALID has both accounts: POSITION accounts of payer and payee in its currency",
        """
        SELECT 'transfer ' || t.transfer_id, 'its ' || leg.side || ' account '
               || coalesce(leg.account || ' is not the POSITION account of ' || leg.fsp || ' in ' || t.currency_id,
                           'is missing')
        FROM transfer t
        LEFT JOIN bulk_transfer b ON b.bulk_key = t.transfer_key / 10000 AND t.transfer_key % 10000 <> 0
        LEFT JOIN single_transfer x ON x.transfer_key = t.transfer_key
        LEFT JOIN transfer_state_change i ON i.transfer_key = t.transfer_key AND i.to_state = 'INVALID'
        CROSS JOIN LATERAL (VALUES
            ('payer', t.payer_participant_currency_id, coalesce(b.payer_fsp, x.payer_fsp)),
            ('payee', t.payee_participant_currency_id, coalesce(b.payee_fsp, x.payee_fsp))) AS leg(side, account, fsp)
        LEFT JOIN participant_currency a ON a.participant_currency_id = leg.account
        LEFT JOIN participant p ON p.participant_id = a.participant_id
        WHERE CASE WHEN leg.account IS NULL THEN i.transfer_key IS NULL
                   ELSE (a.ledger_account_type, a.currency_id, p.name)
                        IS DISTINCT FROM ('POSITION', t.currency_id, leg.fsp) END
        """,
    ),
    Check(
        "account-position",
        "every account has a position, and every recorded change of one has its account",
        """
        SELECT 'account ' || a.participant_currency_id, 'it has no position'
        FROM participant_currency a LEFT JOIN participant_position p USING (participant_currency_id)
        WHERE p.participant_currency_id IS NULL
        UNION ALL
        SELECT 'position change ' || c.participant_position_change_id,
               'there is no account ' || c.participant_currency_id
        FROM participant_position_change c LEFT JOIN participant_currency a USING (participant_currency_id)
        WHERE a.participant_currency_id IS NULL
        """,
    ),
    Check(
        "parties",
        "payers, payees and receivers of callbacks are participants",
        """
        SELECT DISTINCT 'participant ' || named.fsp, 'a ' || named.what || ' names it, and it does not exist'
        FROM (
            SELECT payer_fsp AS fsp, 'bulk' AS what FROM bulk_transfer UNION ALL
            -- A bulk may have been refused because its payee is none.
            SELECT b.payee_fsp, 'bulk' FROM bulk_transfer b
            JOIN bulk_transfer_state_change s ON s.bulk_key = b.bulk_key AND s.to_state = 'PENDING_PREPARE' UNION ALL
            SELECT payer_fsp, 'single transfer' FROM single_transfer UNION ALL
            SELECT fsp, 'callback' FROM delivery
        ) AS named
        LEFT JOIN participant p ON p.name = named.fsp
        WHERE p.name IS NULL
        """,
    ),
    Check(
        "callback-subject",
        "a callback that is no answer is about a bulk or single transfer, and goes to its payer or payee",
        """
        SELECT 'callback ' || d.delivery_id,
               CASE WHEN coalesce(b.payer_fsp, x.payer_fsp) IS NULL
                    THEN 'there is nothing in ' || d.resource || ' with the id ' || d.entity_id
                    ELSE d.fsp || ' has no part in ' || d.entity_id END
        FROM delivery d
        LEFT JOIN bulk_transfer b ON d.resource = 'bulkTransfers' AND b.bulk_transfer_id = d.entity_id
        LEFT JOIN transfer t ON d.resource = 'transfers' AND t.transfer_id = d.entity_id
        LEFT JOIN single_transfer x ON x.transfer_key = t.transfer_key
        WHERE d.kind <> 'ANSWER'
          AND d.fsp IS DISTINCT FROM coalesce(b.payer_fsp, x.payer_fsp)
          AND d.fsp IS DISTINCT FROM coalesce(b.payee_fsp, x.payee_fsp)
        """,
    ),
    Check(
        "open-expirations",
        "what has not ended, and nothing else, has a time at which it is due",
        """
        SELECT coalesce('bulk ' || b.bulk_transfer_id, 'bulk with key ' || o.number),
               CASE WHEN o.number IS NULL THEN 'it has not ended, and nothing will end it in time'
                    ELSE 'it is due, and there is nothing to end' END
        FROM (SELECT b.* FROM bulk_transfer b WHERE NOT EXISTS (
                  SELECT FROM bulk_transfer_state_change s
                  WHERE s.bulk_key = b.bulk_key AND s.to_state = ANY(:final_bulk))) AS b
        FULL JOIN (SELECT * FROM open_expiration WHERE NOT is_single) AS o ON o.number = b.bulk_key
        WHERE o.number IS NULL OR b.bulk_key IS NULL
        UNION ALL
        SELECT coalesce('transfer ' || t.transfer_id, 'single transfer with number ' || o.number),
               CASE WHEN o.number IS NULL THEN 'it has not ended, and nothing will end it in time'
                    ELSE 'it is due, and there is nothing to end' END
        FROM (SELECT t.* FROM transfer t WHERE t.transfer_key % 10000 = 0 AND NOT EXISTS (
                  SELECT FROM transfer_state_change s
                  WHERE s.transfer_key = t.transfer_key AND s.to_state = ANY(:final_transfer))) AS t
        FULL JOIN (SELECT * FROM open_expiration WHERE is_single) AS o ON o.number = t.transfer_key / 10000
        WHERE o.number IS NULL OR t.transfer_key IS NULL
        """,
    ),
)
