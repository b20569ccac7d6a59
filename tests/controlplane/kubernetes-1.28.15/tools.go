//go:build tools

// Names the commands that are built from the release that go.mod pins, so that "go mod tidy" keeps
// exactly what they need. Nothing in here is compiled.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
