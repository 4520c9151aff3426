"""One module per handler, and the loop that runs them.

handler     what a handler is, its outputs, the three kinds of trouble
loop        consume, load, decide, save, journal, acknowledge: the same for all
bulk_prepare, prepare, position, bulk_processing, bulk_fulfil, fulfil, timeout, bulk_get, notification
            what each consumes, what it may refuse and in which order, what it changes, what it emits
deliverer   sends the callbacks that notification wrote down
host        runs one or several handlers as a process
"""
