"""The command line: click commands, thin, heavy imports stay in the daemon."""
