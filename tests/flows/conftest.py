"""A pipeline on a fresh database with three FSPs."""

import pytest
from sqlalchemy import Engine

from object_store.folder import FolderObjectStore
from schemas.topics import CATALOGUE
from stream.interface import TopicDescription
from stream.table import TableStream
from tests.bulks import provision
from tests.pipeline import Pipeline


@pytest.fixture
def pipeline(engine: Engine, object_store: FolderObjectStore) -> Pipeline:
    provision(engine)
    stream = TableStream(engine)
    stream.create_topics(TopicDescription(t.name, t.partitions, t.retention_ms) for t in CATALOGUE.values())
    return Pipeline(engine, object_store, stream)
