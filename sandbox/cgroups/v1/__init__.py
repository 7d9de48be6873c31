"""cgroup v1: one small driver a controller, each hierarchy under its own mount (cgroup-v1/*.rst)."""
