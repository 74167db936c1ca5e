"""A shell in a booted machine with OpenBITS, for people who want to look around: `scripts/boot-shell.sh`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from support import nspawn_root
from support.nspawn import ENVIRONMENT, booted
from support.nspawn_install import install, prepare

WELCOME: Final = """\
Debian with systemd, D-Bus, logind, sshd and OpenBITS; it is gone when this shell ends.
  ssh -o StrictHostKeyChecking=no alice@127.0.0.1     log on (bob too)
  bits get --async http://127.0.0.1:8080/file/50000000/1 -o /home/alice/x    echo 1000000 >/srv/boot/rate
  journalctl -u openbits     loginctl     systemctl reboot (ends this shell)
"""


def main(command: Sequence[str]) -> int:
    """Boot, run a command or a shell, and return its exit status."""
    unmet = nspawn_root.unmet_need()
    if unmet:
        print(f"boot-shell: {unmet}", file=sys.stderr)
        return 1
    with nspawn_root.scratch_directory() as scratch:
        root = scratch / "machine"
        root.mkdir()
        prepare(root)
        with booted(root, scratch) as machine:
            install(machine)
            if not command:
                print(WELCOME)
            inside = machine.inside(*(command or ("bash", "-l")))
            return subprocess.run(inside, env={**ENVIRONMENT, "TERM": "linux"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
