"""
Logs as many events as its first argument says to the file that is its second,
and prints what that took.
"""

from __future__ import annotations

import json
import sys
import time

from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

count = int(sys.argv[1])
with open(sys.argv[2], "w") as file:
    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(file)], redirectStandardIO=False
    )
    log = Logger()
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        log.info(
            "request {number} of {peer} took {seconds:.3f} s",
            number=number,
            peer="192.0.2.1",
            seconds=0.25,
        )
    file.flush()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"wall": wall, "cpu": cpu}))
