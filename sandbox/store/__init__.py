"""SQLite: every intent before the kernel is touched."""
