"""The secrets of a throw-away control plane: an admin token, a key that signs service account tokens, kubeconfigs.

For no cluster that matters: the admin token never expires. The serving certificate is made by kube-apiserver.
"""

import base64
import json
import secrets
import textwrap
from pathlib import Path

# The order of the curve P-256 (FIPS 186-5, SP 800-186): a private key is a number from 1 to this less 1.
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# An ECPrivateKey (RFC 5915) without its optional public key: version 1 and 32 bytes of key, then the curve's name.
_KEY_HEAD = bytes.fromhex("303102010104" + "20")
_KEY_TAIL = bytes.fromhex("a00a06082a8648ce3d030107")


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(content)


def write_signing_key(path: Path) -> None:
    """Write a new ECDSA P-256 private key as PEM; needs no openssl and no library for it."""
    number = 1 + secrets.randbelow(_P256_ORDER - 1)
    body = base64.b64encode(_KEY_HEAD + number.to_bytes(32, "big") + _KEY_TAIL).decode()
    lines = "\n".join(textwrap.wrap(body, 64))
    write_private(path, f"-----BEGIN EC PRIVATE KEY-----\n{lines}\n-----END EC PRIVATE KEY-----\n")


def write_token_file(path: Path, token: str) -> None:
    """Write kube-apiserver's `--token-auth-file`: one user, `admin`, who may do everything."""
    write_private(path, f'{token},admin,admin,"system:masters"\n')


def write_kubeconfig(path: Path, *, server: str, ca_file: Path, user: str, token: str) -> None:
    """Write a kubeconfig that stands by itself (JSON, which is YAML too)."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "controlplane",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": base64.b64encode(ca_file.read_bytes()).decode(),
                },
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": user, "context": {"cluster": "controlplane", "user": user}}],
        "current-context": user,
    }
    write_private(path, json.dumps(content, indent=2) + "\n")
