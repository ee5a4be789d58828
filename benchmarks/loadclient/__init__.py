"""
Offers load at a steady rate from a process of its own, and says of each request
that failed how it did.  It talks to this machine only.

    python -m benchmarks.loadclient '{"seconds": 5, "offers":
        [{"kind": "new", "port": 8080, "rate": 500},
         {"kind": "kept", "port": 8080, "rate": 500, "path": "/?delay=100"}]}'

The load is open: what is slow to answer does not slow down what is asked.  What
is sent once is not sent again.  On the standard output come two lines of JSON:
C{{"flowing": …}} when each kind has had its first answer, and what was found.

    outcomes   how requests end; pure
    clock      the time in which this process itself ran, and the pace; pure
    tally      counts, the longest time without a success, latencies
    specs      what can be asked for
    answers    HTTP/1.1, as far as needed; pure
    frames     WebSocket and HTTP/2, likewise
    dialing    sockets, and TLS
    offering   what all kinds have in common
    http1, http2, websocket   the kinds
    running    a run from beginning to end
"""
