// Modules of which the tests read the CustomResourceDefinitions and build nothing; `go mod tidy` would drop them.
module taskgate.local/tests/cluster/crds

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
