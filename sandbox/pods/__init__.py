"""The pod controller: order, restart policy, volumes, status."""
