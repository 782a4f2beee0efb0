"""Which parts of a training image are hidden, how they are painted over, and how test images are occluded."""
