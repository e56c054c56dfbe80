"""A link between two network namespaces on which every frame is late by some time, each way; for what must not depend on
it, not for measurements: frames go through this process one by one.

Two TAP devices and a child process that carries frames from each to the other. Needs root and /dev/net/tun.
"""

import collections
import ctypes
import fcntl
import os
import select
import signal
import struct
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1
LONGEST_FRAME = 65536
MTU = 9000
LIBC = ctypes.CDLL(None, use_errno=True)


def why_not():
    """What keeps this machine from having such a link; empty: nothing."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    return ""


def enter(namespace):
    """The calling thread's network namespace becomes that of an open file."""
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)


def open_tap(namespace, device):
    """The file of a TAP device of that name in a namespace of `ip netns`."""
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{namespace}") as other:
        enter(other)
        try:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
        finally:
            enter(own)
    return tap


def carry(taps, delay_s):
    """Frames from each of two to the other, late; does not return."""
    waiting = {tap: collections.deque() for tap in taps}  # (when it is due, frame) for that one
    other = {taps[0]: taps[1], taps[1]: taps[0]}
    while True:
        now = time.monotonic()
        for tap, frames in waiting.items():
            while frames and frames[0][0] <= now:
                try:
                    os.write(tap, frames.popleft()[1])
                except OSError:
                    pass  # as on a wire: nobody is told of what is lost
        next_due = min((frames[0][0] for frames in waiting.values() if frames), default=None)
        ready = select.select(taps, [], [], None if next_due is None else max(0.0, next_due - time.monotonic()))[0]
        for tap in ready:
            try:
                waiting[other[tap]].append((time.monotonic() + delay_s, os.read(tap, LONGEST_FRAME)))
            except OSError:
                pass  # the device is down


def start(namespaces, device, delay_s):
    """Makes the devices; returns the process that carries frames, until it is killed or this one ends."""
    taps = [open_tap(namespace, device) for namespace in namespaces]
    child = os.fork()
    if child == 0:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            carry(taps, delay_s)
        finally:
            os._exit(1)
    for tap in taps:
        os.close(tap)
    return child
