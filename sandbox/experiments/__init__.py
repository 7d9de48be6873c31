"""Cgroup limit experiments, restart-survival demo, their plots."""
