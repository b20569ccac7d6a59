//go:build tools

// Names the command that is built from the release that go.mod pins, so that "go mod tidy" keeps
// exactly what it needs. Nothing in here is compiled.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
