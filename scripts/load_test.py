"""Sends many requests to a running `embodied-r serve` with the `openai` package, and checks every response.

Usage: load_test.py [--base-url URL] [--requests N] [--clients N] [--seed N]     (needs: pip install openai)

Requests are chat completions and text completions of mixed lengths, half of them streamed, some with several choices,
stop strings or log-probabilities; some clients disconnect in the middle of a stream. Each is sent among the others, and
later alone: both responses must be equal, and none may be lost. Prints counts and times, and the memory of the server if
its process is given (--pid). Exits with 1 if a response differs or is missing. Retries are off, so that a lost response is
an error.
"""
import argparse
import asyncio
import random
import re
import sys
import time
import urllib.request

import openai

WORDS = "the lamp is left of a chair behind table where door ahead 120 degrees 3 m then rotate right".split()
TIMEOUT_S = 600


def request(index: int, seed: int) -> dict:
    """The arguments of a request, which depend on nothing else."""
    draw = random.Random(f"{seed}/{index}")
    text = f"{index}: " + " ".join(draw.choices(WORDS, k=draw.choice([1, 5, 40, 200, 400])))
    fields = dict(
        max_tokens=draw.choice([1, 4, 16, 64, 200]),
        temperature=draw.choice([0, 0.7, 1.2]),
        seed=draw.randrange(2**31),
        n=draw.choice([1, 1, 1, 2, 4]),
        stream=draw.random() < 0.5,
        extra_body={"ignore_eos": draw.random() < 0.5},
    )
    if draw.random() < 0.2:
        fields["stop"] = draw.choice(["e", "lamp", ["\n", "zz"]])
    is_chat = draw.random() < 0.6
    if draw.random() < 0.2:
        fields.update(dict(logprobs=True, top_logprobs=3) if is_chat else dict(logprobs=3))
    if fields["stream"]:
        fields["stream_options"] = {"include_usage": True}
    prompt = dict(messages=[{"role": "user", "content": text}]) if is_chat else dict(prompt=text)
    return dict(is_chat=is_chat, is_cancelled=draw.random() < 0.05, fields=prompt | fields)


def logprob_values(choice) -> list:
    logprobs = getattr(choice, "logprobs", None)
    if logprobs is None:
        return []
    content = getattr(logprobs, "content", None)
    return [entry.logprob for entry in content] if content else list(logprobs.token_logprobs or [])


def text_of(choice) -> str:
    part = getattr(choice, "message", None) or getattr(choice, "delta", None)
    return (part.content or "") if part is not None else choice.text


async def answer(client: openai.AsyncOpenAI, model: str, request: dict):
    """Choices as [text, finish reason, log-probabilities], and the usage; None for a cancelled stream."""
    fields = request["fields"]
    create = client.chat.completions.create if request["is_chat"] else client.completions.create
    response = await create(model=model, **fields)
    choices = [["", None, []] for _ in range(fields["n"])]
    usage = None
    if not fields["stream"]:
        for choice in response.choices:
            choices[choice.index] = [text_of(choice), choice.finish_reason, logprob_values(choice)]
        return choices, response.usage.model_dump()
    async for chunk in response:
        for choice in chunk.choices:
            one = choices[choice.index]
            one[0] += text_of(choice)
            one[1] = choice.finish_reason or one[1]
            one[2] += logprob_values(choice)
        usage = chunk.usage.model_dump() if chunk.usage else usage
        if request["is_cancelled"]:
            await response.close()
            return None
    return choices, usage


async def send_all(client, model, requests, clients) -> list:
    slots = asyncio.Semaphore(clients)

    async def one(request):
        async with slots:
            try:
                return await answer(client, model, request)
            except openai.OpenAIError as error:
                return f"{type(error).__name__}: {error}"

    return await asyncio.gather(*(one(request) for request in requests))


def resident_mb(pid: int | None) -> str:
    if pid is None:
        return "unknown"
    status = open(f"/proc/{pid}/status").read()
    return ", ".join(f"{name} {int(kb) // 1024} MB" for name, kb in re.findall(r"(VmHWM|VmRSS):\s+(\d+)", status))


def outcomes(base_url: str) -> dict:
    metrics = urllib.request.urlopen(base_url.removesuffix("/v1") + "/metrics").read().decode()
    return dict(re.findall(r'requests_total\{outcome="(\w+)"\} (\d+)', metrics))


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pid", type=int, help="process of the server, to print its memory")
    args = parser.parse_args()
    client = openai.AsyncOpenAI(base_url=args.base_url, api_key=args.api_key, max_retries=0, timeout=TIMEOUT_S)
    model = (await client.models.list()).data[0].id
    requests = [request(index, args.seed) for index in range(args.requests)]
    print(f"openai {openai.__version__}, model {model}, {args.requests} requests, {args.clients} clients")
    print(f"memory before: {resident_mb(args.pid)}")
    began = time.monotonic()
    together = await send_all(client, model, requests, args.clients)
    print(f"together: {time.monotonic() - began:.1f} s; memory: {resident_mb(args.pid)}")
    began = time.monotonic()
    alone = await send_all(client, model, requests, 1)
    print(f"alone: {time.monotonic() - began:.1f} s; memory: {resident_mb(args.pid)}")
    print(f"outcomes: {outcomes(args.base_url)}")
    failed = [i for i, found in enumerate(together + alone) if isinstance(found, str)]
    cancelled = sum(found is None for found in together)
    differing = [i for i, pair in enumerate(zip(together, alone)) if pair[0] != pair[1]]
    for index in (failed + differing)[:5]:
        i = index % len(requests)
        print(f"request {i}: {requests[i]}\n  together: {together[i]}\n  alone: {alone[i]}", file=sys.stderr)
    equal = len(requests) - cancelled - len(differing)
    print(f"{equal} equal, {cancelled} cancelled by the client, {len(differing)} different, {len(failed)} failed")
    return 1 if failed or differing else 0


sys.exit(asyncio.run(main()))
