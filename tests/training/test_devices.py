"""What TF_CONFIG and the processor say; how several machines train is tested in test_trainer.py."""

import pytest
import tensorflow as tf

from avts_tf.errors import UserError
from avts_tf.training import devices


@pytest.mark.parametrize(('text', 'words'), [
    ('{', 'looks like'), ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}',
                          'no worker 2'),
    ('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}', 'of type "worker" only'),
])
def test_a_tf_config_that_cannot_be_used(monkeypatch, text, words):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match=words):
        devices.worker_count()


def test_devices_are_not_for_several_machines(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": '
                                    '"worker", "index": 1}}')
    assert devices.worker_count() == 2 and not devices.is_chief()
    with pytest.raises(UserError, match='devices=2.*several machines'):
        devices.make_strategy('2')


@pytest.mark.parametrize(('gpus', 'way'), [(['GPU:0'], 'NCCL'), ([], 'AUTO')])
def test_machines_with_gpus_exchange_by_nccl(monkeypatch, gpus, way):
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 0}}')
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: gpus)
    options = []
    monkeypatch.setattr(tf.distribute, 'MultiWorkerMirroredStrategy',
                        lambda communication_options: options.append(communication_options))
    devices.make_strategy.__wrapped__('auto')
    assert [option.implementation.value for option in options] == [way]


@pytest.mark.parametrize(('driver', 'visible', 'said'), [
    (True, None, True), (True, '0', True), (True, '-1', False), (True, '', False),
    (False, None, False),
])
def test_a_gpu_that_tensorflow_does_not_find_is_said(monkeypatch, tmp_path, caplog, driver, visible,
                                                     said):
    path = tmp_path / 'version'
    if driver:
        path.write_text('NVRM version')
    monkeypatch.setattr(devices, 'NVIDIA_DRIVER', str(path))
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [])
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    devices.make_strategy.__wrapped__('auto')
    assert (devices.UNSEEN_GPU in caplog.messages) == said


def test_a_machine_of_several_does_not_leave_its_gpu_out(monkeypatch, tmp_path):
    """The others would take theirs, and no exchange is between GPUs and CPUs."""
    path = tmp_path / 'version'
    path.write_text('NVRM version')
    monkeypatch.setattr(devices, 'NVIDIA_DRIVER', str(path))
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [])
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 1}}')
    with pytest.raises(UserError, match='does not find'):
        devices.make_strategy.__wrapped__('auto')


@pytest.mark.parametrize(('words', 'known'), [
    ('flags : fpu avx2 fma', False), ('flags : avx512f avx512_vnni', False),
    ('flags : avx512f avx512_bf16 amx_bf16', True),
    ('Features : fp asimd bf16', True), (None, True),
])
def test_processors_that_know_bfloat16(tmp_path, words, known):
    path = tmp_path / 'cpuinfo'
    if words:
        path.write_text(f'processor : 0\n{words}\n')
    assert devices.computes_bfloat16(str(path)) == known
