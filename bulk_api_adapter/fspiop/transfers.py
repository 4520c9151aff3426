"""/transfers: what each verb asks for, and the message that it becomes.

    POST /transfers             payer  202  → topic-single-transfer-prepare
    GET  /transfers/{ID}        either 202  → topic-transfer-get
    PUT  /transfers/{ID}        payee  200  → topic-single-transfer-fulfil, COMMITTED as `commit`, RESERVED as `reserve`
    PUT  /transfers/{ID}/error  payee  200  → topic-single-transfer-fulfil, as `abort`

Of a PUT that is well formed, before anything is kept (reference §11.23):

    400/3100       its completedTimestamp lies more than `completed_timestamp_ahead_ms` after its receipt
    200, no effect transferState is RECEIVED or ABORTED (PUT …/error is what aborts), or RESERVED in version 1.0, which has
                   no such answer

A COMMITTED or RESERVED without a fulfilment is passed on: the handler ends the transfer with 3100. What an FSP signed is
kept as it was sent, headers and bytes, because it reaches the other FSP so.
"""

from http import HTTPStatus
from typing import Final

from fastapi import Request, Response

from bulk_api_adapter.fspiop.in_flight import InFlight
from bulk_api_adapter.fspiop.intake import Intake, request_of
from bulk_api_adapter.fspiop.limits import EdgeLimits
from bulk_api_adapter.fspiop.reception import Errand, Received, Reception
from domain.combinations import SINGLE_ABORT, SINGLE_COMMIT, SINGLE_PREPARE, SINGLE_RESERVE, TRANSFER_GET, Combination
from domain.fspiop_errors import ErrorCode
from domain.identifiers import id_bytes
from schemas.fspiop.bodies import canonical_hash, parse_put_error, parse_transfer_post, parse_transfer_put
from schemas.fspiop.datetimes import parse_datetime_ms
from schemas.fspiop.errors import Refusal
from schemas.fspiop.types import TransfersIDPutResponse
from schemas.messages import SingleFulfil, SinglePrepare, TransferGet

TRANSFERS: Final = "transfers"
# RESERVED as an answer, and the PATCH that tells its outcome, came with FSPIOP 1.1.
_VERSION_WITHOUT_RESERVED: Final = "version=1.0"


class Transfers:
    """The endpoints of /transfers."""

    def __init__(self, reception: Reception, in_flight: InFlight, intake: Intake, limits: EdgeLimits) -> None:
        self._reception = reception
        self._in_flight = in_flight
        self._intake = intake
        self._limits = limits

    async def post(self, request: Request) -> Response:
        with self._reception.place(Errand.NEW_WORK) as place:
            self._intake.require_way(Errand.NEW_WORK)
            self._in_flight.require_known()
            received = await self._reception.receive(place, request, TRANSFERS, parse_transfer_post)
            body = received.body
            transfer = request_of(received, id_bytes(body["transferId"]))
            message = SinglePrepare(
                **transfer.said(SINGLE_PREPARE),
                transfer_id=transfer.entity_id,
                destination=received.headers.destination,
                payer_fsp=body["payerFsp"],
                payee_fsp=body["payeeFsp"],
                currency=body["amount"]["currency"],
                amount=body["amount"]["amount"],
                condition=body["condition"],
                expiration_ms=parse_datetime_ms(body["expiration"]),
                hash=canonical_hash(body),
            )
            with self._in_flight.counted(received.headers.source, SINGLE_PREPARE.topic, transfer.entity_id, 1):
                await self._intake.keep_and_publish(Errand.NEW_WORK, SINGLE_PREPARE.topic, transfer, message)
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def get(self, request: Request) -> Response:
        with self._reception.place(Errand.QUESTION):
            self._intake.require_way(Errand.QUESTION)
            received = await self._reception.receive_without_body(request, TRANSFERS)
            asked = request_of(received, received.path_id)
            message = TransferGet(**asked.said(TRANSFER_GET), transfer_id=asked.entity_id)
            await self._intake.publish(TRANSFER_GET.topic, asked, message)
        return Response(status_code=HTTPStatus.ACCEPTED)

    async def put(self, request: Request) -> Response:
        with self._reception.place(Errand.ANSWER) as place:
            self._intake.require_way(Errand.ANSWER)
            received = await self._reception.receive(place, request, TRANSFERS, parse_transfer_put)
            self._require_not_ahead(received)
            combination = _combination(received)
            if combination is not None:
                answer = request_of(received, received.path_id)
                message = SingleFulfil(
                    **answer.said(combination),
                    transfer_id=answer.entity_id,
                    fulfilment=received.body.get("fulfilment"),
                    completed_timestamp=received.body.get("completedTimestamp"),
                    error_code=None,
                    error_description=None,
                    hash=canonical_hash(received.body),
                )
                await self._intake.keep_and_publish(Errand.ANSWER, combination.topic, answer, message)
        return Response(status_code=HTTPStatus.OK)

    async def put_error(self, request: Request) -> Response:
        with self._reception.place(Errand.ANSWER) as place:
            self._intake.require_way(Errand.ANSWER)
            received = await self._reception.receive(place, request, TRANSFERS, parse_put_error)
            answer = request_of(received, received.path_id)
            information = received.body["errorInformation"]
            message = SingleFulfil(
                **answer.said(SINGLE_ABORT),
                transfer_id=answer.entity_id,
                fulfilment=None,
                completed_timestamp=None,
                error_code=information["errorCode"],
                error_description=information["errorDescription"],
                hash=canonical_hash(received.body),
            )
            await self._intake.keep_and_publish(Errand.ANSWER, SINGLE_ABORT.topic, answer, message)
        return Response(status_code=HTTPStatus.OK)

    def _require_not_ahead(self, received: Received[TransfersIDPutResponse]) -> None:
        completed = received.body.get("completedTimestamp")
        ahead_ms = self._limits.completed_timestamp_ahead_ms
        if completed is not None and parse_datetime_ms(completed) > received.received_at_ms + ahead_ms:
            raise Refusal(ErrorCode.VALIDATION_ERROR, f"completedTimestamp is more than {ahead_ms} ms in the future")


def _combination(received: Received[TransfersIDPutResponse]) -> Combination | None:
    """What the payee's answer becomes; None where it has no effect."""
    state = received.body["transferState"]
    if state == "COMMITTED":
        return SINGLE_COMMIT
    if state == "RESERVED" and not received.headers.kept["content-type"].endswith(_VERSION_WITHOUT_RESERVED):
        return SINGLE_RESERVE
    return None
