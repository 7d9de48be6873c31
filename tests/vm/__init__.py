"""A machine whose only cgroup hierarchy is v2, in software emulation, with this checkout inside: scripts/vm."""
