"""/bulkTransfers: what each verb asks for, and the message that it becomes.

    POST /bulkTransfers             payer  202  → topic-bulk-prepare
    GET  /bulkTransfers/{ID}        either 202  → topic-bulk-get
    PUT  /bulkTransfers/{ID}        payee  200  → topic-bulk-fulfil
    PUT  /bulkTransfers/{ID}/error  payee  200  → topic-bulk-fulfil

A message's `weight` is the count of items that it makes work for: handlers fill their batches by it.
"""

from functools import partial
from http import HTTPStatus

from fastapi import Request, Response

from bulk_api_adapter.fspiop.in_flight import InFlight
from bulk_api_adapter.fspiop.intake import Intake, request_of
from bulk_api_adapter.fspiop.intake import Request as EdgeRequest
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.reception import Errand, Reception
from domain.combinations import BULK_FULFIL, BULK_FULFIL_ERROR, BULK_GET, BULK_PREPARE, Combination
from domain.identifiers import id_bytes
from schemas.fspiop.bodies import parse_post, parse_put, parse_put_error
from schemas.fspiop.headers import BULK_TRANSFERS
from schemas.fspiop.types import BulkTransfersIDPutResponse
from schemas.messages import BulkFulfil, BulkGet, BulkPrepare


class BulkTransfers:
    """The endpoints of /bulkTransfers."""

    def __init__(self, reception: Reception, in_flight: InFlight, intake: Intake, limits: EdgeLimits) -> None:
        self._reception = reception
        self._in_flight = in_flight
        self._intake = intake
        self._limits = limits

    async def post(self, request: Request) -> Response:  # BULK-14
        with self._reception.place(Errand.NEW_WORK) as place:
            self._intake.require_way(Errand.NEW_WORK)
            self._in_flight.require_known()
            parse = partial(parse_post, items_max=self._limits.items_max)
            received = await self._reception.receive(place, request, BULK_TRANSFERS, parse)
            bulk = request_of(received, id_bytes(received.body["bulkTransferId"]))
            items = len(received.body["individualTransfers"])
            message = BulkPrepare(**bulk.said(BULK_PREPARE), bulk_transfer_id=bulk.entity_id, weight=items)
            # Parsed it takes several times its bytes, and it may have to wait now.
            del received
            with self._in_flight.counted(bulk.headers.source, BULK_PREPARE.topic, bulk.entity_id, items):
                await self._intake.keep_and_publish(Errand.NEW_WORK, BULK_PREPARE.topic, bulk, message)
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def get(self, request: Request) -> Response:
        with self._reception.place(Errand.QUESTION):
            self._intake.require_way(Errand.QUESTION)
            received = await self._reception.receive_without_body(request, BULK_TRANSFERS)
            asked = request_of(received, received.path_id)
            message = BulkGet(**asked.said(BULK_GET), bulk_transfer_id=asked.entity_id)
            await self._intake.publish(BULK_GET.topic, asked, message)
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def put(self, request: Request) -> Response:  # BULK-27
        with self._reception.place(Errand.ANSWER) as place:
            self._intake.require_way(Errand.ANSWER)
            parse = partial(parse_put, items_max=self._limits.items_max)
            received = await self._reception.receive(place, request, BULK_TRANSFERS, parse)
            weight = self._fulfil_weight(received.body)
            answer = request_of(received, received.path_id)
            # Parsed it takes several times its bytes, and it may have to wait now.
            del received
            await self._fulfil(BULK_FULFIL, answer, weight)
        return Response(status_code=HTTPStatus.OK)

    async def put_error(self, request: Request) -> Response:
        with self._reception.place(Errand.ANSWER) as place:
            self._intake.require_way(Errand.ANSWER)
            received = await self._reception.receive(place, request, BULK_TRANSFERS, parse_put_error)
            # It aborts every item of the bulk, however many those are.
            answer = request_of(received, received.path_id)
            await self._fulfil(BULK_FULFIL_ERROR, answer, self._limits.items_max)
        return Response(status_code=HTTPStatus.OK)

    async def _fulfil(self, combination: Combination, answer: EdgeRequest, weight: int) -> None:
        message = BulkFulfil(**answer.said(combination), bulk_transfer_id=answer.entity_id, weight=weight)
        await self._intake.keep_and_publish(Errand.ANSWER, combination.topic, answer, message)

    def _fulfil_weight(self, body: BulkTransfersIDPutResponse) -> int:
        """An answer that names no item, or refuses the bulk, aborts them all, as PUT …/error does."""
        items = len(body.get("individualTransferResults", ()))
        state = body["bulkTransferState"]
        if state == "REJECTED" or (state == "COMPLETED" and not items):
            return self._limits.items_max
        return max(items, 1)
