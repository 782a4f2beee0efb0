"""A fresh Debian in a folder, made with Debian's own tools, and the steps of a Containerfile in it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO")
"""How this machine reaches the network; the fresh one stands behind the same proxies and authorities."""
AUTHORITIES = "etc/host-authorities.pem"
BUILT_IN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


def lacking() -> str:
    """What this machine lacks to make a fresh one; "" for nothing."""
    if os.geteuid():
        return "wants root, to enter another file system"
    return "" if shutil.which("mmdebstrap") else "wants mmdebstrap (Debian: apt-get install mmdebstrap)"


@dataclass
class Fresh:
    """A root that has what Debian calls minimal, and nothing else."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(BUILT_IN))
    folder: str = "/"

    @classmethod
    def made(cls, suite: str, root: Path) -> Fresh:
        """Debian's `suite`, from its archive."""
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, str(root)], check=True)
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
        fresh = cls(root)
        fresh.environment |= {name: os.environ[name] for name in PROXIES if name in os.environ}
        trusted = next((os.environ[name] for name in CERTIFICATES if name in os.environ), None)
        if trusted is not None:
            shutil.copyfile(trusted, root / AUTHORITIES)
            fresh.environment |= dict.fromkeys(CERTIFICATES, f"/{AUTHORITIES}")
        return fresh

    def run(self, command: str, timeout: int = 3600) -> subprocess.CompletedProcess[str]:
        """Run a shell command in it, in a process space and with devices as in a container."""
        enter = (
            f"mount --rbind /dev {self.root}/dev && mount -t proc proc {self.root}/proc && "
            f'mount -t tmpfs tmpfs {self.root}/dev/shm && exec chroot {self.root} /usr/bin/env -i "$@"'
        )
        given = [f"{name}={value}" for name, value in self.environment.items()]
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "sh", *given,
             "sh", "-c", f"cd {self.folder} && {command}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )  # fmt: skip

    def must(self, command: str, timeout: int = 3600) -> str:
        """Run it; what it printed, once it succeeded."""
        done = self.run(command, timeout)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
        return done.stdout


def steps(containerfile: Path) -> Iterator[tuple[str, str]]:
    """The instructions of a Containerfile with their arguments, in order."""
    lines = [line for line in containerfile.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, " ".join(rest.split())


def built(containerfile: Path, context: Path, root: Path) -> Fresh:
    """What a builder of images would make of it; `context` is the folder that COPY takes from."""
    first, *others = steps(containerfile)
    assert first[0] == "FROM" and first[1].startswith("debian:"), first
    fresh = Fresh.made(first[1].removeprefix("debian:").removesuffix("-slim"), root)
    for word, rest in others:
        match word:
            case "RUN":
                fresh.must(rest)
            case "WORKDIR":
                fresh.folder = rest
                (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                source, target = rest.split()
                shutil.copytree(
                    context / source, root / fresh.folder.lstrip("/") / target, dirs_exist_ok=True, symlinks=True
                )
            case "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    fresh.environment[name] = value.replace("$PATH", fresh.environment["PATH"])
            case "CMD":
                pass
            case _:
                raise AssertionError(f"{containerfile}: {word} is not understood here")
    return fresh
