"""Images: references, the content store, unpacking to overlay layers, what an image says about users."""
