// Builds the etcd server from the release that go.mod pins; a module of its own, since etcd and
// Kubernetes ask for different versions of the same dependencies.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
