#!/usr/bin/env python3
"""Three replicas behind a real balancer: a rolling restart loses nothing, a killed replica loses only what ran on it.

balancer_test.py --server BINARY [--rate 50] [unittest arguments]. Skipped where no balancer is installed.
"""
import argparse
import asyncio
import json
import signal
import sys
import unittest

import harness

OPTIONS = argparse.Namespace(server="", rate=50.0, streams=False)
# What a gRPC client configures once: it leaves replicas that turn unready, and calls that one refused are sent again.
RETRY = json.dumps({
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "hgrn2.v1.Inference"},
    "methodConfig": [{
        "name": [{"service": "hgrn2.v1.Inference"}],
        "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"]}}]})


class Client:
    """Sends calls and records how each ended."""

    def __init__(self, target, protocol, options=()):
        import grpc
        self.grpc = grpc
        self.messages, stubs = protocol
        self.channel = grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0), *options])
        self.stub = stubs.InferenceStub(self.channel)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.channel.close()

    def request(self, number, max_tokens):
        m = self.messages
        return m.GenerateRequest(
            prompts=[m.Prompt(tokens=m.TokenIds(ids=[1 + number % 4000, 7, 9]))],
            sampling=m.SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True))

    async def call(self, number, max_tokens, stream, timeout=60, session=None):
        """Status name of one call, checked for completeness."""
        request = self.request(number, max_tokens)
        metadata = [("x-session-id", session)] if session else None
        try:
            if stream:
                tokens = 0
                async for part in self.stub.Generate(request, timeout=timeout, metadata=metadata):
                    tokens += sum(len(choice.token_ids) for choice in part.choices)
            else:
                tokens = (await self.stub.Complete(request, timeout=timeout, metadata=metadata)).usage.completion_tokens
        except self.grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "OK" if tokens == max_tokens else f"TRUNCATED: {tokens} of {max_tokens} tokens"


class Pool:
    """Several clients, called in turn."""

    def __init__(self, clients):
        self.clients = clients

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for client in self.clients:
            await client.channel.close()

    async def call(self, number, *arguments, **more):
        return await self.clients[number % len(self.clients)].call(number, *arguments, **more)


async def open_loop(client, rate, stop, limit):
    """Sends `rate` calls a second, streams and unary calls in turn, until `stop`; at most `limit` calls."""
    loop = asyncio.get_running_loop()
    start, calls = loop.time(), []
    while not stop.is_set() and len(calls) < limit:
        delay = start + len(calls) / rate - loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        number = len(calls)
        # Some are long enough to be in flight when their replica is told to stop.
        calls.append(asyncio.create_task(client.call(number, 60 if number % 10 == 0 else 4, stream=number % 2 == 0)))
    seconds = loop.time() - start
    return await asyncio.gather(*calls), seconds


class Replicas(unittest.TestCase):
    """Three running replicas; a fresh set for each test."""
    protocol = None
    flags = ()

    def setUp(self):
        if Replicas.protocol is None:
            directory = harness.temporary_directory()
            self.addClassCleanup(directory.cleanup)
            Replicas.protocol = harness.load_protocol(directory.name)
        self.directory = harness.temporary_directory()
        self.addCleanup(self.directory.cleanup)
        ports = harness.free_ports(6)
        self.replicas = [
            harness.Replica(OPTIONS.server, self.directory.name, f"replica{i + 1}", ports[i], ports[3 + i],
                            ["--shutdown-timeout", "30", *self.flags]) for i in range(3)]
        for replica in self.replicas:
            replica.start()
            self.addCleanup(lambda r=replica: r.process.stop(signal.SIGKILL))
        for replica in self.replicas:
            replica.wait_ready()

    def restart_one_by_one(self, before=lambda replica: None, after=lambda replica: None):
        for replica in self.replicas:
            before(replica)
            status = replica.process.stop(signal.SIGTERM)
            self.assertEqual(status, 0, f"{replica.name} did not drain:\n{replica.process.output()[-2000:]}")
            replica.start().wait_ready()
            after(replica)

    async def under_load(self, client, restart):
        """Runs restart() while calls are sent; returns the outcomes."""
        for number in range(6):  # balancers that have just started may not know their replicas yet
            self.assertEqual(await client.call(number, 1, stream=False), "OK")
        stop = asyncio.Event()
        load = asyncio.create_task(open_loop(client, OPTIONS.rate, stop, limit=int(OPTIONS.rate * 60)))
        await asyncio.sleep(1)
        await asyncio.get_running_loop().run_in_executor(None, restart)
        await asyncio.sleep(1)
        stop.set()
        outcomes, seconds = await load
        served = [int(r.metric("hgrn2_grpc_requests_total")) for r in self.replicas]
        print(f"{type(self).__name__}: rolling restart of 3 replicas in {seconds:.1f} s: {len(outcomes)} calls, "
              f"{len(outcomes) / seconds:.1f}/s, {sum(o != 'OK' for o in outcomes)} failed; "
              f"calls by the new processes: {served}")
        self.assertGreater(len(outcomes), OPTIONS.rate)
        self.assertGreater(len(outcomes) / seconds, 0.8 * OPTIONS.rate, "the load was not what the test claims")
        return outcomes

    async def kill_one(self, client, stream, timeout=120):
        """Kills the busiest replica under long calls. Returns (calls that ran on it, outcomes, retried)."""
        calls = [asyncio.create_task(client.call(i, 600, stream)) for i in range(12)]

        def settled():
            return sum(r.metric("vllm:num_requests_running") for r in self.replicas) == len(calls)
        await asyncio.get_running_loop().run_in_executor(None, harness.wait_for, "all calls running", settled, 60)
        running = {r: int(r.metric("vllm:num_requests_running")) for r in self.replicas}
        victim = max(running, key=running.get)
        self.assertFalse(any(call.done() for call in calls), "a call ended before the kill")
        victim.process.stop(signal.SIGKILL)
        outcomes = await asyncio.wait_for(asyncio.gather(*calls), timeout)
        retried = [await client.call(i, 4, stream) for i, o in enumerate(outcomes) if o != "OK"]
        retried += await asyncio.gather(*[client.call(i, 4, stream) for i in range(30)])
        print(f"{type(self).__name__}: kill -9 with {running[victim]} of 12 {'streams' if stream else 'unary calls'} on it: "
              f"{sum(o != 'OK' for o in outcomes)} failed {sorted({o[:70] for o in outcomes if o != 'OK'})}, "
              f"then {sum(o == 'OK' for o in retried)} of {len(retried)} OK")
        self.assertGreater(running[victim], 0)
        return running[victim], outcomes, retried


    async def replicas_of_sessions(self, client):
        """For each of 8 sessions, the replicas that served its 4 calls."""
        served = []
        for session in range(8):
            before = [r.metric("hgrn2_grpc_requests_total") for r in self.replicas]
            for number in range(4):
                self.assertEqual(await client.call(number, 1, stream=True, session=f"session-{session}"), "OK")
            after = [r.metric("hgrn2_grpc_requests_total") for r in self.replicas]
            served.append({i for i in range(3) if after[i] > before[i]})
        return served


class BehindBalancer:
    """Mixin: the tests, for the class attribute `balancer`."""
    balancer = None
    stream_kills = property(lambda self: OPTIONS.streams)

    def client(self, balancer):
        return Client(balancer.target, self.protocol)

    async def check_affinity(self, client):
        sessions = await self.replicas_of_sessions(client)
        self.assertTrue(all(len(replicas) == 1 for replicas in sessions), f"a session moved: {sessions}")
        self.assertGreater(len(set.union(*sessions)), 1, "every session went to one replica")

    def setUp(self):
        if self.balancer.program() is None:
            self.skipTest(f"{self.balancer.PROGRAM} is not installed")
        super().setUp()

    def test_rolling_restart_loses_no_request(self):
        async def run():
            with self.balancer(self.directory.name, self.replicas) as balancer:
                async with self.client(balancer) as client:
                    return await self.under_load(client, lambda: self.restart_one_by_one(balancer.take_out, balancer.put_back))
        outcomes = asyncio.run(run())
        self.assertEqual([o for o in outcomes if o != "OK"], [])

    def test_killed_replica_loses_only_what_ran_on_it(self):
        async def run():
            with self.balancer(self.directory.name, self.replicas) as balancer:
                async with self.client(balancer) as client:
                    for number in range(6):
                        self.assertEqual(await client.call(number, 1, stream=False), "OK")
                    await self.check_affinity(client)
                    return await self.kill_one(client, stream=self.stream_kills)
        lost, outcomes, retried = asyncio.run(run())
        failed = [o for o in outcomes if o != "OK"]
        self.assertEqual(len(failed), lost)
        self.assertTrue(all(o.startswith("UNAVAILABLE") for o in failed), failed)
        self.assertEqual([o for o in retried if o != "OK"], [])


class BehindHAProxy(BehindBalancer, Replicas):
    balancer = harness.HAProxy


class BehindHAProxyTcp(BehindBalancer, Replicas):
    """Connections are balanced: several clients, streams end as UNAVAILABLE too, no affinity of calls."""
    balancer = harness.HAProxyTcp
    flags = ("--grpc-max-connection-age", "2")
    stream_kills = True

    def client(self, balancer):
        # A connection each, which channels to one address would share.
        return Pool([Client(balancer.target, self.protocol, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(6)])

    async def check_affinity(self, client):
        pass


class BehindNginx(BehindBalancer, Replicas):
    balancer = harness.Nginx


class BehindEnvoy(BehindBalancer, Replicas):
    balancer = harness.Envoy


class RoundRobin(Replicas):
    """No balancer: the client's own round_robin over all replicas, as over a headless Service."""

    def client(self, retry):
        addresses = ",".join(f"127.0.0.1:{r.grpc_port}" for r in self.replicas)
        config = RETRY if retry else json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        return Client(f"ipv4:{addresses}", self.protocol, [
            ("grpc.service_config", config), ("grpc.enable_retries", int(retry)),
            ("grpc.min_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500)])

    def test_rolling_restart_loses_no_request_of_a_client_that_retries(self):
        async def run():
            async with self.client(retry=True) as client:
                return await self.under_load(client, self.restart_one_by_one)
        self.assertEqual([o for o in asyncio.run(run()) if o != "OK"], [])

    def test_killed_replica_loses_only_what_ran_on_it(self):
        async def run():
            async with self.client(retry=False) as client:
                await asyncio.gather(*[client.call(i, 1, stream=True) for i in range(12)])
                return await self.kill_one(client, stream=True)
        lost, outcomes, retried = asyncio.run(run())
        failed = [o for o in outcomes if o != "OK"]
        self.assertEqual(len(failed), lost)
        self.assertTrue(all(o.startswith("UNAVAILABLE") for o in failed), failed)
        self.assertEqual([o for o in retried if o != "OK"], [])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="hgrn2-server binary")
    parser.add_argument("--rate", type=float, default=OPTIONS.rate, help="calls per second during a rolling restart")
    parser.add_argument("--streams", action="store_true", help="kill a replica under streams instead of unary calls "
                        "(through a balancer their status depends on the balancer: docs/operations.md)")
    _, rest = parser.parse_known_args(namespace=OPTIONS)
    harness.limit(270)
    program = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2)
    result = program.result
    sys.exit(0 if result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
