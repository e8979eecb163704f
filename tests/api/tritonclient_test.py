#!/usr/bin/env python3
"""Triton's Python client against the Open Inference Protocol of the server."""
import queue
import sys

import numpy
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import harness

harness.limit(120)
PROMPT = "Once upon a time"


def text_input(text):
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([text.encode()], dtype=object))
    return tensor


def text_of(result):
    return b"".join(result.as_numpy("text_output").reshape(-1)).decode()


def test_health_and_metadata():
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(harness.MODEL_NAME)
    assert not client.is_model_ready("no-such-model")
    metadata = client.get_model_metadata(harness.MODEL_NAME)
    assert metadata.name == harness.MODEL_NAME
    assert "text_input" in [t.name for t in metadata.inputs] and "text_output" in [t.name for t in metadata.outputs]
    assert client.get_server_metadata().name


def test_infer():
    parameters = {"max_tokens": 8, "temperature": 0}
    first = text_of(client.infer(harness.MODEL_NAME, [text_input(PROMPT)], request_id="r1", parameters=parameters))
    assert first and first == text_of(client.infer(harness.MODEL_NAME, [text_input(PROMPT)], parameters=parameters))


def test_stream():
    parameters = {"max_tokens": 8, "temperature": 0}
    whole = text_of(client.infer(harness.MODEL_NAME, [text_input(PROMPT)], parameters=parameters))
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(harness.MODEL_NAME, [text_input(PROMPT)], request_id="s1", parameters=parameters,
                              enable_empty_final_response=True)
    text, final = "", False
    while not final:
        result, error = answers.get(timeout=60)
        assert error is None, error
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        if result.as_numpy("text_output") is not None:
            text += text_of(result)
    client.stop_stream()
    assert text == whole


def test_errors():
    for name, inputs in (("no-such-model", [text_input("x")]), (harness.MODEL_NAME, [])):
        try:
            client.infer(name, inputs)
            raise AssertionError("no error")
        except InferenceServerException as error:
            assert error.status(), error


with harness.Server(sys.argv[1]) as server:
    client = triton.InferenceServerClient(server.grpc)
    harness.run_tests(globals())
