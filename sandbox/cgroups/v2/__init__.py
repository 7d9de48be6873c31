"""cgroup v2: one hierarchy, a small driver a controller (admin-guide/cgroup-v2.rst)."""
