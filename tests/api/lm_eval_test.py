#!/usr/bin/env python3
"""Scoring as lm-evaluation-harness's local-completions does it, against the Score RPC: equal to 1e-4."""
import json
import pathlib
import sys
import tempfile
import urllib.request

import grpc
from grpc_tools import protoc

import harness

harness.limit(120)
PAIRS = [("The capital of England is", " London"), ("It was the best of times,", " it was the worst of times"),
         ("", "Call me Ishmael."), ("He said", " that the weather, for once, was rather good; and so we walked on."),
         ("Naïve café", " 北京 — “quoted”")]


def load_protocol(directory):
    include = str(pathlib.Path(sys.modules["grpc_tools"].__file__).parent / "_proto")
    assert protoc.main(["protoc", f"-I{harness.ROOT / 'proto'}", f"-I{include}", f"--python_out={directory}",
                        f"--grpc_python_out={directory}", "hgrn2/v1/inference.proto"]) == 0
    sys.path.insert(0, directory)
    from hgrn2.v1 import inference_pb2, inference_pb2_grpc
    return inference_pb2, inference_pb2_grpc


def post(body):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(server.base_url + "/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(opener.open(request, timeout=60))


def tokenize(text, special):
    return list(stub.Tokenize(pb.TokenizeRequest(text=text, add_special_tokens=special)).token_ids)


def test_loglikelihoods_are_those_of_score():
    # As the harness's TemplateAPI encodes: context and continuation as one list of ids, several to a request.
    bos = stub.GetModel(pb.GetModelRequest()).bos_token_id
    encoded = [(tokenize(c, False) or [bos], tokenize(t, False)) for c, t in PAIRS]
    answer = post({"model": harness.MODEL_NAME, "prompt": [c + t for c, t in encoded], "temperature": 0,
                   "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234})
    assert [c["index"] for c in answer["choices"]] == list(range(len(PAIRS)))
    greedy = []
    for choice, (context, continuation) in zip(answer["choices"], encoded):
        # parse_logprobs of the harness: from the context's end to the last token but the generated one.
        tokens = choice["logprobs"]["token_logprobs"][len(context):-1]
        top = choice["logprobs"]["top_logprobs"][len(context):-1]
        assert len(tokens) == len(continuation), (len(tokens), len(continuation))
        is_greedy = all(token == max(best.values()) for token, best in zip(tokens, top))
        ids = lambda x: pb.Prompt(tokens=pb.TokenIds(ids=x))  # noqa: E731
        score = stub.Score(pb.ScoreRequest(context=ids(context), continuations=[ids(continuation)])).scores[0]
        for mine, theirs in zip(tokens, score.tokens):
            assert abs(mine - theirs.logprob) <= 1e-4, (mine, theirs.logprob)
        assert abs(sum(tokens) - score.sum_logprob) <= 1e-4 * len(tokens), (sum(tokens), score.sum_logprob)
        assert is_greedy == score.is_greedy
        greedy.append(is_greedy)
        assert choice["logprobs"]["token_logprobs"][0] is None  # nothing predicts the first token
    print(f"  {len(PAIRS)} pairs, greedy: {greedy}")


def test_one_prompt_of_ids_without_a_batch():
    ids = tokenize("It was the best of times", False)
    answer = post({"model": harness.MODEL_NAME, "prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": 1,
                   "echo": True, "seed": 1})
    assert len(answer["choices"][0]["logprobs"]["token_logprobs"]) == len(ids) + 1


with tempfile.TemporaryDirectory() as generated, harness.Server(sys.argv[1]) as server:
    pb, stubs = load_protocol(generated)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = stubs.InferenceStub(channel)
        harness.run_tests(globals())
