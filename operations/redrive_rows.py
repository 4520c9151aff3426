"""What the rows call for, as messages: the open bulks and single transfers of a page, and the ends that nobody was told.

`domain/redrive.py` says what an item waits for; here it is made into the very messages that the handlers would have sent, by
the handlers' own functions. A part of a request is taken from what was kept of it; a request that is gone is told to the
operator, and its bulk or transfer ends by its own time. In a dry run no content is put into the store.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from db.bulks import BulkRow, bulks_by_key
from db.redrive import bulk_errors, callbacks_written, untold_results, untold_singles
from db.singles import singles_by_key
from db.transfers import OpenItemRow, items_of, open_items_of
from domain.bulk_fulfil import REJECTED_BY_PAYEE, members_of
from domain.bulk_prepare import BulkRules
from domain.bulk_processing import FulfilOutcome
from domain.combinations import BULK_FINAL, BULK_FINAL_ERROR, BULK_FORWARD, BULK_PREPARE_REFUSED
from domain.delivery import DeliveryKind, Resource
from domain.fspiop_errors import FspiopError
from domain.identifiers import bulk_key_of, single_key
from domain.redrive import FromRequest, WaitsFor, item_owes
from domain.single_transfers import SingleTransfer, has_ended
from domain.states import BulkState, TransferState, is_final
from domain.timeout import DueMessage, OpenItem
from handlers.bulk_fulfil import fulfil_request, member_output
from handlers.bulk_outcome import BulkOutcome
from handlers.bulk_prepare import bulk_request, prepare_outputs
from handlers.handler import Output
from handlers.news import due_output
from handlers.notices import notice
from handlers.object_calls import ObjectCalls
from handlers.requests import read_json, read_request
from handlers.single_news import state_outputs
from object_store.content import renew_content
from object_store.interface import ObjectStore

# Nobody waits for a lock of ours, so a slow store is given more time than handlers give it.
_STORE_WAIT_MS = 60_000
# A page of small bulks may owe thousands of forwards; each of these has the whole time.
_FORWARDS_AT_ONCE = 200


@dataclass(slots=True)
class Derived:
    """Messages with the id that each is about; who waits for somebody else; whose request is gone."""

    outputs: list[tuple[bytes, Output]] = field(default_factory=list)
    waiting: Counter[WaitsFor] = field(default_factory=Counter)
    lost: list[bytes] = field(default_factory=list)

    def add(self, entity_id: bytes, outputs: Sequence[Output]) -> None:
        self.outputs += [(entity_id, output) for output in outputs]


class RowDerivation:
    """Derives in the caller's transaction, which sees one snapshot. Raises handlers.handler.SlowDown: the store is away."""

    def __init__(self, store: ObjectStore, rules: BulkRules, *, is_dry_run: bool) -> None:
        self._store = store
        self._calls = ObjectCalls(store, wait_ms=_STORE_WAIT_MS)
        self._rules = rules
        self._is_dry_run = is_dry_run

    def open_bulks(self, tx: Connection, keys: Sequence[int]) -> Derived:
        """What these bulks wait for, as far as they have not ended."""
        derived = Derived()
        bulks = {key: bulk for key, bulk in bulks_by_key(tx, keys).items() if not is_final(bulk.state)}
        errors = bulk_errors(tx, list(bulks))
        rows: dict[int, list[OpenItemRow]] = {key: [] for key in bulks}
        for row in open_items_of(tx, {key: bulk.item_count for key, bulk in bulks.items()}):
            rows[bulk_key_of(row.transfer_key)].append(row)
        for key, bulk in bulks.items():
            self._items(derived, bulk, rows[key], errors.get(key))
        self._forwards(tx, derived, [bulk for bulk in bulks.values() if bulk.state is BulkState.ACCEPTED])
        return derived

    def open_singles(self, tx: Connection, numbers: Sequence[int]) -> Derived:
        """What these single transfers wait for; callbacks only as far as they are not written down."""
        return self._singles(tx, [single_key(number) for number in numbers])

    def ended_bulks(self, tx: Connection, keys: Sequence[int]) -> Derived:
        """The final callbacks of these bulks that nobody has written down."""
        derived = Derived()
        for result in untold_results(tx, keys):
            # Whoever names an object in a message makes it fresh first, so that retention lets it be.
            if not self._is_dry_run and not renew_content(self._store, result.content):
                derived.lost.append(result.bulk_transfer_id)
                continue
            refused_or_failed = BULK_PREPARE_REFUSED if result.was_refused else BULK_FINAL_ERROR
            combination = refused_or_failed if result.callback == "PUT_ERROR" else BULK_FINAL
            told = notice(combination, result.bulk_transfer_id, result.fsp, result.callback, result.content)
            derived.add(result.bulk_transfer_id, [told])
        return derived

    def ended_singles(self, tx: Connection, keys: Sequence[int]) -> Derived:
        """The final callbacks of these single transfers that nobody has written down."""
        return self._singles(tx, untold_singles(tx, keys))

    def _items(self, derived: Derived, bulk: BulkRow, rows: Sequence[OpenItemRow], error: FspiopError | None) -> None:
        from_request: dict[FromRequest, dict[int, OpenItemRow]] = {one: {} for one in FromRequest}
        for row in rows:
            item = OpenItem(row.transfer_key, row.item_state, row.transfer_state, row.reason, row.error)
            match item_owes(bulk.state, item):
                case DueMessage() as message:
                    derived.add(bulk.bulk_transfer_id, [due_output(message, row, bulk.bulk_transfer_id)])
                case FromRequest() as source:
                    from_request[source][row.transfer_key] = row
                case WaitsFor() as other:
                    derived.waiting[other] += 1
        if from_request[FromRequest.PREPARE]:
            self._prepare(derived, bulk, from_request[FromRequest.PREPARE])
        if from_request[FromRequest.FULFIL]:
            self._fulfil(derived, bulk, from_request[FromRequest.FULFIL], error)

    def _prepare(self, derived: Derived, bulk: BulkRow, rows: Mapping[int, OpenItemRow]) -> None:
        kept = read_request(self._store, bulk.bulk_transfer_id, bulk.request_id)
        body = None if kept is None else read_json(kept)
        if body is None:
            derived.lost.append(bulk.bulk_transfer_id)
            return
        outputs = prepare_outputs(bulk.bulk_transfer_id, bulk.bulk_key, body, bulk_request(body), self._rules)
        wanted = [one for one in outputs if getattr(one.message, "transfer_key", None) in rows]
        derived.add(bulk.bulk_transfer_id, wanted)

    def _fulfil(
        self, derived: Derived, bulk: BulkRow, rows: Mapping[int, OpenItemRow], error: FspiopError | None
    ) -> None:
        assert bulk.fulfil_request_id is not None, "a bulk that is worked on has the payee's answer"
        assert bulk.fulfil_outcome is not None
        kept = read_request(self._store, bulk.bulk_transfer_id, bulk.fulfil_request_id)
        body = None if kept is None else read_json(kept)
        if body is None:
            derived.lost.append(bulk.bulk_transfer_id)
            return
        answers = fulfil_request(body, is_error=bulk.fulfil_outcome is FulfilOutcome.ERROR).answers
        if bulk.fulfil_outcome is FulfilOutcome.REJECTED:
            error = REJECTED_BY_PAYEE
        forwarded = {row.transfer_id: key for key, row in rows.items()}
        members = members_of(answers, forwarded, bulk.fulfil_outcome, error)
        derived.add(bulk.bulk_transfer_id, [member_output(bulk.bulk_transfer_id, member) for member in members])

    def _forwards(self, tx: Connection, derived: Derived, accepted: Sequence[BulkRow]) -> None:
        """The POST to the payee of every accepted bulk that has none."""
        written = callbacks_written(tx, [bulk.bulk_transfer_id for bulk in accepted])
        missing = [
            bulk
            for bulk in accepted
            if (bulk.bulk_transfer_id, Resource.BULK_TRANSFERS, bulk.payee_fsp, DeliveryKind.FORWARD) not in written
        ]
        if not missing:
            return
        if self._is_dry_run:
            for bulk in missing:
                told = notice(BULK_FORWARD, bulk.bulk_transfer_id, bulk.payee_fsp or "", "POST", "")
                derived.add(bulk.bulk_transfer_id, [told])
            return
        for first in range(0, len(missing), _FORWARDS_AT_ONCE):
            self._put_forwards(tx, derived, missing[first : first + _FORWARDS_AT_ONCE])

    def _put_forwards(self, tx: Connection, derived: Derived, missing: Sequence[BulkRow]) -> None:
        items = items_of(tx, {bulk.bulk_key: bulk.item_count for bulk in missing})
        with self._calls.of_batch() as calls:
            outputs = BulkOutcome(calls, self._store, tx, items).forward(missing)
        # The key of a notification is the id that it is about.
        for output in outputs:
            derived.add(output.key, [output])
        made = {output.key for output in outputs}
        derived.lost += [bulk.bulk_transfer_id for bulk in missing if bulk.bulk_transfer_id not in made]

    def _singles(self, tx: Connection, keys: Sequence[int]) -> Derived:
        derived = Derived()
        singles = singles_by_key(tx, keys)
        written = callbacks_written(tx, [single.transfer_id for single in singles.values()])
        for single in singles.values():
            missing = [one for one in state_outputs(single) if not _is_written(one, single, written)]
            derived.add(single.transfer_id, missing)
            if single.state is TransferState.RESERVED and not missing:
                derived.waiting[WaitsFor.PAYEE] += 1
        return derived


def _is_written(output: Output, single: SingleTransfer, written: set[tuple[bytes, str, str, str]]) -> bool:
    """Whether the callback that this message asks for is written down; no for a move of money, which is no callback."""
    to = getattr(output.message, "to", None)
    if to is None:
        return False
    kind = DeliveryKind.FINAL if has_ended(single.state) else DeliveryKind.FORWARD
    return (single.transfer_id, Resource.TRANSFERS, to, kind) in written
