"""What the two sides of a bulk are told: the forwarded POST, and at the end the lists and the final callbacks.

The payer's list names every item of its request, the payee's those that were forwarded to it (BULK-33). What the payee said
about an item beyond its fulfilment (extensionList, its errorInformation) is taken word for word from its kept request.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from db.bulks import BulkRow, bulk_error_contents, extensions_of
from db.clock import now_ms
from db.results import BulkResult
from db.transfers import ItemRow
from domain.bulk_get import Role
from domain.bulk_processing import FulfilOutcome, payer_is_told_an_error
from domain.combinations import BULK_FINAL, BULK_FINAL_ERROR, BULK_FORWARD
from domain.identifiers import bulk_key_of, id_text
from domain.states import BULK_API_STATES, FORWARDED_ITEM_STATES, BulkState, ItemState
from handlers.handler import Output
from handlers.notices import notice
from handlers.object_calls import BatchCalls
from handlers.requests import read_json, read_request
from object_store.interface import ObjectStore
from schemas.fspiop.datetimes import format_datetime
from schemas.fspiop.results import ItemResult, forward_body, result_body

_log = logging.getLogger(__name__)


class BulkOutcome:
    """Builds what is told about the bulks whose `items` these are, in the caller's transaction."""

    def __init__(self, calls: BatchCalls, store: ObjectStore, tx: Connection, items: Sequence[ItemRow]) -> None:
        self._calls = calls
        self._store = store
        self._tx = tx
        self._items: dict[int, list[ItemRow]] = {}
        for item in items:
            self._items.setdefault(bulk_key_of(item.transfer_key), []).append(item)

    def forward(self, bulks: Sequence[BulkRow]) -> list[Output]:
        """The POSTs to the payees with what could be reserved; not made any more once the bulk has expired."""
        requests = self._calls.in_order(lambda bulk: self._request(bulk, bulk.request_id), bulks)
        return [
            output for bulk, request in zip(bulks, requests, strict=True) for output in self._forward(bulk, request)
        ]

    def _forward(self, bulk: BulkRow, request: dict[str, Any] | None) -> list[Output]:
        if request is None or bulk.payee_fsp is None:
            # Money is reserved for a payload that is gone. Nobody else's bulk may wait for it: the payee is not asked,
            # and the timeout gives the money back and tells the payer.
            bulk_transfer_id = id_text(bulk.bulk_transfer_id)
            _log.error(
                "bulk %s cannot be forwarded and will expire",
                bulk_transfer_id,
                extra={"bulk_transfer_id": bulk_transfer_id},
            )
            return []
        accepted = frozenset(
            id_text(item.transfer_id) for item in self._items[bulk.bulk_key] if item.state is ItemState.ACCEPTED
        )
        content = self._calls.put(forward_body(request, accepted))
        return [
            notice(
                BULK_FORWARD, bulk.bulk_transfer_id, bulk.payee_fsp, "POST", content, not_after_ms=bulk.expiration_ms
            )
        ]

    def final(self, ended: Sequence[tuple[BulkRow, BulkState]]) -> tuple[list[BulkResult], list[Output]]:
        """What is remembered and what is sent, for bulks and the final states they have just reached."""
        keys = [bulk.bulk_key for bulk, _ in ended]
        error_contents = bulk_error_contents(self._tx, keys)
        extensions = extensions_of(self._tx, keys)
        hub_time = format_datetime(now_ms(self._tx))
        results: list[BulkResult] = []
        outputs: list[Output] = []
        said_by_payees = self._calls.in_order(self._said_by_payee, [bulk for bulk, _ in ended])
        for (bulk, state), said in zip(ended, said_by_payees, strict=True):
            completed = bulk.completed_timestamp
            if completed is None or bulk.fulfil_outcome is FulfilOutcome.INVALID:
                completed = hub_time
            lists = self._lists(bulk, state, completed, extensions.get(bulk.bulk_key, ()), said)
            for role, list_content in lists.items():
                told_error = role is Role.PAYER and payer_is_told_an_error(state, bulk.fulfil_outcome)
                content = error_contents[bulk.bulk_key] if told_error else list_content
                callback = "PUT_ERROR" if told_error else "PUT"
                results.append(BulkResult(bulk.bulk_key, role.value, list_content, callback, content))
                fsp = bulk.payer_fsp if role is Role.PAYER else bulk.payee_fsp
                assert fsp is not None, "a bulk that was accepted has a payee"
                combination = BULK_FINAL_ERROR if told_error else BULK_FINAL
                outputs.append(notice(combination, bulk.bulk_transfer_id, fsp, callback, content))
        return results, outputs

    def _lists(
        self,
        bulk: BulkRow,
        state: BulkState,
        completed: str,
        extensions: Sequence[tuple[str, str]],
        said: Mapping[str, Any],
    ) -> Mapping[Role, str]:
        """The content keys of the payer's list, and of the payee's if the bulk was ever forwarded."""
        shown = BULK_API_STATES[state]
        items = self._items.get(bulk.bulk_key, [])
        rows = [(item.state, _result(item, bulk.fulfil_outcome, said)) for item in items]
        everything = result_body(shown, completed, (result for _, result in rows), extensions)
        lists = {Role.PAYER: self._calls.put(everything)}
        if bulk.was_accepted:
            subset = (result for item_state, result in rows if item_state in FORWARDED_ITEM_STATES)
            body = result_body(shown, completed, subset, extensions)
            lists[Role.PAYEE] = self._calls.put(body)
        return lists

    def _said_by_payee(self, bulk: BulkRow) -> Mapping[str, Any]:
        """By transferId what the payee's own PUT says of an item."""
        if bulk.fulfil_request_id is None or bulk.fulfil_outcome not in (FulfilOutcome.VALID, FulfilOutcome.REJECTED):
            return {}
        answer = self._request(bulk, bulk.fulfil_request_id) or {}
        return {result["transferId"]: result for result in answer.get("individualTransferResults", ())}

    def _request(self, bulk: BulkRow, request_id: bytes) -> dict[str, Any] | None:
        kept = read_request(self._store, bulk.bulk_transfer_id, request_id)
        return None if kept is None else read_json(kept)


def _result(item: ItemRow, outcome: FulfilOutcome | None, said: Mapping[str, Any]) -> ItemResult:
    return ItemResult(
        transfer_id=item.transfer_id,
        # A fulfilment that was answered but not committed proves nothing, and is not shown.
        fulfilment=item.fulfilment if item.state is ItemState.COMPLETED else None,
        error=item.error,
        refused_by_payee=item.state is ItemState.REJECTED and outcome is not FulfilOutcome.ERROR,
        said=said.get(id_text(item.transfer_id)),
    )
