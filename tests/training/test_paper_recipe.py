"""The paper's recipe, with small networks, on the synthetic world; see docs/method.md."""

import pytest

from avts_tf.config import make_config
from avts_tf.data.synthetic import write_world
from avts_tf.training.run_folder import RunFolder
from avts_tf.training.trainer import train

CONSTANT_LOSS = 0.99**2 / 4  # least loss of a model whose distances are all the same


@pytest.mark.slow
def test_the_papers_recipe_trains_through_both_stages(tmp_path):
    for name, videos, seed in (('train', 640, 0), ('eval', 128, 1)):
        write_world(str(tmp_path / name), videos=videos, seed=seed)
    config = make_config('paper', frame_size=24, video_width=0.125, audio_width=0.25,
                         regime='easy:20,easy=0.75+hard=0.25:4')
    train(config, f'{tmp_path}/train-*', str(tmp_path / 'run'), eval_records=f'{tmp_path}/eval-*')
    rows = RunFolder(str(tmp_path / 'run'), config).history()
    first, second = rows[:20], rows[20:]
    # Epochs on the plateau, where all distances are the same, and then it is left.
    assert first[3]['loss'] > CONSTANT_LOSS and first[3]['auc_easy'] < 0.6
    assert first[-1]['loss'] < 0.85 * CONSTANT_LOSS and first[-1]['auc_easy'] > 0.7
    assert first[-1]['distance_easy'] > 1.3 * first[-1]['distance_positive']
    # The second stage begins with its own counter and the whole learning rate, and keeps what was
    # learned.
    assert second[0]['learning_rate'] == pytest.approx(0.01)
    assert [row['stage'] for row in rows] == [0] * 20 + [1] * 4
    assert all('distance_hard' in row for row in second)
    assert min(row['auc_easy'] for row in second) > 0.7
