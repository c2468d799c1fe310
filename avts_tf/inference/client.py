"""Embeds sounds and videos with towers that TensorFlow Serving serves, over gRPC or REST.

    python -m avts_tf.inference.client --server=localhost:8500 --input=sounds/ --output=features/
    python -m avts_tf.inference.client --rest=localhost:8501 --tower=video --input=clip.mp4

Files are decoded and cut into windows here; the windows go to the signature `pcm` of the audio tower, or to `serving_default` or
`jpeg` of the video tower, as many to a request as the server takes. What comes out is what --mode=features writes, from the same
windows; without --output it is printed, one line of JSON per file.

The server does not tell what it was trained on. Of an audio tower the client asks it: the signature `at_rate` refuses another
--sample_rate by name, and `windows` shows how long a window is. Of a video tower it has to be told: --fps, --frames and
--frame_size, or --metadata with the metadata.json of the tower's folder, which answers everything.
"""

import base64
import contextlib
import io
import json
import socket
import sys
import time
import urllib.error
import urllib.request

import numpy as np
from absl import app, flags
from PIL import Image

from avts_tf import program
from avts_tf.config import ClipConfig
from avts_tf.data import media
from avts_tf.data.images import centred_square
from avts_tf.errors import UserError
from avts_tf.inference import extraction
from avts_tf.inference.features import (
    BATCH_SIZE,
    AudioTower,
    VideoTower,
    read_metadata_file,
)
from avts_tf.signals import stop_on_signals

# gRPC's own default, which proxies and servers in other languages keep to. tensorflow_model_server takes more.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
_JPEG_QUALITY = 95
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0


class _TooLarge(Exception):
    """A request that the server would not take for its size."""


class _Unavailable(Exception):
    """The server is not there at the moment."""


class GrpcServer:
    """PredictionService of TensorFlow Serving.

    Args:
        address: host:port.
        timeout_seconds: deadline of one request.
        retries: further tries where the server is not there.
        max_request_bytes: length of the longest message that is sent.
    """

    def __init__(self, address, timeout_seconds=60.0, retries=5, max_request_bytes=MAX_REQUEST_BYTES):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc
        self.address, self._timeout, self._retries, self._limit = address, timeout_seconds, retries, max_request_bytes
        # What comes back is not limited: the server is the user's own.
        self._channel = grpc.insecure_channel(address, [('grpc.max_receive_message_length', -1),
                                                        ('grpc.max_send_message_length', -1)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def predict(self, model, version, signature, inputs):
        """Calls a signature.

        Args:
            model: name on the server.
            version: int, or None for the newest.
            signature: name.
            inputs: dict of arrays.

        Returns:
            dict of arrays.

        Raises:
            UserError: the server is not there or does not answer in time, or has no such model or signature, or refuses the
                input.
            _TooLarge: the request is longer than `max_request_bytes`.
        """
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        if request.ByteSize() > self._limit:
            raise _TooLarge(f'{request.ByteSize()} bytes')

        def attempt():
            try:
                return self._stub.Predict(request, timeout=self._timeout)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    raise _Unavailable(error.details()) from None
                raise _in_words(self.address, model, error.code().name, error.details(), self._timeout) from None

        response = _patiently(attempt, self._retries, self.address, 'gRPC, usually 8500')
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def close(self):
        self._channel.close()


class RestServer:
    """The REST interface of TensorFlow Serving.

    Args:
        address: host:port.
        timeout_seconds, retries: see `GrpcServer`.
        max_request_bytes: length of the longest body that is sent, where it can be split. REST itself has no limit.
        form: 'row' or 'column', how inputs are laid out in JSON. Rows cannot hold numbers that are not one per row: those
            requests go in column form.
    """

    def __init__(self, address, timeout_seconds=60.0, retries=5, max_request_bytes=MAX_REQUEST_BYTES, form='column'):
        self.address, self._timeout, self._retries, self._limit, self._form = (
            address, timeout_seconds, retries, max_request_bytes, form)

    def predict(self, model, version, signature, inputs):
        """As `GrpcServer.predict`."""
        rows = self._form == 'row' and all(np.ndim(value) for value in inputs.values())
        columns = {name: _to_json(value) for name, value in inputs.items()}
        if rows:
            names, values = zip(*columns.items(), strict=True)
            body = {'instances': [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]}
        else:
            body = {'inputs': columns}
        try:
            data = json.dumps({'signature_name': signature, **body}, allow_nan=False).encode()
        except ValueError:
            raise UserError(f'{self.address}: not sent: the input for {model!r} holds NaN or infinity.') from None
        if len(data) > self._limit and len(next(iter(columns.values()))) > 1:
            raise _TooLarge(f'{len(data)} bytes')
        path = f'/v1/models/{model}' + ('' if version is None else f'/versions/{version}')
        answer = _patiently(lambda: self._post(model, f'http://{self.address}{path}:predict', data), self._retries, self.address,
                            'REST, usually 8501')
        try:
            if not rows:
                return {name: np.array(value, np.float32) for name, value in answer['outputs'].items()}
            predictions = answer['predictions']
            return {name: np.array([row[name] for row in predictions], np.float32) for name in predictions[0]}
        except (KeyError, AttributeError, TypeError, IndexError, ValueError) as error:
            raise UserError(f'{self.address}: answers in JSON, but not as TensorFlow Serving does.') from error

    def _post(self, model, url, data):
        request = urllib.request.Request(url, data, {'Content-Type': 'application/json'})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode('utf-8', 'replace')
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = json.loads(text)['error']
            if error.code == 503:
                raise _Unavailable(text) from None
            code = {400: 'INVALID_ARGUMENT', 404: 'NOT_FOUND', 413: 'RESOURCE_EXHAUSTED', 504: 'DEADLINE_EXCEEDED'}
            raise _in_words(self.address, model, code.get(error.code, str(error.code)), text, self._timeout) from None
        except ValueError as error:
            raise UserError(f'{self.address}: does not answer in JSON; is this the REST port, usually 8501?') from error
        except OSError as error:
            reason = getattr(error, 'reason', error)
            if isinstance(reason, TimeoutError | socket.timeout):
                raise _in_words(self.address, model, 'DEADLINE_EXCEEDED', '', self._timeout) from None
            raise _Unavailable(str(reason)) from None

    def close(self):
        pass


def _to_json(value):
    value = np.asarray(value)
    if value.dtype == object:
        return [[{'b64': base64.b64encode(item).decode()} for item in row] for row in value]
    return value.tolist()


def _patiently(attempt, retries, address, port):
    """The result of a call that is repeated while the server is not there, with ever longer waits."""
    wait = _FIRST_WAIT_SECONDS
    for left in range(retries, -1, -1):
        try:
            return attempt()
        except _Unavailable as error:
            if not left:
                raise UserError(f'{address}: no server answers there ({error}). Is it up, and is this its port for {port}?'
                                ) from None
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


def _in_words(address, model, code, details, timeout_seconds):
    """The `UserError` for a status code of a server."""
    texts = {
        'NOT_FOUND': f'has no model {model!r}, or not this version or signature of it. Its models.config names the models',
        'DEADLINE_EXCEEDED': f'did not answer within {timeout_seconds:g} s; lower --batch_size or raise --timeout_seconds',
        'INVALID_ARGUMENT': f'refuses what it was sent for {model!r}',
        'RESOURCE_EXHAUSTED': 'takes no request of this length; lower --max_request_bytes',
    }
    details = ' '.join(details.split())[:500]
    return UserError(f'{address}: {texts.get(code, f"failed with {code}")}{f" ({details})" if details else ""}.')


class _RemoteTower:
    """Stands in for a `features.Tower`; its windows are run by a server.

    Args:
        server: `GrpcServer` or `RestServer`.
        model: name on the server.
        version: int or None.
        clip: `ClipConfig`, geometry of the tower.
        rate: samples or frames per second.
        window: samples or frames in a window.
        signature: name.
    """

    def __init__(self, server, model, version, clip, rate, window, signature):
        self._server, self._model, self._version, self.signature = server, model, version, signature
        self.rate, self.window = rate, window
        self.path = f'{server.address}/{model}' + ('' if version is None else f'/{version}')
        self.metadata = {'clip': {'frame_size': clip.frame_size}, 'checksum': None}

    def run(self, windows):
        """Outputs for a batch of windows [batch, window, ...], in as many requests as their length asks for."""
        return self._split(self.encode(windows))

    def _split(self, windows):
        try:
            outputs = self._server.predict(self._model, self._version, self.signature, {self.name_of_input: windows})
        except _TooLarge as error:
            if len(windows) == 1:
                raise UserError(f'{self.path}: a request with one window has {error}, more than the server takes; send the frames '
                                'with --jpeg, or raise --max_request_bytes if its limit was raised.') from None
            middle = len(windows) // 2
            parts = self._split(windows[:middle]), self._split(windows[middle:])
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        wanted = [name for name in self.result._fields if name != 'timestamps']
        if any(name not in outputs or outputs[name].ndim != 2 or len(outputs[name]) != len(windows) for name in wanted):
            shapes = ', '.join(f'{name} {list(value.shape)}' for name, value in outputs.items())
            raise UserError(f'{self.path}: answers {len(windows)} windows with {shapes}; is it the {self.name} of this project?')
        return {name: outputs[name] for name in wanted}


class RemoteAudioTower(_RemoteTower):
    """An audio tower on a server."""

    name, name_of_input, result, repeat_ends = AudioTower.name, AudioTower.name_of_input, AudioTower.result, False

    @staticmethod
    def encode(windows):
        return windows


class RemoteVideoTower(_RemoteTower):
    """A video tower on a server."""

    name, name_of_input, result, repeat_ends = VideoTower.name, VideoTower.name_of_input, VideoTower.result, True

    def encode(self, windows):
        """The centred square, all that the tower looks at, as pixels or JPEG files."""
        windows = centred_square(windows)
        if self.signature != 'jpeg':
            return windows
        return np.array([[_jpeg(frame) for frame in window] for window in windows], object)


def _jpeg(frame):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, 'JPEG', quality=_JPEG_QUALITY)
    return buffer.getvalue()


def connect(server, tower, *, model='', version=None, metadata='', sample_rate=None, fps=None, frames=None, frame_size=None,
            jpeg=False):
    """A tower that a server serves.

    Args:
        server: `GrpcServer` or `RestServer`.
        tower: 'audio' or 'video'.
        model: name on the server; '' is 'audio_tower' or 'video_tower'.
        version: int, or None for the newest.
        metadata: path of the metadata.json in the tower's folder, or ''.
        sample_rate, fps, frames, frame_size: where there is no metadata, the geometry of the tower; None is the default of
            training. The length of an audio tower's window is asked of the server.
        jpeg: whether frames are sent as JPEG files: a tenth of the length, and not exactly the same values.

    Returns:
        `RemoteAudioTower` or `RemoteVideoTower`.

    Raises:
        UserError: the server cannot be asked, or takes sound of another rate.
    """
    model = model or f'{tower}_tower'
    given = {'sample_rate': sample_rate, 'fps': fps, 'frames': frames, 'frame_size': frame_size}
    given = {name: value for name, value in given.items() if value is not None}
    if metadata:
        values = read_metadata_file(metadata)
        if given:
            raise UserError(f'--{next(iter(given))}: --metadata tells it; leave one of them out.')
        if values['tower'] != f'{tower}_tower':
            raise UserError(f'--metadata={metadata}: is that of the {values["tower"]}, not of the {tower}_tower.')
        given = {name: values['clip'][name] for name in ('sample_rate', 'fps', 'frames', 'frame_size')}
    clip = ClipConfig(**given)
    if tower == 'video':
        signature = 'jpeg' if jpeg else 'serving_default'
        return RemoteVideoTower(server, model, version, clip, clip.fps, clip.frames, signature)
    window = clip.window_samples
    if not metadata:
        silence = np.zeros([1, 1], np.float32)
        server.predict(model, version, 'at_rate', {'waveform': silence, 'sample_rate': np.int32(clip.sample_rate)})
        answer = server.predict(model, version, 'windows', {'waveform': silence, 'hop_seconds': np.float32(1)})
        window = round(2 * float(answer['timestamps'][0]) * clip.sample_rate)
    return RemoteAudioTower(server, model, version, clip, clip.sample_rate, window, 'pcm')


def print_features(tower, sources, hop_seconds, centered, batch_size, num_workers, timeout_seconds):
    """Prints a line of JSON per file: its path with the features, or with why there are none.

    Returns:
        Number of files that were embedded.
    """
    count = 0
    results = extraction.embed_sources(tower, sources, hop_seconds, centered, batch_size, num_workers, timeout_seconds)
    for source, (_, result) in zip(sources, results, strict=True):
        if isinstance(result, media.Unsuitable):
            print(json.dumps({'path': source.data_path, 'reason': result.reason, 'detail': result.detail}), flush=True)
            continue
        values = {name: value.tolist() for name, value in result._asdict().items()}
        print(json.dumps({'path': source.data_path, **values}), flush=True)
        count += 1
    return count


def _define_flags():
    # Here and not at import, so that importing this file leaves other programs' flags alone.
    defaults = ClipConfig()
    flags.DEFINE_string('server', 'localhost:8500', 'host:port of the gRPC interface')
    flags.DEFINE_string('rest', '', 'host:port of the REST interface, which is then taken instead')
    flags.DEFINE_enum('rest_form', 'column', ['row', 'column'], 'layout of the JSON')
    flags.DEFINE_multi_string('input', None, 'file, folder, glob in quotes, or CSV of sounds or videos; may be repeated')
    flags.DEFINE_string('output', '', 'folder to write features to; empty prints them')
    flags.DEFINE_enum('output_format', 'npz', extraction.FORMATS, 'npz, a file per sound or video; or tfrecord, a set of records')
    flags.DEFINE_enum('tower', 'audio', ['audio', 'video'], 'what to send')
    flags.DEFINE_string('model', '', 'name of the model on the server; empty is audio_tower or video_tower')
    flags.DEFINE_integer('version', None, 'version of the model; by default the newest', lower_bound=0)
    flags.DEFINE_string('metadata', '', "the tower's assets/metadata.json, which tells the four numbers below")
    flags.DEFINE_integer('sample_rate', None, f'audio tower: Hz; by default {defaults.sample_rate}', lower_bound=1)
    flags.DEFINE_float('fps', None, f'video tower: frames per second; by default {defaults.fps:g}', lower_bound=0.1)
    flags.DEFINE_integer('frames', None, f'video tower: frames in a window; by default {defaults.frames}', lower_bound=1)
    flags.DEFINE_integer('frame_size', None, f'video tower: height and width of a frame; by default {defaults.frame_size}',
                         lower_bound=1)
    flags.DEFINE_boolean('jpeg', False, 'video tower: send frames as JPEG, a tenth of the length, not exactly the same values')
    flags.DEFINE_float('hop_seconds', None, 'step between windows, in seconds; by default a window, so that they lie end to end')
    flags.DEFINE_boolean('centered', False, 'pad by half a window at both ends, so that the first window is centred on 0 s')
    flags.DEFINE_integer('batch_size', BATCH_SIZE, 'windows in a request, where they fit', lower_bound=1)
    flags.DEFINE_integer('max_request_bytes', MAX_REQUEST_BYTES, 'longest request; what is longer is split', lower_bound=1024)
    flags.DEFINE_float('timeout_seconds', 60.0, 'deadline of a request, in seconds', lower_bound=0.01)
    flags.DEFINE_integer('retries', 5, 'further tries where the server is not there', lower_bound=0)
    flags.DEFINE_boolean('overwrite', False, 'write anew what is there already')
    flags.DEFINE_boolean('skip_existing', False, 'leave what is there already and go on with the rest')
    flags.DEFINE_integer('workers', 0, 'decoding processes; 0 takes one per two processors', lower_bound=0)
    flags.DEFINE_float('file_timeout_seconds', extraction.TIMEOUT_SECONDS, 'longest wait for the next part of a file, in seconds',
                       lower_bound=0.1)
    flags.mark_flag_as_required('input')


def query(values):
    """Does what the flags say.

    Returns:
        Number of files that are embedded.
    """
    options = values.timeout_seconds, values.retries, values.max_request_bytes
    if not values.rest:
        program.import_tensorflow()  # which the messages of gRPC are part of
    server = RestServer(values.rest, *options, values.rest_form) if values.rest else GrpcServer(values.server, *options)
    with contextlib.closing(server):
        sources = extraction.find_inputs(values.input)
        tower = connect(server, values.tower, model=values.model, version=values.version, metadata=values.metadata,
                        sample_rate=values.sample_rate, fps=values.fps, frames=values.frames, frame_size=values.frame_size,
                        jpeg=values.jpeg)
        if not values.output:
            return print_features(tower, sources, values.hop_seconds, values.centered, values.batch_size, values.workers,
                                  values.file_timeout_seconds)
        summary = extraction.extract_features(
            sources, values.output, [tower], hop_seconds=values.hop_seconds, centered=values.centered,
            batch_size=values.batch_size, output_format=values.output_format, overwrite=values.overwrite,
            skip_existing=values.skip_existing, num_workers=values.workers, timeout_seconds=values.file_timeout_seconds)
        print(extraction.describe(summary, values.output, [tower]))
        return summary['written'] + summary['existing']


def main(argv):
    """Runs the command line; see `python -m avts_tf.inference.client --help`."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected argument {argv[1]!r}; every value has a flag.')
    try:
        with stop_on_signals('What is finished stays; the same command with --skip_existing resumes with the rest.'):
            count = query(flags.FLAGS)
        sys.exit(0 if count else 1)
    except UserError as error:
        print(error.on_command_line(), file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    _define_flags()
    program.run(main, tensorflow=False)
