"""A real Kubernetes control plane (etcd, kube-apiserver, kubectl) on this machine, for tests, demo and bench.

It is not a cluster: no scheduler, no kubelet, no controller manager. Nothing is garbage collected, a deleted
namespace stays `Terminating`, a Deployment makes no pods. Everything in it is meant to be thrown away.
"""

from controlplane.binaries import Binaries, ensure_binaries, ensure_helm
from controlplane.errors import ControlPlaneError, KubectlError
from controlplane.server import ControlPlane

__all__ = ["Binaries", "ControlPlane", "ControlPlaneError", "KubectlError", "ensure_binaries", "ensure_helm"]
