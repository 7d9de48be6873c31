"""System calls and kernel vocabulary: the only package with ctypes. Wrappers keep the kernel's names."""
