"""Data sets as uint8 tensors: sources, fixed splits, batches and augmentation."""
