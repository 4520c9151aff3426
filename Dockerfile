# The switch as an image: one wheel and what it needs, for an ordinary user, on any read-only file system.
# Tags say exact versions; whoever builds for production adds the digests of the day (docs/security.md).
FROM python:3.11.14-slim-bookworm AS build
# The layers keep what is installed, not what it was installed from.
ENV PIP_NO_CACHE_DIR=1
WORKDIR /source
# Libraries first: they change with the lock only, and are the long part.
COPY requirements.lock ./
COPY deploy/image deploy/image
RUN deploy/image/install-requirements /opt/bulk-switch
COPY pyproject.toml README.md LICENSE ./
COPY domain domain
COPY schemas schemas
COPY db db
COPY stream stream
COPY object_store object_store
COPY handlers handlers
COPY bulk_api_adapter bulk_api_adapter
COPY operations operations
RUN deploy/image/install-switch /opt/bulk-switch

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/bulk-switch /opt/bulk-switch
COPY deploy/image/health.py /opt/bulk-switch/health.py
ENV PATH=/opt/bulk-switch/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    BULK_SWITCH_DATA_FOLDER=/tmp/bulk-switch
# A number: an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 3001 3003 9464
# For `api`; the other processes say theirs where they are started (docker-compose.yml).
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/bulk-switch/health.py", "http://127.0.0.1:3003/health"]
STOPSIGNAL SIGTERM
# Python is the process that gets the signals: the exec form, and no shell in between.
ENTRYPOINT ["bulk-switch"]
CMD ["--help"]
