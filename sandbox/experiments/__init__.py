"""Experiments on cgroup limits and the demonstration that pods survive crashes. Clients of the daemon's HTTP API."""
