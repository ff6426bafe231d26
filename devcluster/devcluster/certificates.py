"""One certificate authority per instance and the certificates that Kubernetes' parts know each other by."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devcluster.addresses import Instance

__all__ = ["write_certificates"]

DAYS = 365
SERVICE_NAMES = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
]


def write_certificates(instance: Instance, *, nodes: int) -> None:
    """Writes ca, server and client certificates under `<instance>/pki`; what exists is kept."""
    pki = instance.directory / "pki"
    pki.mkdir(parents=True, exist_ok=True)
    authority = _authority(pki)
    addresses = [instance.address, instance.kubernetes_service, "127.0.0.1"]
    _issue(pki / "apiserver", authority, common_name="kube-apiserver", names=SERVICE_NAMES, addresses=addresses)
    for part, user, group in (
        ("admin", "admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
        ("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    ):
        _issue(pki / part, authority, common_name=user, organization=group)
    for node in range(1, nodes + 1):
        address = instance.node_address(node)
        _issue(
            pki / f"node-{node}",
            authority,
            common_name=f"system:node:node-{node}",
            organization="system:nodes",
            names=[f"node-{node}"],
            addresses=[address],
        )
    if not (pki / "service-account.key").exists():
        _write_key(pki / "service-account.key", ec.generate_private_key(ec.SECP256R1()))


Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _authority(pki: Path) -> Authority:
    certificate_file, key_file = pki / "ca.crt", pki / "ca.key"
    if certificate_file.exists() and key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_file} is not an elliptic curve key; run `devcluster reset`")
        return x509.load_pem_x509_certificate(certificate_file.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("devcluster-ca", organization=None)
    certificate = (
        _builder(name, issuer=name, key=key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_file, key)
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _issue(
    stem: Path,
    authority: Authority,
    *,
    common_name: str,
    organization: str | None = None,
    names: list[str] | None = None,
    addresses: list[str] | None = None,
) -> None:
    if stem.with_suffix(".crt").exists():
        return
    issuer, issuer_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(common_name, organization=organization), issuer=issuer.subject, key=key)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names or []]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses or []]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    _write_key(stem.with_suffix(".key"), key)
    stem.with_suffix(".crt").write_bytes(
        builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )


def _builder(subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=DAYS))
    )


def _name(common_name: str, *, organization: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
