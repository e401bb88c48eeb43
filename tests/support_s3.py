"""A real S3 server over TLS that checks signatures: moto's, in an environment of its own.

boto3 and what the service pins do not go together, so neither is installed beside the other.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.packaging.tls import Tls
from tests.support_jobs import free_port
from tests.support_packages import interpreter, without_python
from tests.support_tls import self_made

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "calls"
REGION = "eu-central-1"


@dataclass(frozen=True, kw_only=True)
class S3:
    """A running server with one bucket and one user."""

    endpoint: str
    tls: Tls
    key_id: str
    secret: str

    def environment(self) -> dict[str, str]:
        """What the operator of a service sets."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "SSL_CERT_FILE": str(self.tls.certificate),
        }


@contextmanager
def s3_server(folder: Path, objects: dict[str, bytes]) -> Iterator[S3]:
    """A server that holds these objects."""
    python, tls, port = interpreter("s3-server"), self_made(folder), free_port()
    endpoint = f"https://127.0.0.1:{port}"
    command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-c", str(tls.certificate), "-k", str(tls.key)],
            # The first calls make the user; from then on every call must be signed and allowed.
            env=without_python(os.environ) | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        for name, content in objects.items():
            (folder / name).write_bytes(content)
        made = subprocess.run(
            [python, "tests/clients/s3_setup.py", endpoint, str(tls.certificate), REGION, BUCKET,
             *(str(folder / name) for name in objects)],
            cwd=ROOT, env=without_python(os.environ), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr[-2000:]
        key_id, secret = json.loads(made.stdout)
        yield S3(endpoint=endpoint, tls=tls, key_id=key_id, secret=secret)
    finally:
        process.kill()
        process.wait(20)
