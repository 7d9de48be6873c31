"""Pod sandboxes and containers: the plan compiler, lifecycle, exec, attach, logs, stats."""
