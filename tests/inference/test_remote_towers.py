"""Remote towers against a server that speaks TensorFlow Serving's protocol over the exported
towers."""

import concurrent.futures
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from avts_tf.errors import UserError
from avts_tf.inference import embed_files, extract, remote_towers
from tests.helpers import PATIENCE_SECONDS, noise, write_sound, write_video

RATE, WINDOW = 16000, 7680


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The towers as tensorflow_model_server serves them, and what was asked of it."""

    def __init__(self, folder, loaded):
        self._folder = folder
        self._signatures = {name: tower.signatures for name, tower in loaded.items()}
        self.reset()

    def reset(self):
        self.lengths = []           # bytes of each request
        self.broken = []            # (status code, words) for the next requests
        self.delay_seconds = 0.0

    def Predict(self, request, context):
        self.lengths.append(request.ByteSize())
        name = self._model(request, context)
        signature = request.model_spec.signature_name or 'serving_default'
        if signature not in self._signatures[name]:
            self._refuse(context, f'Serving signature key "{signature}" not found.')
        function = self._signatures[name][signature]
        specification = function.structured_input_signature[1]
        if request.inputs.keys() != specification.keys():
            self._refuse(context, f'input keys {sorted(request.inputs)}')
        try:
            tensors = {key: tf.convert_to_tensor(tf.make_ndarray(value))
                       for key, value in request.inputs.items()}
            for key, value in tensors.items():
                if value.dtype != specification[key].dtype:
                    self._refuse(context, f'{key}: {value.dtype.name}')
            outputs = function(**tensors)
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            self._refuse(context, getattr(error, 'message', str(error)))
        response = predict_pb2.PredictResponse()
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return response

    def GetModelMetadata(self, request, context):
        path = self._folder / self._model(request, context) / '1' / 'saved_model.pb'
        graph = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs[0]
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=graph.signature_def)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata['signature_def'].Pack(signatures)
        return response

    def _model(self, request, context):
        """Name of the model that is asked for."""
        time.sleep(self.delay_seconds)
        if self.broken:
            code, words = self.broken.pop(0)
            context.abort(grpc.StatusCode[code], words)
        name, version = request.model_spec.name, request.model_spec.version.value
        if name not in self._signatures or version not in (0, 1):
            words = f'Servable not found for request: Latest({name})'
            context.abort(grpc.StatusCode.NOT_FOUND, words)
        return name

    @staticmethod
    def _refuse(context, words):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)


@pytest.fixture(scope='module')
def running(towers, loaded):
    """(service, address); the server has gRPC's default limits."""
    service = Service(towers, loaded)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port('localhost:0')
    server.start()
    yield service, f'localhost:{port}'
    server.stop(0)


@pytest.fixture
def service(running):
    running[0].reset()
    return running[0]


@pytest.fixture
def server(running, service):
    made = remote_towers.GrpcServer(running[1], retries=2)
    yield made
    made.close()


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / 'sounds'
    (folder / 'deep').mkdir(parents=True)
    write_sound(folder / 'a.wav', noise(20000, 1))
    write_sound(folder / 'deep' / 'b.wav', np.stack([noise(30000, 2)] * 2, 1), 44100)
    (folder / 'c.wav').write_text('no sound')
    return folder


# What the client gets is what the tower gives.

def test_sounds(server, audio, sounds, tmp_path):
    tower = remote_towers.connect(server, 'audio')
    assert (tower.rate, tower.window) == (RATE, WINDOW)
    sources = embed_files.find_inputs([str(sounds)])
    for name, one in {'remote': tower, 'local': audio}.items():
        extract.extract_features(sources, str(tmp_path / name), [one], hop_seconds=0.2,
                                 centered=True, batch_size=7, num_workers=1)
    reports = [(tmp_path / name / 'report.csv').read_text() for name in ('remote', 'local')]
    assert reports[0] == reports[1]
    for name in ('a.npz', 'deep/b.npz'):
        with (np.load(tmp_path / 'remote' / name) as got,
              np.load(tmp_path / 'local' / name) as expected):
            assert got.keys() == expected.keys()
            assert got['source'] == expected['source']
            for key in ('embedding', 'conv5', 'timestamps'):
                np.testing.assert_allclose(got[key], expected[key], atol=2e-5,
                                           err_msg=f'{name} {key}')


def through_jpeg(windows):
    """Frames [windows, frames, height, width, 3], as a server decodes what it is sent."""
    files = [[remote_towers._jpeg(frame) for frame in window] for window in windows]
    return np.array([[tf.io.decode_jpeg(file).numpy() for file in window] for window in files])


@pytest.mark.parametrize(('jpeg', 'stated'), [(False, True), (True, False)])
def test_videos(server, towers, video, tmp_path, monkeypatch, jpeg, stated):
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, [30, 3, 4, 3], np.uint8)
    smooth = np.kron(smooth, np.ones([1, 8, 8, 1], np.uint8))
    write_video(tmp_path / 'clip.mkv', smooth)
    metadata = str(towers / 'video_tower' / '1' / 'assets' / 'metadata.json') if stated else ''
    tower = remote_towers.connect(server, 'video', metadata=metadata, jpeg=jpeg)
    assert (tower.rate, tower.window, tower.metadata['clip']['frame_size']) == (25.0, 12, 16)
    sources = embed_files.find_inputs([str(tmp_path / 'clip.mkv')])
    [(_, got)] = embed_files.embed_sources(tower, sources, hop_seconds=0.2, num_workers=1)
    if jpeg:
        run = video.run
        monkeypatch.setattr(video, 'run', lambda windows: run(through_jpeg(windows)))
    [(_, expected)] = embed_files.embed_sources(video, sources, hop_seconds=0.2, num_workers=1)
    np.testing.assert_array_equal(got.timestamps, expected.timestamps)
    np.testing.assert_allclose(got.embedding, expected.embedding, atol=2e-5)
    assert np.abs(expected.embedding[0] - expected.embedding[2]).max() > 0.05


# Length of requests.

@pytest.mark.parametrize(('limit', 'requests'), [(40_000, 10), (70_000, 5), (10**6, 1)])
def test_long_requests_are_split(running, service, audio, limit, requests):
    windows = np.stack([noise(WINDOW, seed) for seed in range(20)])
    expected = audio.run(windows)
    server = remote_towers.GrpcServer(running[1], max_request_bytes=limit)
    remote = remote_towers.connect(server, 'audio')
    service.lengths.clear()
    got = remote.run(windows)
    assert max(service.lengths) <= limit
    assert requests <= len(service.lengths) <= 2 * requests
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=2e-5)


def test_requests_stay_below_the_default_of_grpc(running, service, server):
    """400 windows of 15 kB are 6 MB, more than the server here takes at once."""
    windows = np.zeros([400, WINDOW], np.int16)
    remote = remote_towers.connect(server, 'audio')
    assert remote.run(windows)['embedding'].shape == (400, 16)
    assert max(service.lengths) <= 4 * 1024 * 1024 < sum(service.lengths)
    unlimited = remote_towers.GrpcServer(running[1], max_request_bytes=10**9)
    with pytest.raises(UserError, match='lower `max_request_bytes`'):
        remote_towers.connect(unlimited, 'audio').run(windows)


def test_a_window_that_is_too_long_by_itself(running, service):
    server = remote_towers.GrpcServer(running[1], max_request_bytes=5000)
    remote = remote_towers.connect(server, 'video')
    with pytest.raises(UserError, match='one window.*`jpeg`'):
        remote.run(np.zeros([3, 12, 16, 16, 3], np.uint8))


# Mistakes: the client says what is wrong, and the server goes on.

def test_no_server(monkeypatch):
    waits = []
    monkeypatch.setattr(time, 'sleep', waits.append)
    with pytest.raises(UserError, match='localhost:1: no server answers there'):
        remote_towers.connect(remote_towers.GrpcServer('localhost:1', retries=3), 'audio')
    assert waits[-3:] == [0.5, 1.0, 2.0]


def test_a_server_that_comes_back(service, server, monkeypatch):
    waits = []
    monkeypatch.setattr(remote_towers.time, 'sleep', waits.append)
    service.broken += [('UNAVAILABLE', 'starting')] * 2
    assert remote_towers.connect(server, 'audio').window == WINDOW
    assert [wait for wait in waits if wait >= 0.5] == [0.5, 1.0]


def test_deadline(running, service):
    service.delay_seconds = 1.0
    server = remote_towers.GrpcServer(running[1], timeout_seconds=0.2)
    with pytest.raises(UserError, match=r'did not answer within 0\.2 s; lower `batch_size`'):
        remote_towers.connect(server, 'audio')


def test_models_that_are_not_there(server):
    with pytest.raises(UserError, match="has no model 'organ'.*Servable not found"):
        remote_towers.connect(server, 'audio', model='organ')
    with pytest.raises(UserError, match='has no model'):
        remote_towers.connect(server, 'audio', version=7)
    tower = remote_towers.connect(server, 'audio', version=1)
    assert tower.path.endswith('/audio_tower/1')


@pytest.mark.parametrize(('tower', 'model'), [('audio', 'video_tower'), ('video', 'audio_tower')])
def test_the_other_tower(server, tower, model):
    with pytest.raises(UserError, match=f"its model '{model}' is no {tower}_tower"):
        remote_towers.connect(server, tower, model=model)


@pytest.mark.parametrize(('model', 'signature', 'inputs'), [
    ('audio_tower', 'pcm', {'waveform': np.zeros([2, 3, 100], np.int16)}),
    ('audio_tower', 'pcm', {'waveform': np.zeros([2, 0], np.int16)}),
    ('audio_tower', 'pcm', {'waveform': np.zeros([1, 100], np.float64)}),
    ('audio_tower', 'pcm', {'sound': np.zeros([2, 100], np.int16)}),
    ('audio_tower', 'pmc', {'waveform': np.zeros([2, 100], np.int16)}),
    ('audio_tower', 'serving_default', {'waveform': np.array([[0.0, np.nan]], np.float32)}),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 5, 8, 8], np.uint8)}),
    ('video_tower', 'serving_default', {'frames': np.zeros([1, 0, 8, 8, 3], np.uint8)}),
    ('video_tower', 'jpeg', {'frames': np.array([[b'no picture']], object)}),
])
def test_malformed_requests(server, model, signature, inputs):
    with pytest.raises(UserError, match='refuses what it was sent'):
        server.predict(model, None, signature, inputs)
    # The server lives on.
    zeros = np.zeros([1, 100], np.int16)
    outputs = server.predict('audio_tower', None, 'pcm', {'waveform': zeros})
    assert outputs['embedding'].shape == (1, 16)


def test_malformed_bytes(running, server):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = 'audio_tower', 'pcm'
    request.inputs['waveform'].CopyFrom(tf.make_tensor_proto(np.zeros([1, 100], np.int16)))
    request.inputs['waveform'].tensor_content = b'\1\2\3'
    channel = grpc.insecure_channel(running[1])
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=PATIENCE_SECONDS)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert remote_towers.connect(server, 'audio').window == WINDOW


def test_metadata_of_the_wrong_tower(server, towers, tmp_path):
    path = str(towers / 'video_tower' / '1' / 'assets' / 'metadata.json')
    with pytest.raises(UserError, match='metadata=.*: is that of the video_tower'):
        remote_towers.connect(server, 'audio', metadata=path)
    with pytest.raises(UserError, match='fps=10.0: `metadata` states it'):
        remote_towers.connect(server, 'video', metadata=path, fps=10.0)
    with pytest.raises(UserError, match='not the metadata of a tower'):
        remote_towers.connect(server, 'video', metadata=str(tmp_path / 'nowhere.json'))
