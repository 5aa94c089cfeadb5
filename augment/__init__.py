"""tf.data augmentation: one decode, one resample, one colour matrix per image."""
