"""The embedded network: a bridge, address management, masquerade and host ports; the plugin `sandbox-network`."""
