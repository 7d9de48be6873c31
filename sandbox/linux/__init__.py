"""System calls, mounts, namespaces, capabilities, seccomp: the only place with ctypes."""
