"""What a server shows to its clients, for the services that are to speak TLS."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files: the server's certificate with its chain, its private key, and the authority that clients trust."""

    certificate_file: Path
    key_file: Path
    ca_file: Path

    def copied_to(self, folder: Path, user: str | None = None) -> tuple[Path, Path]:
        """Certificate and key in the service's folder, the key for the server's user alone."""
        copies = folder / "server.crt", folder / "server.key"
        for source, target in zip((self.certificate_file, self.key_file), copies, strict=True):
            shutil.copyfile(source, target)
            os.chmod(target, 0o600)  # noqa: PTH101  # beside the change of owner
            if user is not None:
                shutil.chown(target, user, user)
        return copies
