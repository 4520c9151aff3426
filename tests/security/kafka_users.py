"""A user that a broker knows by SCRAM, made as an operator makes it."""

from dataclasses import dataclass

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # all are public, but not all marked as exported
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class ScramUser:
    name: str
    password: str


SCRAM_USER = ScramUser("switch", "scram-password-of-the-switch")


def add_scram_user(bootstrap: str, user: ScramUser) -> None:
    """With both mechanisms; the cluster knows them when this returns, and the brokers a moment later."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        credential = ScramCredentialInfo(mechanism, 4096)
        change = UserScramCredentialUpsertion(user.name, credential, user.password.encode())
        for future in admin.alter_user_scram_credentials([change]).values():
            future.result(timeout=_WAIT_S)
