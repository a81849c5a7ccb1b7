"""The certificates, keys and tokens of a test cluster: made by openssl in half a second, worth nothing elsewhere."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ADMIN_TOKEN = "admin-token"
"""Bound to system:masters: may do everything."""
READER_TOKEN = "reader-token"
"""A user without any binding: may do nothing until a test grants it something."""


@dataclass(frozen=True)
class Certificates:
    """Files in *folder*: ``NAME.crt``, ``NAME.key``; see the properties."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def tokens(self) -> Path:
        """The API server's token file."""
        return self.folder / "tokens.csv"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    @property
    def service_account_key(self) -> Path:
        return self.folder / "service-accounts.key"

    @property
    def service_account_public_key(self) -> Path:
        return self.folder / "service-accounts.pub"


def node_token(node: str) -> str:
    return f"{node}-token"


def make_certificates(folder: Path, server_addresses: Iterable[str], nodes: dict[str, str]) -> Certificates:
    """Make a cluster's in *folder*: the API server valid for *server_addresses*, a kubelet per *nodes* (name: IP)."""
    folder.mkdir(parents=True, mode=0o700)
    made = Certificates(folder)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key("ca"))
    _openssl("req", "-x509", "-new", "-key", made.key("ca"), "-subj", "/CN=test-ca", "-days", "3650", "-out", made.ca)

    names = ["DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc"]
    names += [f"IP:{address}" for address in server_addresses]
    _sign(made, "apiserver", "/CN=kube-apiserver", names)
    _sign(made, "kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", [])
    for node, address in nodes.items():
        _sign(made, node, f"/CN={node}", [f"DNS:{node}", f"IP:{address}"])

    # Service-account tokens are signed by RSA or EC keys alike; EC is made at once.
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.service_account_key)
    _openssl("ec", "-in", made.service_account_key, "-pubout", "-out", made.service_account_public_key)

    rows = [f"{ADMIN_TOKEN},admin,admin,system:masters", f"{READER_TOKEN},reader,reader"]
    rows += [f"{node_token(node)},system:node:{node},{node},system:nodes" for node in nodes]
    made.tokens.write_text("\n".join(rows) + "\n")
    return made


def _sign(made: Certificates, name: str, subject: str, alternative_names: list[str]) -> None:
    request, extensions = made.folder / f"{name}.csr", made.folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={','.join(alternative_names)}\n" if alternative_names else "")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key(name))
    _openssl("req", "-new", "-key", made.key(name), "-subj", subject, "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", made.key("ca"), "-CAcreateserial"),
        *("-days", "3650", "-extfile", extensions, "-out", made.certificate(name)),
    )


def _openssl(*arguments: str | Path) -> None:
    run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == 0, f"openssl {arguments[0]} failed: {run.stderr}"
