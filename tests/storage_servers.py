"""Real servers on 127.0.0.1 to push to and pull from: S3 (nanio) and SSH (OpenSSH), each with an account of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOST = "127.0.0.1"


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Server:
    """A child process that listens; `kill` is `kill -9`, and `start` begins it again at the same port."""

    def __init__(self, folder):
        self.folder, self.port, self.child = folder, free_port(), None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self):
        log = (self.folder / "server.log").open("ab")
        self.child = subprocess.Popen(
            self.command(), env=self.environment(), stdout=log, stderr=log, start_new_session=True
        )
        while True:  # ends: either it listens, or it is over
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return self
            assert self.child.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.02)

    def kill(self):
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    __enter__ = start

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.kill()


class S3(Server):
    """An S3 server that checks signatures and keeps its objects in a folder."""

    bucket, key, secret = "team", "tillmap", "a-secret-of-the-tests"

    def command(self):
        (self.folder / "data" / self.bucket).mkdir(parents=True, exist_ok=True)
        data = ["--data-dir", str(self.folder / "data")]
        return [sys.executable, "-m", "nanio", "serve", "--host", HOST, "--port", str(self.port), *data]

    def environment(self):
        return os.environ | {"NANIO_ACCESS_KEY": self.key, "NANIO_SECRET_KEY": self.secret}

    @property
    def credentials(self):
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_DEFAULT_REGION": "us-east-1"}

    @property
    def objects(self):
        """Every object of the bucket, as a file, under its name; what the server has only begun is none."""
        store = self.folder / "data" / self.bucket / "store"
        files = [file for file in store.rglob("*") if file.is_file() and ".tmp." not in file.name]
        return {str(file.relative_to(store)): file for file in files}


class SSH(Server):
    """OpenSSH's server, for the user who runs the tests and one key made for them."""

    def __init__(self, folder):
        super().__init__(folder)
        for name in ("host", "user"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(make, check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "authorized").chmod(0o600)
        self.user, self.key = pwd.getpwuid(os.getuid()).pw_name, folder / "user"
        settings = {
            "ListenAddress": HOST, "Port": self.port, "HostKey": folder / "host", "PidFile": folder / "pid",
            "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "UsePAM": "no",
            "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PermitRootLogin": "yes",
            "Subsystem": "sftp internal-sftp",
        }  # fmt: skip
        (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def command(self):
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where a server of root's locks a connection's process in
        return [find_sshd(), "-D", "-e", "-f", str(self.folder / "config")]


def find_sshd():
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None and not os.environ.get("CI"):
        pytest.skip("OpenSSH's server is not installed: `make servers` as root brings it")
    assert found, "OpenSSH's server is needed: `make servers`"
    return found
