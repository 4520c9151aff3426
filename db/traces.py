"""The trace of a bulk's POST, kept where it was first needed: in the headers of the forward to the payee."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

# The trace context that a forward was written with; an index on the entity finds the row.
_FORWARD_TRACES = text(
    """
    SELECT entity_id, headers ->> 'traceparent' AS traceparent, headers ->> 'tracestate' AS tracestate
    FROM delivery
    WHERE resource = 'bulkTransfers' AND kind = 'FORWARD' AND entity_id = ANY(CAST(:entity_ids AS uuid[]))
      AND headers ? 'traceparent'
    """
)


def forward_traces(tx: Connection, entity_ids: Sequence[UUID]) -> dict[UUID, dict[str, str]]:
    """Per bulk the trace context of its forward to the payee, where it was forwarded in a trace."""
    rows = tx.execute(_FORWARD_TRACES, {"entity_ids": list(entity_ids)}).mappings()
    return {
        row["entity_id"]: {name: row[name] for name in ("traceparent", "tracestate") if row[name] is not None}
        for row in rows
    }
