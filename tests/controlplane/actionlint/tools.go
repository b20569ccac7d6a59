//go:build tools

// Names the linter of workflows, so that "go mod tidy" keeps what it needs. Nothing in here is compiled.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
