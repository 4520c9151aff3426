"""Every object store there is, empty and ready, for the contract that all of them keep."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from object_store.folder import FolderObjectStore
from object_store.interface import ObjectStore


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "folder":
        yield FolderObjectStore(tmp_path / "objects")
    else:
        yield request.getfixturevalue("s3_store")
