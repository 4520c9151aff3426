"""The bench: whole bulks through the real processes, and the same rows written as fast as PostgreSQL takes them.

__main__        the command: options, and which exit status says what
measurement     the order of a run, and the figures that come of it
beneath         the services of the run's own: none, a Kafka broker, or Kafka, PostgreSQL and S3
world           `bulk-switch up` in a fresh data folder, on them
fsps            payer and payee in a process of their own, which post bulks and measure their latency
cpu             CPU seconds per process, PostgreSQL's backends by who uses them
failure         BenchFailed
fairness        how long a single transfer takes while bulks queue
limit_bulk      the bulk that the ceiling is measured with
database_limit  the ceiling: the statements of db/ back to back, on two connections
object_proof    what must be true of the object store afterwards
proof           what must be true of the rows afterwards, else there is no figure
report          the table, and the JSON document
"""
