"""Who we are to a Kafka cluster and whom we trust, in the client's own words.

A broker's certificate must be valid and name the host that was connected to; neither check can be switched off.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """`protocol` is Kafka's security.protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. Files are PEM."""

    protocol: str = "PLAINTEXT"
    # Empty: the authorities that this machine trusts.
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password: str = field(default="", repr=False)
    # PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    sasl_mechanism: str = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)

    def client_settings(self) -> dict[str, str]:
        """What librdkafka is told; nothing where nothing is wanted."""
        settings: dict[str, str] = {}
        if self.protocol != "PLAINTEXT":
            settings["security.protocol"] = self.protocol
        if self.protocol.endswith("SSL"):
            # The client brings an OpenSSL of its own, which has to look for the machine's authorities.
            settings["ssl.ca.location"] = self.ca_file or "probe"
            settings["ssl.endpoint.identification.algorithm"] = "https"
            if self.certificate_file:
                settings["ssl.certificate.location"] = self.certificate_file
                settings["ssl.key.location"] = self.key_file
            if self.key_password:
                settings["ssl.key.password"] = self.key_password
        if self.protocol.startswith("SASL"):
            settings["sasl.mechanism"] = self.sasl_mechanism
            settings["sasl.username"] = self.sasl_username
            settings["sasl.password"] = self.sasl_password
        return settings
