"""Towers that TensorFlow Serving serves, asked over gRPC.

A remote tower stands in for a loaded one: windows are cut here, and go to the signature `pcm` of
the audio tower, or to `serving_default` or `jpeg` of the video tower, as many to a request as the
server takes.
"""

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from avts_tf.config import ClipConfig
from avts_tf.data import images
from avts_tf.errors import UserError
from avts_tf.inference.saved_towers import AudioTower, Tower, VideoTower, read_metadata_file

# gRPC's own default, which proxies and servers in other languages keep to; tensorflow_model_server
# takes more.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
_JPEG_QUALITY = 95
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0


class _TooLarge(Exception):
    """A request that the server would not take for its size."""


class GrpcServer:
    """PredictionService of TensorFlow Serving.

    Args:
        address: host:port.
        timeout_seconds: deadline of one request.
        retries: further tries where the server is not there.
        max_request_bytes: length of the longest message that is sent.
    """

    def __init__(
        self, address: str, timeout_seconds: float = 60.0, retries: int = 5,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc
        self.address = address
        self._timeout, self._retries, self._limit = timeout_seconds, retries, max_request_bytes
        # What comes back is not limited: the server is the user's own.
        self._channel = grpc.insecure_channel(address, [
            ('grpc.max_receive_message_length', -1), ('grpc.max_send_message_length', -1)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(
        self, model: str, version: int | None, signature: str,
        inputs: Mapping[str, np.ndarray | np.floating],
    ) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
            model: name on the server.
            version: None is the newest.
            signature: name.
            inputs: arrays by name.

        Returns:
            The outputs by name.

        Raises:
            UserError: the server is not there or does not answer in time, or has no such model or
                signature, or refuses the input.
            _TooLarge: the request is longer than `max_request_bytes`.
        """
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2
        request = _about(predict_pb2.PredictRequest(), model, version)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        if request.ByteSize() > self._limit:
            raise _TooLarge(f'{request.ByteSize()} bytes')
        response = self._call(self._stub.Predict, request)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def input_shapes(
        self, model: str, version: int | None, signature: str,
    ) -> dict[str, list[int]]:
        """Shapes of the inputs of a signature, by name; -1 is free. Empty where it is not there.

        Raises:
            UserError: as `predict`.
        """
        from tensorflow_serving.apis import get_model_metadata_pb2
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=['signature_def'])
        response = self._call(self._stub.GetModelMetadata, _about(request, model, version))
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata['signature_def'].Unpack(signatures)
        return {name: [dimension.size for dimension in value.tensor_shape.dim]
                for name, value in signatures.signature_def[signature].inputs.items()}

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _call(self, method: Callable, request: Any):
        """The answer to a request, which is repeated with ever longer waits until one comes."""
        import grpc
        wait = _FIRST_WAIT_SECONDS
        for left in range(self._retries, -1, -1):
            try:
                return method(request, timeout=self._timeout)
            except grpc.RpcError as error:
                name, code = request.model_spec.name, error.code().name
                if code != 'UNAVAILABLE':
                    raise self._explained(name, code, error.details()) from None
                if not left:
                    raise UserError(
                        None, self.address, f'no server answers there ({error.details()}). Is it '
                        'up, and is this its port for gRPC, usually 8500?') from None
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _explained(self, model: str, code: str, details: str):
        """The `UserError` for a status code of a server."""
        texts = {
            'NOT_FOUND': f'has no model {model!r}, or not this version or signature of it. Its '
                         'models.config names the models',
            'DEADLINE_EXCEEDED': f'did not answer within {self._timeout:g} s; lower `batch_size` '
                                 'or raise `timeout_seconds`',
            'INVALID_ARGUMENT': f'refuses what it was sent for {model!r}',
            'RESOURCE_EXHAUSTED': 'takes no request of this length; lower `max_request_bytes`',
        }
        details = ' '.join(details.split())[:500]
        text = texts.get(code, f'failed with {code}') + (f' ({details})' if details else '')
        return UserError(None, self.address, f'{text}.')


def _about(request: Any, model: str, version: int | None):
    """A request about a version of a model."""
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


class _RemoteTower(Tower):
    """A tower whose windows are run by a server.

    Args:
        server: `GrpcServer`.
        model: name on the server.
        version: int or None.
        rate: samples or frames per second.
        window: samples or frames in a window.
        frame_size: pixels; 0 for audio.
        signature: name.
    """

    def __init__(
        self, server: GrpcServer, model: str, version: int | None, rate: float, window: int,
        frame_size: int, signature: str,
    ) -> None:
        self._server, self._model, self._version = server, model, version
        self.signature, self.rate, self.window = signature, rate, window
        self.path = f'{server.address}/{model}' + ('' if version is None else f'/{version}')
        self.metadata: dict[str, Any] = {'clip': {'frame_size': frame_size}, 'checksum': None}

    def run(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs for a batch of windows [batch, window, ...], in one request or several."""
        return self._split(self._encode(windows))

    def _encode(self, windows: np.ndarray):
        return windows

    def _split(self, windows: np.ndarray):
        inputs = {self.name_of_input: windows}
        try:
            outputs = self._server.predict(self._model, self._version, self.signature, inputs)
        except _TooLarge as error:
            if len(windows) == 1:
                raise UserError(
                    None, self.path, f'a request with one window has {error}, more than the '
                    'server takes; send the frames with `jpeg`, or raise `max_request_bytes` if '
                    'its limit was raised.') from None
            middle = len(windows) // 2
            parts = self._split(windows[:middle]), self._split(windows[middle:])
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: outputs[name] for name in self.result._fields if name != 'timestamps'}


class RemoteAudioTower(_RemoteTower):
    """An audio tower on a server."""

    name, name_of_input = AudioTower.name, AudioTower.name_of_input
    result, repeat_ends = AudioTower.result, False


class RemoteVideoTower(_RemoteTower):
    """A video tower on a server."""

    name, name_of_input = VideoTower.name, VideoTower.name_of_input
    result, repeat_ends = VideoTower.result, True

    def _encode(self, windows: np.ndarray):
        """The centred square, all that the tower looks at, as pixels or JPEG files."""
        windows = images.centred_square(windows)
        if self.signature != 'jpeg':
            return windows
        return np.array([[_jpeg(frame) for frame in window] for window in windows], object)


def _jpeg(frame: np.ndarray):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, 'JPEG', quality=_JPEG_QUALITY)
    return buffer.getvalue()


def connect(
    server: GrpcServer, tower: str, *, model: str = '', version: int | None = None,
    metadata: str = '', fps: float | None = None, jpeg: bool = False,
) -> RemoteAudioTower | RemoteVideoTower:
    """A tower that a server serves.

    Args:
        server: where it is.
        tower: 'audio' or 'video'.
        model: name on the server; '' is 'audio_tower' or 'video_tower'.
        version: None is the newest.
        metadata: path of the metadata.json in the tower's folder; '' asks the server.
        fps: frames per second of a video tower, which no server knows; None is the default of
            training. With `metadata` it is stated there.
        jpeg: whether frames are sent as JPEG files: a tenth of the length, and not exactly the
            same values.

    Raises:
        UserError: the server cannot be asked, or has another tower there.
    """
    towers: dict[str, type[RemoteAudioTower | RemoteVideoTower]] = {
        'audio': RemoteAudioTower, 'video': RemoteVideoTower}
    make = towers[tower]
    model = model or make.name
    if not metadata:
        rate, window, frame_size = _ask(server, model, version, make, fps)
    elif fps is None:
        rate, window, frame_size = _read(metadata, make)
    else:
        raise UserError('fps', fps, '`metadata` states it; leave one of them out.')
    signature = 'pcm' if tower == 'audio' else 'jpeg' if jpeg else 'serving_default'
    return make(server, model, version, rate, window, frame_size, signature)


def _read(metadata: str, tower: type[_RemoteTower]) -> tuple[float, int, int]:
    """Rate, window and frame size of a tower, from its metadata.json."""
    values = read_metadata_file(metadata)
    if values['tower'] != tower.name:
        raise UserError('metadata', metadata,
                        f'is that of the {values["tower"]}, not of the {tower.name}.')
    clip = values['clip']
    if tower is RemoteAudioTower:
        return clip['sample_rate'], clip['window_samples'], 0
    return clip['fps'], clip['frames'], clip['frame_size']


def _ask(
    server: GrpcServer, model: str, version: int | None, tower: type[_RemoteTower],
    fps: float | None,
) -> tuple[float, int, int]:
    """Rate, window and frame size of a tower, as the server knows them."""
    shape = server.input_shapes(model, version, 'window').get(tower.name_of_input)
    if shape is None:
        raise UserError(None, server.address, f'its model {model!r} is no {tower.name} of this '
                        f'project: it has no signature "window" of {tower.name_of_input}.')
    if tower is RemoteVideoTower:
        return fps or ClipConfig().fps, shape[1], shape[2]
    # The centre of the first window is half a window, in seconds.
    inputs: dict[str, np.ndarray | np.floating] = {
        'waveform': np.zeros([1, 1], np.float32), 'hop_seconds': np.float32(1)}
    answer = server.predict(model, version, 'windows', inputs)
    return round(shape[1] / (2 * float(answer['timestamps'][0]))), shape[1], 0
