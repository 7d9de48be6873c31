"""cgroup v1 and v2 drivers behind one Protocol; quantities to controller files."""
