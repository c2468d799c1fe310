"""The published figures: everything that this project calls published, each with its source.

AVTS accuracy is measured with easy negatives. UCF101 and HMDB51 are means of three splits, ESC-10
and ESC-50 of five folds. All figures are percent.

Where the slides contradict themselves the figures stand as they are printed: single-stage AVTS is
69.0 in the table of regimes and 69.8 in the one of downstream tasks; the row "curriculum" of the
latter mixes pretraining sets (ESC-50 and DCASE2014 are the rows of SoundNet, UCF101 and HMDB51
those of MC3 on Kinetics).
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One published figure.

    Attributes:
        percent: the figure.
        source: where it is printed.
    """

    percent: float
    source: str


def _table(source: str, columns: tuple[str, ...], rows: dict[str, tuple[float | None, ...]]):
    """{row: {column: Published}} of one printed table; None where a cell is empty."""
    return {
        row: {column: Published(value, source)
              for column, value in zip(columns, values, strict=True) if value is not None}
        for row, values in rows.items()
    }


_SLIDES = 'slides on Korbar, Tran, Torresani 2018 (arXiv 1807.00230)'
_REGIMES = f'{_SLIDES}: curriculum learning, on the test set of Kinetics-400'
_DOWNSTREAM = f'{_SLIDES}: curriculum learning, downstream tasks'
_ACTION = f'{_SLIDES}: action recognition'
_AUDIO = f'{_SLIDES}: audio classification'
_MULTISENSORY = f'{_SLIDES}: multisensory action recognition'
_PICZAK = 'Piczak 2015, ESC: Dataset for environmental sound classification'

CURRICULUM = _table(_REGIMES, ('AVTS accuracy',), {
    'easy': (69.0,),
    'mixed': (58.9,),
    'hard': (52.3,),
    'first stage only': (67.2,),
    'curriculum_mixed': (78.4,),
    'curriculum_hard': (65.7,),
})

CURRICULUM_DOWNSTREAM = _table(
    _DOWNSTREAM, ('AVTS accuracy', 'ESC-50', 'DCASE2014', 'HMDB51', 'UCF101'), {
        'single stage': (69.8, 70.6, 89.2, 46.4, 77.1),
        'curriculum': (78.4, 82.3, 94.1, 56.9, 85.8),
        'L3-Net': (74.3, 79.3, 93.0, 40.2, 72.3),
    })

ACTION = _table(_ACTION, ('UCF101', 'HMDB51'), {
    'MC2, none': (67.2, 41.2),
    'MC2, AVTS Kinetics': (83.6, 54.3),
    'MC2, supervised Kinetics': (87.9, 62.0),
    'MC3, none': (69.1, 43.9),
    'MC3, AVTS Kinetics': (85.8, 56.9),
    'MC3, AVTS AudioSet': (89.0, 61.6),
    'MC3, supervised Kinetics': (90.5, 66.8),
    'I3D-RGB, none': (57.1, 40.0),
    'I3D-RGB, AVTS Kinetics': (83.7, 53.0),
    'I3D-RGB*, supervised ImageNet': (84.5, 49.8),
    'I3D-RGB*, supervised Kinetics': (95.1, 74.3),
    'I3D-RGB*, supervised ImageNet and Kinetics': (95.6, 74.8),
})

AUDIO = _table(_AUDIO, ('ESC-50', 'DCASE2014'), {
    'SVM-MFCC': (39.6, None),
    'random forest': (44.3, None),
    'audio subnet from scratch': (61.6, 72.0),
    'SoundNet': (74.2, 88.0),
    'L3-Net': (79.3, 93.0),
    'AVTS Kinetics': (76.7, 91.0),
    'AVTS AudioSet': (80.6, 93.0),
    'AVTS SoundNet': (82.3, 94.0),
    'human': (81.3, None),
    'RBM': (86.5, None),
})
for _row, _columns in _table(_PICZAK, ('ESC-10',), {
    'SVM-MFCC': (67.5,),
    'random forest': (72.7,),
    'k-NN': (66.7,),
}).items():
    AUDIO.setdefault(_row, {}).update(_columns)

MULTISENSORY = _table(_MULTISENSORY, ('UCF101',), {
    'Owens et al., vision only': (77.6,),
    'Owens et al., multisensory': (82.1,),
    'AVTS, vision only': (85.8,),
    'AVTS, multisensory': (87.0,),
})

PUBLISHED = {
    'curriculum': CURRICULUM,
    'curriculum_downstream': CURRICULUM_DOWNSTREAM,
    'action': ACTION,
    'audio': AUDIO,
    'multisensory': MULTISENSORY,
}
