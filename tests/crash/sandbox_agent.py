"""A program that provisions and destroys sandboxes, many at a time, and logs what it is told; it may be killed.

    python sandbox_agent.py STORE LOG BACKEND AT_A_TIME ROUNDS KNOWN...

It recovers what it knows, says ``ready`` and waits for a line. Then each round provisions so many sandboxes at a time,
and destroys them. Each line of the log is written at once: ``+ID`` once a sandbox is there, ``-ID`` before it is
destroyed.
"""

from __future__ import annotations

import os
import sys

from support.processes import TIMEOUT

from pykka_imagestore import LocalStore, Provisioner


def main() -> None:
    store_directory, log_path, backend, at_a_time, rounds, *known = sys.argv[1:]
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with LocalStore.start(store_directory) as store, Provisioner.start(store) as provisioner:
        recovery = provisioner.recover(known).get(timeout=TIMEOUT)
        for rootfs in recovery.adopted:
            provisioner.destroy(rootfs.container_id).get(timeout=TIMEOUT)
        print("ready", flush=True)
        input()
        for number in range(int(rounds)):
            boxes = [f"box-{os.getpid()}-{number}-{n}" for n in range(int(at_a_time))]
            for box, coming in [(box, provisioner.provision(box, "app:alpha", backend=backend)) for box in boxes]:
                coming.get(timeout=TIMEOUT)
                os.write(log, f"+{box}\n".encode())
            os.write(log, "".join(f"-{box}\n" for box in boxes).encode())
            for gone in [provisioner.destroy(box) for box in boxes]:
                gone.get(timeout=TIMEOUT)
    print("done", flush=True)


if __name__ == "__main__":
    main()
