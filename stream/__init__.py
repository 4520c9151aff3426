"""Topics to read and write. `interface` says what a stream is; `opening` opens the one that a URL names.

    table, table_…, session   three tables of the database, for one machine
    kafka, kafka_…            an Apache Kafka cluster
    ticks                     the clock, read like a partition
    limits                    what no stream takes

Both streams run under one contract suite (tests/stream), so a handler cannot tell which one it is on.
"""
