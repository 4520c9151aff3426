"""The HTTP edge: validates, keeps, publishes, answers. What must hold at once is for the handlers to judge.

fspiop/           /bulkTransfers as FSPs speak it
admin/            participants, accounts, limits, endpoints and funds, on an app and port of their own
publishing        many requests' records to the stream with one wait for acknowledgement
metrics           what an app counts about itself, for Prometheus
tracing           the first hop of a trace
asgi              what a middleware has to do with
error_answers     refusals as both apps' clients read them
bounded_threads   blocking calls from the event loop
serving           runs an app on a socket, with limits on what a connection may do
"""
