"""Programs around records: write, inspect, synthetic, beam."""

import os

import avts_tf  # noqa: F401  before TensorFlow: it sets how TensorFlow runs

# As in main.py: TensorFlow's own notes say nothing to a user.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
