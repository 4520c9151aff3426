"""Topics to read and write. `interface` says what a stream is; `kafka` and `table` are the two that exist.

Both run under one contract suite (tests/stream), so a handler cannot tell which one it is on.
"""
