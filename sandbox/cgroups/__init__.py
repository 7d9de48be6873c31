"""cgroup v1, v2 and hybrid hosts behind one Protocol; Kubernetes quantities → controller files."""
