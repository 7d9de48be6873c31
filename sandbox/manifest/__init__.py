"""YAML to typed, defaulted, validated objects; errors with line and column."""
