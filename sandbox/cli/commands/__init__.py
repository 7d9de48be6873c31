"""One verb, or a small family of verbs, a file. Imported when run: see `sandbox.cli.root.COMMANDS`."""
