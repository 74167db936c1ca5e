"""A service that works for several people at once: deliver_many.py ROUNDS URL USER...

One thread for each user impersonates him, with a dynamic blanket on every object, and makes ROUNDS jobs; the
last one gets the file of URL and is started. Prints `USER ID` for each job.
"""

from __future__ import annotations

import sys
import threading

import openbits

openbits.initialize_security(openbits.Cloaking.DYNAMIC)


def deliver(manager: openbits.Manager, user: str, rounds: int, url: str) -> None:
    """Make one user's jobs."""
    for number in range(rounds):
        with openbits.impersonate(user):
            job = manager.create_job(f"delivery {number}")
            if number == rounds - 1:
                job.add_file(url, f"/home/{user}/delivery")
                job.resume()
        print(user, job.id, flush=True)


def main(rounds: int, url: str, users: list[str]) -> None:
    """All users at once, over one manager."""
    with openbits.Manager() as manager:
        threads = [threading.Thread(target=deliver, args=(manager, user, rounds, url)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
