"""Every position is what the steps of its transfers say, in an order that the records prove, and within its limits.

A *move* is a step in which money moved: RESERVED raises the payer's position, COMMITTED lowers the payee's, ABORTED_ERROR
and EXPIRED_RESERVED lower the payer's again; the step carries the position after it. A *change* is a row of
participant_position_change, what one transaction made of one account: its numbers stand in the order of the account's lock,
it carries the value before and after, and cover and net debit cap as they stood under that lock. Moves and change of one
transaction have one created_date, which is the transaction's time.

Proven exactly: that the changes of an account join without a gap, in their order; that each is the sum of its moves; that
within a change, where what is given back comes before what is reserved, each move's position is the one before it plus or
minus its amount; that no reservation of a change left a position above the lower of its cover and cap. Proven within the
resolution of the clock only: should two transactions on one account have begun in the same microsecond, their moves cannot
be told apart; then their sum is proven, and each reservation against the higher of their two limits.
"""

from db.verification.check import Check
from db.verification.states import CURRENT_BULK_STATE, CURRENT_TRANSFER_STATE

_MOVES = """
    SELECT s.transfer_key, s.to_state, s.created_date, s.position, t.transfer_id, t.currency_id,
           s.to_state = 'RESERVED' AS is_debit,
           CASE WHEN s.to_state = 'COMMITTED' THEN t.payee_participant_currency_id
                ELSE t.payer_participant_currency_id END AS account,
           CASE WHEN s.to_state = 'RESERVED' THEN t.amount ELSE -t.amount END AS delta
    FROM transfer_state_change s JOIN transfer t ON t.transfer_key = s.transfer_key
    WHERE s.to_state IN ('RESERVED', 'COMMITTED', 'ABORTED_ERROR', 'EXPIRED_RESERVED')
"""
_FUNDS = """
    SELECT f.transfer_id, f.participant_currency_id, f.hub_participant_currency_id, s.to_state, s.position,
           s.created_date,
           CASE WHEN f.action = 'recordFundsIn' OR s.to_state = 'ABORTED' THEN -f.amount
                WHEN s.to_state = 'RESERVED' THEN f.amount ELSE 0 END AS delta,
           CASE WHEN s.to_state <> 'COMMITTED' THEN 0
                WHEN f.action = 'recordFundsIn' THEN f.amount ELSE -f.amount END AS hub_delta
    FROM funds_transfer f JOIN funds_transfer_state_change s ON s.transfer_id = f.transfer_id
"""
# Everything that changes an account, whatever its kind. The first position of an account is set by an act of the admin app.
_DELTAS = f"""
    SELECT account, created_date, delta FROM ({_MOVES}) AS moves
    UNION ALL SELECT participant_currency_id, created_date, delta FROM ({_FUNDS}) AS funds WHERE delta <> 0
    UNION ALL SELECT hub_participant_currency_id, created_date, hub_delta FROM ({_FUNDS}) AS funds WHERE hub_delta <> 0
    UNION ALL
    SELECT a.participant_currency_id, act.created_date, CAST(act.after ->> 'initialPosition' AS numeric)
    FROM admin_audit act
    JOIN participant p ON act.subject = 'participants/' || p.name || '/initialPositionAndLimits'
    JOIN participant_currency a ON a.participant_id = p.participant_id AND a.ledger_account_type = 'POSITION'
         AND a.currency_id = act.after ->> 'currency'
    WHERE act.action = 'initial_position_and_limits'
"""  # noqa: S608 - fragments of ours
# The changes of one account and time: one, unless two transactions began in the same microsecond.
_CHANGES = """
    SELECT participant_currency_id AS account, created_date, count(*) AS changes,
           (array_agg(value_before ORDER BY participant_position_change_id))[1] AS value_before,
           (array_agg(value ORDER BY participant_position_change_id DESC))[1] AS value,
           -- No net debit cap means that nothing may be reserved; least() would pass over it.
           max(CASE WHEN net_debit_cap IS NOT NULL THEN least(cover, net_debit_cap) - reserved_value END) AS highest
    FROM participant_position_change GROUP BY participant_currency_id, created_date
"""
_FIRST = """
    SELECT DISTINCT ON (participant_currency_id) participant_currency_id AS account, created_date, value_before
    FROM participant_position_change ORDER BY participant_currency_id, participant_position_change_id
"""
_ACCOUNT = """
    (SELECT 'the ' || named.ledger_account_type || ' account of ' || holder.name || ' in ' || named.currency_id
     FROM participant_currency named JOIN participant holder USING (participant_id)
     WHERE named.participant_currency_id = {account})
"""

POSITIONS = (
    Check(
        "position-sums",
        "the value of every account is the sum of all that ever moved on it",
        f"""
        SELECT coalesce({_ACCOUNT.format(account="p.participant_currency_id")}, 'account ' || p.participant_currency_id),
               'its value is ' || p.value || ', and ' || coalesce(d.total, 0) || ' moved on it'
        FROM participant_position p
        LEFT JOIN (SELECT account, sum(delta) AS total FROM ({_DELTAS}) AS deltas GROUP BY account) d
             ON d.account = p.participant_currency_id
        WHERE p.value <> coalesce(d.total, 0)
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "position-history",
        "the recorded changes of every account join without a gap, and end at its value",
        f"""
        SELECT coalesce({_ACCOUNT.format(account="c.account")}, 'account ' || c.account),
               'change ' || c.id || ' ends at ' || c.value || ', and what follows it begins at ' || c.next_value
        FROM (
            SELECT h.participant_currency_id AS account, h.participant_position_change_id AS id, h.value,
                   coalesce(lead(h.value_before) OVER (
                       PARTITION BY h.participant_currency_id ORDER BY h.participant_position_change_id), p.value)
                       AS next_value
            FROM participant_position_change h JOIN participant_position p USING (participant_currency_id)
        ) AS c
        WHERE c.value <> c.next_value
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "position-changes",
        "every recorded change is the sum of what moved in its transaction, and everything that moved was recorded",
        f"""
        SELECT coalesce({_ACCOUNT.format(account="found.account")}, 'account ' || found.account), found.detail
        FROM (
            SELECT coalesce(c.account, d.account) AS account,
                   'at ' || coalesce(c.created_date, d.created_date) || ' it changed by '
                   || coalesce(c.value - c.value_before, 0) || ', and ' || coalesce(d.total, 0) || ' moved' AS detail
            FROM ({_CHANGES}) AS c
            FULL JOIN (
                SELECT deltas.account, deltas.created_date, sum(delta) AS total FROM ({_DELTAS}) AS deltas
                LEFT JOIN ({_FIRST}) AS first ON first.account = deltas.account
                WHERE deltas.created_date >= first.created_date OR first.account IS NULL
                GROUP BY deltas.account, deltas.created_date
            ) AS d ON d.account = c.account AND d.created_date = c.created_date
            WHERE coalesce(c.value - c.value_before, 0) <> coalesce(d.total, 0)
               OR (c.account IS NULL AND d.total IS NOT NULL)
            UNION ALL
            SELECT first.account,
                   'its recorded changes begin at ' || first.value_before || ', and before them ' || coalesce(d.total, 0)
                   || ' moved'
            FROM ({_FIRST}) AS first
            LEFT JOIN (
                SELECT deltas.account, sum(delta) AS total FROM ({_DELTAS}) AS deltas
                JOIN ({_FIRST}) AS first ON first.account = deltas.account
                WHERE deltas.created_date < first.created_date
                GROUP BY deltas.account
            ) AS d ON d.account = first.account
            WHERE first.value_before <> coalesce(d.total, 0)
        ) AS found
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "position-replay",
        "the position after every move is the one before it plus or minus its amount",
        f"""
        SELECT 'transfer ' || m.transfer_id,
               'its step to ' || m.to_state || ' moved ' || m.delta || ' from ' || m.before || ' to '
               || coalesce(CAST(m.position AS text), 'nothing')
        FROM (
            SELECT moves.*, coalesce(lag(moves.position) OVER (
                       PARTITION BY moves.account, moves.created_date
                       ORDER BY moves.is_debit,
                                CASE WHEN moves.is_debit THEN moves.position ELSE -moves.position END,
                                abs(moves.delta) DESC, moves.transfer_key), c.value_before) AS before
            FROM ({_MOVES}) AS moves
            JOIN ({_CHANGES}) AS c ON c.account = moves.account AND c.created_date = moves.created_date
            WHERE c.changes = 1
        ) AS m
        WHERE m.position IS DISTINCT FROM m.before + m.delta
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "reservation-limits",
        "no reservation left a position above net debit cap or cover, as they stood under the account's lock",
        f"""
        SELECT 'transfer ' || m.transfer_id,
               'it left the position at ' || m.position || ', and at most '
               || coalesce(CAST(c.highest AS text), 'nothing') || ' was allowed'
        FROM ({_MOVES}) AS m
        JOIN ({_CHANGES}) AS c ON c.account = m.account AND c.created_date = m.created_date
        WHERE m.is_debit AND (c.highest IS NULL OR m.position > c.highest)
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "zero-sum",
        "in every currency the positions add up to what is reserved for transfers that have not ended",
        f"""
        SELECT 'currency ' || a.currency_id,
               'the positions add up to ' || sum(p.value) || ', and ' || coalesce(min(r.reserved), 0) || ' is reserved'
        FROM participant_position p
        JOIN participant_currency a ON a.participant_currency_id = p.participant_currency_id
             AND a.ledger_account_type = 'POSITION'
        LEFT JOIN (
            SELECT t.currency_id, sum(t.amount) AS reserved
            FROM transfer t JOIN ({CURRENT_TRANSFER_STATE}) AS c ON c.transfer_key = t.transfer_key
            WHERE c.to_state IN ('RESERVED', 'RECEIVED_FULFIL', 'RECEIVED_ERROR', 'RESERVED_TIMEOUT')
            GROUP BY t.currency_id) r ON r.currency_id = a.currency_id
        LEFT JOIN (
            SELECT act.after ->> 'currency' AS currency_id,
                   sum(CAST(act.after ->> 'initialPosition' AS numeric)) AS initial
            FROM admin_audit act WHERE act.action = 'initial_position_and_limits' GROUP BY 1
        ) i ON i.currency_id = a.currency_id
        GROUP BY a.currency_id
        HAVING sum(p.value) <> coalesce(min(r.reserved), 0) + coalesce(min(i.initial), 0)
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "bulk-sums",
        "of every ended bulk, what was reserved was committed or given back, to the last unit",
        f"""
        SELECT 'bulk ' || b.bulk_transfer_id,
               sums.reserved || ' was reserved, ' || sums.committed || ' committed and ' || sums.released || ' given back'
        FROM bulk_transfer b
        JOIN ({CURRENT_BULK_STATE}) AS c ON c.bulk_key = b.bulk_key AND c.to_state = ANY(:final_bulk)
        JOIN (
            SELECT transfer_key / 10000 AS bulk_key,
                   coalesce(sum(abs(delta)) FILTER (WHERE is_debit), 0) AS reserved,
                   coalesce(sum(abs(delta)) FILTER (WHERE to_state = 'COMMITTED'), 0) AS committed,
                   coalesce(sum(abs(delta)) FILTER (WHERE NOT is_debit AND to_state <> 'COMMITTED'), 0) AS released
            FROM ({_MOVES}) AS moves WHERE transfer_key % 10000 <> 0 GROUP BY 1
        ) AS sums ON sums.bulk_key = b.bulk_key
        WHERE sums.reserved <> sums.committed + sums.released
        """,  # noqa: S608 - fragments of ours
    ),
    Check(
        "funds-replay",
        "after every step of funds the settlement account stood where the step says",
        f"""
        SELECT 'funds ' || f.transfer_id,
               'its step to ' || f.to_state || ' says ' || f.position || ', and the account stood at '
               || coalesce(CAST(c.value AS text), 'no recorded value')
        FROM ({_FUNDS}) AS f
        JOIN ({_FIRST}) AS first ON first.account = f.participant_currency_id
        LEFT JOIN participant_position_change c ON c.participant_currency_id = f.participant_currency_id
             AND c.created_date = f.created_date AND c.value = f.position
        WHERE f.created_date >= first.created_date AND c.participant_currency_id IS NULL
        """,  # noqa: S608 - fragments of ours
    ),
)
