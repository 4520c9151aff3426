"""The admin resources: who takes part, with which accounts, limits, funds and addresses (reference §10, §11.1–11).

    participants, keys, limits, funds,
    settlement_models                  the acts, by subject: usable without HTTP, each one transaction
    transactions                       what payer and payee agreed on, out of an ilpPacket
    acts                               what an act is: its transaction, its locks' patience, its audit row
    provision                          everything that one FSP needs, through the same acts
    bodies, answers                    JSON in and out, with amounts that no float touches
    routes, app                        the resources, on an application and port of their own

An act that cannot be done raises `schemas.fspiop.errors.Refusal` and leaves nothing behind. What is unknown is 3200 and
status 400, as central-ledger gives every code of the 32xx family; a body that is wrong is 3100, 3101 or 3102 and names
the field. The one 500 that clients wait for is a second initialPositionAndLimits (`already set`, reference §11.3).
Nothing is cached: what an act has changed holds for the very next request.
"""
