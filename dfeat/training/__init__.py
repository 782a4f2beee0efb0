"""Fine-tuning a classifier on originals and augmented images, by one of the six methods."""
