"""Programs around records: write, inspect, synthetic, disguise, beam."""

import avts_tf  # noqa: F401  before TensorFlow: it sets how TensorFlow runs
