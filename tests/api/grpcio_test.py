#!/usr/bin/env python3
"""grpcio with what the server tells of itself by reflection: no generated code, no .proto file."""
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import harness

harness.limit(120)
SERVICE = "hgrn2.v1.Inference"


def method(name):
    """A callable for a method of SERVICE that takes a dict and gives dicts."""
    found = pool.FindServiceByName(SERVICE).FindMethodByName(name)
    make = channel.unary_stream if found.server_streaming else channel.unary_unary
    call = make(f"/{SERVICE}/{name}", request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=GetMessageClass(found.output_type).FromString)
    request = GetMessageClass(found.input_type)

    def to_dict(message):
        return json_format.MessageToDict(message, preserving_proto_field_name=True)

    def invoke(fields, **options):
        answer = call(json_format.ParseDict(fields, request()), timeout=60, **options)
        return [to_dict(m) for m in answer] if found.server_streaming else to_dict(answer)
    return invoke


def test_services():
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())


def test_generate_streams_what_complete_returns():
    request = {"prompts": [{"text": "Once upon a time"}], "sampling": {"max_tokens": 12, "temperature": 0}}
    deltas = method("Generate")(request)
    whole = method("Complete")(request)
    text = "".join(c.get("text", "") for d in deltas for c in d.get("choices", []))
    assert text == whole["choices"][0]["text"] and text
    assert deltas[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == 12


def test_score():
    tokens = method("Tokenize")({"text": "the king", "add_special_tokens": False})["token_ids"]
    score = method("Score")({"context": {"text": "Long live"}, "continuations": [{"tokens": {"ids": tokens}}]})
    assert len(score["scores"][0]["tokens"]) == len(tokens) and score["scores"][0]["sum_logprob"] < 0


def test_errors():
    try:
        method("Complete")({"prompts": [{"text": "x"}], "sampling": {"temperature": -1}})
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "temperature" in error.details()


with harness.Server(sys.argv[1]) as server, grpc.insecure_channel(server.grpc) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    harness.run_tests(globals())
