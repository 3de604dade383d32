"""Two hosts on one machine: network namespaces joined by a cable, with sshd where there is one.

Where namespaces are not permitted, the hosts are two names: what runs "there" has temporary files
of its own and is told apart by a variable.
"""

import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zero_sizer.dryrun.launched.hosts import SSH

ROOT = Path(__file__).parents[2]
_COUNT = itertools.count()
WORD = "ZS_TEST_HOST"  # in the environment of whatever runs on a host
NETWORK = "10.213.77"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class TwoHosts:
    """Host ``a``, where whoever asks is, and host ``b``.

    Attributes:
        how: ``ssh``, ``namespaces`` or ``names``.
        folder: has ``a`` and ``b``, where each host's temporary files are.
        options: of the command line, to reach them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = f"zs{os.getpid()}-{next(_COUNT)}"
        self.stack = contextlib.ExitStack()
        for host in "ab":
            (folder / host).mkdir()
        (folder / "hostfile").write_text("a slots=1\nb slots=1\n")
        self.how = "names"
        if IP and self._make_namespaces():
            self.how = "ssh" if SSHD and shutil.which("ssh") and os.getuid() == 0 else "namespaces"
        self.rsh = self._serve_ssh() if self.how == "ssh" else str(self._write_rsh())
        self.options = ["--hostfile", str(folder / "hostfile"), "--rsh", self.rsh]
        if self.how == "names":
            self.options += ["--master", "127.0.0.1"]

    def _ip(self, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        command = [str(IP), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, **more)

    def _make_namespaces(self) -> bool:
        try:
            for host in "ab":
                self._ip("netns", "add", self.id + host)
                self.stack.callback(self._ip, "netns", "delete", self.id + host)
            ends = [part for host in "ab" for part in ("name", "eth0", "netns", self.id + host)]
            self._ip("link", "add", *ends[:4], "type", "veth", "peer", *ends[4:])
            for number, host in enumerate("ab", start=1):
                inside = ("-n", self.id + host)
                self._ip(*inside, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
                self._ip(*inside, "link", "set", "eth0", "up")
                self._ip(*inside, "link", "set", "lo", "up")
        except subprocess.CalledProcessError:
            self.stack.close()
            return False
        return True

    def _write_rsh(self) -> Path:
        path = self.folder / "rsh"
        inside = f'{IP} netns exec {self.id}"$host"' if self.how == "namespaces" else ""
        variables = f'TMPDIR={self.folder}/"$host" {WORD}={self.id}"$host"'
        path.write_text(f'#!/bin/sh\nhost=$1\nshift\nexec {inside} env {variables} "$@"\n')
        path.chmod(0o700)
        return path

    def _serve_ssh(self) -> str:
        keys = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key")]
        subprocess.run(keys, check=True)
        Path("/run/sshd").mkdir(exist_ok=True)  # for the separation of its privileges
        hosts = []
        for number, host in enumerate("ab", start=1):
            config = self.folder / f"sshd_{host}"
            config.write_text(
                f"ListenAddress {NETWORK}.{number}\nHostKey {self.folder}/key\nUsePAM no\n"
                f"AuthorizedKeysFile {self.folder}/key.pub\nStrictModes no\nPidFile none\n"
                "ClientAliveInterval 2\nClientAliveCountMax 2\n"
                f"PermitRootLogin yes\nSetEnv TMPDIR={self.folder}/{host} {WORD}={self.id}{host}\n"
            )
            command = self.inside(host, [str(SSHD), "-D", "-f", str(config)])
            server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            self.stack.callback(server.wait)
            self.stack.callback(server.kill)
            hosts.append(f"Host {host}\n HostName {NETWORK}.{number}\n")
        (self.folder / "ssh_config").write_text(
            "".join(hosts) + f"Host *\n IdentityFile {self.folder}/key\n ConnectionAttempts 20\n"
            " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
        )
        return f"{SSH} -F {self.folder}/ssh_config"

    def inside(self, host: str, command: list[str]) -> list[str]:
        """A command line of this machine that runs a command on a host."""
        if self.how == "names":
            return command
        return [str(IP), "netns", "exec", self.id + host, *command]

    def start(self, arguments: list[str], cwd: Path) -> "subprocess.Popen[str]":
        """Python on host ``a``, as whoever asks."""
        path = os.pathsep.join([str(ROOT), str(cwd), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            self.inside("a", [sys.executable, *arguments]),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "DS_ACCELERATOR": "cpu",
                "TMPDIR": str(self.folder / "a"),
            },
        )

    def crossed(self) -> int:
        """Bytes that came over the cable to host ``b``."""
        (link,) = json.loads(
            self._ip("-n", self.id + "b", "-s", "-j", "link", "show", "eth0").stdout
        )
        return int(link["stats64"]["rx"]["bytes"])

    def pull_the_cable(self) -> None:
        """No packet reaches host ``b`` any more, and nobody is told."""
        self._ip("-n", self.id + "b", "link", "set", "lo", "up")
        self._ip("-n", self.id + "b", "addr", "flush", "dev", "eth0")

    def processes(self, host: str) -> list[int]:
        """Processes of a host."""
        mark, found = f"{WORD}={self.id}{host}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def left(self) -> list[str]:
        """Whatever a run has left when the processes of both hosts have ended; waits for that."""
        for pid in (pid for host in "ab" for pid in self.processes(host)):
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                ended = select.select([handle], [], [], 20)[0]
                os.close(handle)
                if not ended:
                    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")]
        found = [path for host in "ab" for path in (self.folder / host).glob("zero-sizer*")]
        return [str(path) for path in found]


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Two hosts that are gone with the block."""
    hosts = TwoHosts(folder)
    with hosts.stack:
        yield hosts
