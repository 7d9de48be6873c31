"""The CNI client and the embedded network, a real CNI plugin."""
