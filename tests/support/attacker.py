"""What a user does who wants to be somebody else: a program that runs under his account and prints what worked.

Run with `python -c PROGRAM JSON`; JSON has `pids` (name: pid), `sockets` and `paths`.  It prints a list of [what, whom]
of every attempt that succeeded.
"""

from __future__ import annotations

PROGRAM = r"""
import ctypes, json, os, signal, socket, sys

given = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = libc.ptrace.restype = ctypes.c_long
worked = []


def attempt(what, whom, do):
    try:
        do()
    except OSError:
        return
    worked.append([what, whom])


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_DETACH = 16, 0x4206, 17
SYS_TGKILL, SYS_VM_READV, SYS_VM_WRITEV, SYS_PIDFD_SEND_SIGNAL, SYS_PIDFD_GETFD, SYS_KCMP = 234, 310, 311, 424, 438, 312


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def trace(request, pid):
    checked(libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None))
    libc.ptrace(ctypes.c_long(PTRACE_DETACH), ctypes.c_long(pid), None, None)


def copy_memory(call, pid):
    buffer = ctypes.create_string_buffer(8)
    here, there = Part(ctypes.addressof(buffer), 8), Part(0x400000, 8)
    result = libc.syscall(call, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    # Nothing may be there; that one may look is what counts.
    if result < 0 and ctypes.get_errno() != 14:
        raise OSError(ctypes.get_errno(), "refused")


def steal_descriptor(pid, number):
    pidfd = os.pidfd_open(pid)
    try:
        os.close(checked(libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)))
    finally:
        os.close(pidfd)


def signal_by_pidfd(pid):
    pidfd = os.pidfd_open(pid)
    try:
        checked(libc.syscall(SYS_PIDFD_SEND_SIGNAL, pidfd, signal.SIGKILL, None, 0))
    finally:
        os.close(pidfd)


for name, pid in given["pids"].items():
    at = f"/proc/{pid}"
    attempt("open mem", name, lambda: os.open(f"{at}/mem", os.O_RDONLY))
    for entry in ("environ", "maps", "smaps", "auxv", "pagemap", "syscall", "stack", "io", "personality"):
        attempt(f"read {entry}", name, lambda: os.read(os.open(f"{at}/{entry}", os.O_RDONLY), 1))
    attempt("write mem", name, lambda: os.open(f"{at}/mem", os.O_WRONLY))
    attempt("list fd", name, lambda: os.listdir(f"{at}/fd"))
    attempt("list map_files", name, lambda: os.listdir(f"{at}/map_files"))
    for entry in ("cwd", "root", "exe", "ns/mnt", "ns/user"):
        attempt(f"follow {entry}", name, lambda: os.readlink(f"{at}/{entry}"))
    for entry in ("oom_score_adj", "coredump_filter", "clear_refs", "timerslack_ns"):
        attempt(f"write {entry}", name, lambda: os.write(os.open(f"{at}/{entry}", os.O_WRONLY), b"0"))
    for number in range(3, 20):
        attempt(f"open fd {number}", name, lambda: os.open(f"{at}/fd/{number}", os.O_RDONLY))
    attempt("ptrace attach", name, lambda: trace(PTRACE_ATTACH, pid))
    attempt("ptrace seize", name, lambda: trace(PTRACE_SEIZE, pid))
    attempt("read memory", name, lambda: copy_memory(SYS_VM_READV, pid))
    attempt("write memory", name, lambda: copy_memory(SYS_VM_WRITEV, pid))
    for number in (0, 3, 4, 5, 6):
        attempt("take a descriptor", name, lambda: steal_descriptor(pid, number))
    attempt("compare descriptors", name, lambda: checked(libc.syscall(SYS_KCMP, pid, os.getpid(), 0, 0, 0)))
    if name == given["own"]:
        continue
    for number in (0, signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGCONT):
        attempt(f"signal {number}", name, lambda: os.kill(pid, number))
        attempt(f"signal {number} to the thread", name, lambda: checked(libc.syscall(SYS_TGKILL, pid, pid, number)))
    attempt("signal to the group", name, lambda: os.killpg(os.getpgid(pid), signal.SIGKILL))
    attempt("signal by pidfd", name, lambda: signal_by_pidfd(pid))
    attempt("change priority", name, lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    attempt("change affinity", name, lambda: os.sched_setaffinity(pid, {0}))

for path in given["sockets"]:
    attempt("connect", path, lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(path))
for path in given["paths"]:
    attempt("list", path, lambda: os.listdir(path))
    attempt("read", path, lambda: os.read(os.open(path, os.O_RDONLY), 1))
    attempt("write", path, lambda: os.open(path, os.O_WRONLY))
    attempt("make a file in", path, lambda: os.open(f"{path}/planted", os.O_WRONLY | os.O_CREAT))
    attempt("link", path, lambda: os.link(path, f"{given['place']}/link"))
    attempt("rename", path, lambda: os.rename(path, f"{path}.old"))
    attempt("unlink", path, lambda: os.unlink(path))
    attempt("chmod", path, lambda: os.chmod(path, 0o777))

print(json.dumps(worked))
"""
