"""SpecAugment: stretches of time and of mel bands of a spectrogram are masked (Park et al. 2019).

The masks are tensorflow-io's. Its operations draw from a global random state, which a pair must
not depend on; so a bank of masks is drawn once, and a number picks one of them.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable('avts_tf')
class SpecAugment(keras.layers.Layer):
    """Multiplies spectrograms by masks of a bank.

    Inputs: float32 [batch, steps, mel_bands] and int64 [batch], a number that picks a mask (modulo
    the size of the bank). Output: float32 [batch, steps, mel_bands]; masked places are 0, the mean
    of the training data.

    Args:
        bank: float32 [size, steps, mel_bands] of zeros and ones.

    Example:
        >>> SpecAugment([[[1.0, 0.0]]])(tf.constant([[[5.0, 6.0]]]), tf.constant([3])).numpy()
        array([[[5., 0.]]], dtype=float32)
    """

    def __init__(self, bank: np.ndarray, **kwargs) -> None:
        super().__init__(autocast=False, **{**kwargs, 'dtype': 'float32'})
        self._bank = np.asarray(bank, np.float32)

    def call(self, spectrogram: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        return spectrogram * tf.gather(tf.constant(self._bank), index % len(self._bank))

    def get_config(self) -> dict:
        return {**super().get_config(), 'bank': self._bank.tolist()}


def spec_augment_bank(
    steps: int, bands: int, max_steps: int, max_bands: int, seed: int, size: int = 512,
) -> np.ndarray:
    """Masks with one stretch of time and one of bands each.

    Args:
        steps, bands: shape of the spectrogram.
        max_steps, max_bands: masked steps and bands, fewer than these.
        seed: seed of the draw.
        size: number of masks.

    Returns:
        float32 [size, steps, bands] of zeros and ones.

    Raises:
        ImportError: tensorflow-io is not installed.

    Example:
        >>> spec_augment_bank(98, 40, max_steps=10, max_bands=8, seed=0, size=4).shape
        (4, 98, 40)
    """
    with warnings.catch_warnings():
        # Its compiled readers do not load beside this TensorFlow; what is used here needs none.
        warnings.simplefilter('ignore')
        import tensorflow_io as tfio  # slow and loud to import, and seldom needed

    @tf.function(autograph=False)
    def draw():
        mask = tf.ones([steps, bands])
        return tfio.audio.time_mask(tfio.audio.freq_mask(mask, param=max_bands), param=max_steps)

    tf.random.set_seed(seed)
    return np.stack([draw().numpy() for _ in range(size)])
