"""Which parts of a training image are hidden, and how test images are occluded."""
