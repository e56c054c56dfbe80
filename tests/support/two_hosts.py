"""Two hosts on one machine: two network namespaces with one link between them, whose rate can be set.

    with TwoHosts() as hosts:  # TwoHosts(delay_ms=5): frames are late by that, each way (delayed_link.py)
        hosts.set_rate(400)                                    # Mbit/s, each way
        subprocess.run(hosts.mpirun() + ["strake", "train", ...])  # a rank on each host
        subprocess.run(hosts.on(1) + [...])                    # a program on one of them

Ranks that mpirun starts cannot share memory across the hosts: the byte counters of the link (`sent_bytes`) show what
went over it. Namespaces and what runs in them are removed at the end of the block, by SIGINT, SIGTERM and SIGHUP too;
what a process left that was killed by SIGKILL is removed by the next one. Nothing outside the two namespaces changes.

Needs root, ip and tc (package iproute2), unshare (util-linux); `why_not()` says what is missing.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import delayed_link

PREFIX = "strake-hosts"  # names of namespaces: PREFIX-PID-NUMBER
LINK = "link0"
NETWORK = "10.77.0.0/24"  # known in the namespaces only
PACKET_BYTES = 16384  # handed to the link in one piece, as a network card takes them
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def why_not():
    """What keeps this machine from having two hosts, in one line; empty: nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("unshare", "util-linux"), ("mpirun", "openmpi-bin")):
        if shutil.which(tool) is None:
            return f"there is no {tool}; on Debian or Ubuntu: apt-get install {package}"
    try:
        with TwoHosts() as hosts:
            hosts.set_rate(1000)
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip() or 'refused'}"
    return ""


def leave(number, _):
    raise SystemExit(128 + number)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class TwoHosts:
    def __init__(self, delay_ms=0):
        self.delay_ms, self.carrier = delay_ms, None
        self.names = [f"{PREFIX}-{os.getpid()}-{i}" for i in range(2)]
        self.scratch, self.handlers = None, {}

    def __enter__(self):
        self.remove_stale()
        for each in SIGNALS:  # ends the block, and so the hosts
            self.handlers[each] = signal.signal(each, leave)
        try:
            self.scratch = tempfile.TemporaryDirectory(prefix=f"{PREFIX}-")
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        if self.carrier is not None:
            os.kill(self.carrier, signal.SIGKILL)
            os.waitpid(self.carrier, 0)
        for name in self.names:
            self.remove(name)
        if self.scratch is not None:
            self.scratch.cleanup()
        for each, handler in self.handlers.items():
            signal.signal(each, handler)

    def make(self):
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        first, second = self.names
        if self.delay_ms > 0:
            self.carrier = delayed_link.start(self.names, LINK, self.delay_ms / 1e3)
        else:
            run("ip", "-n", first, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", second)
        for name, address in zip(self.names, ADDRESSES):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", LINK)
            if self.delay_ms > 0:
                run("ip", "-n", name, "link", "set", LINK, "mtu", str(delayed_link.MTU))
            else:
                run("ip", "-n", name, "link", "set", LINK, "gso_max_size", str(PACKET_BYTES))
            run("ip", "-n", name, "link", "set", LINK, "up")
        # How Open MPI starts its daemon on the other host: AGENT ADDRESS COMMAND... It takes hosts of one name for one.
        lines = [f"  {address}) host={name} ;;" for address, name in zip(ADDRESSES, self.names)]
        agent = pathlib.Path(self.agent)
        agent.write_text(
            "\n".join(
                [
                    "#!/bin/sh",
                    "case $1 in",
                    *lines,
                    "esac",
                    "shift",
                    'exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"',
                    "",
                ]
            )
        )
        agent.chmod(0o700)

    @property
    def agent(self):
        return f"{self.scratch.name}/agent"

    @staticmethod
    def remove(name):
        if not pathlib.Path("/run/netns", name).exists():
            return
        for _ in range(50):  # a daemon may be about to start another
            inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            if not inside:
                break
            for pid in map(int, inside):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)

    @classmethod
    def remove_stale(cls):
        folder = pathlib.Path("/run/netns")
        for path in folder.glob(f"{PREFIX}-*-*") if folder.exists() else []:
            if not pathlib.Path("/proc", path.name.split("-")[-2]).exists():
                cls.remove(path.name)

    def set_rate(self, mbit_per_s):
        """Of each direction. None: as fast as the kernel copies."""
        for name in self.names:
            subprocess.run(["tc", "-n", name, "qdisc", "del", "dev", LINK, "root"], capture_output=True)
            if mbit_per_s is None:
                continue
            # The burst is what may pass at once behind a pause: several packets, or the kernel would cut them up, and a
            # timer that is late would lose a part of the rate.
            run(
                "tc",
                "-n",
                name,
                "qdisc",
                "add",
                "dev",
                LINK,
                "root",
                "tbf",
                "rate",
                f"{round(mbit_per_s * 1000)}kbit",
                "burst",
                str(4 * PACKET_BYTES),
                "latency",
                "50ms",
            )

    def sent_bytes(self):
        """By each host, since the link was made."""
        links = [json.loads(run("ip", "-n", name, "-s", "-j", "link", "show", LINK))[0] for name in self.names]
        return [link["stats64"]["tx"]["bytes"] for link in links]

    def on(self, host):
        """Before a command: runs it on that host."""
        name = self.names[host]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name]

    def mpirun(self, *options):
        """Before a command: runs it on both hosts, one rank each; mpirun itself runs on the first."""
        return self.on(0) + [
            "mpirun", "--bind-to", "none", "--host", f"{ADDRESSES[0]}:1,{ADDRESSES[1]}:1", "-n", "2",
            "--mca", "plm", "rsh", "--mca", "plm_rsh_agent", self.agent,
            "--mca", "pml", "ob1", "--mca", "btl", "tcp,self",
            "--mca", "btl_tcp_if_include", NETWORK, "--mca", "oob_tcp_if_include", NETWORK, *options,
        ]
