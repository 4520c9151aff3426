"""One module per handler, and the loop that runs them.

handler     what a handler is, its outputs, the three kinds of trouble
loop        consume, load, decide, save, journal, acknowledge: the same for all
session     the loop between one assignment and the next: offsets, journals, the producer
log_identity  a log that began anew is not read on
bulk_prepare, prepare, position, bulk_processing, bulk_fulfil, fulfil, timeout, bulk_get, notification
            what each consumes, what it may refuse and in which order, what it changes, what it emits
single_prepare, single_position, single_fulfil, single_notification, transfer_get
            the same of single transfers, on a lane of their own
object_calls  object store calls of a batch, several at once, within a time
metrics, tracing  what a handler tells of itself, and of its place in a trace
deliverer   sends the callbacks that notification wrote down
host        runs one or several handlers as a process
"""
