"""Tries the clients of OpenAI's and vLLM's APIs on a running server, and prints one line per client and feature.

    pip install openai langchain-openai openai-agents pydantic-ai-slim[openai] litellm instructor \\
        llama-index-llms-openai-like 'lm-eval[api]==0.4.13' guidellm
    embodied-r bench make-model --preset tiny-qwen2 /tmp/tiny
    embodied-r serve --model /tmp/tiny --served-model-name tiny --port 8731
    python scripts/clients/try_clients.py http://127.0.0.1:8731 tiny

Further arguments are the packages to try; those that are not installed are skipped. docs/clients.md has the results.
"""

import asyncio
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import traceback
import urllib.request

BASE, MODEL = sys.argv[1].rstrip("/"), sys.argv[2]
API = f"{BASE}/v1"
QUESTION = [{"role": "user", "content": "Where is the lamp?"}]
TRIALS = []

os.environ.update(OPENAI_API_KEY="none", OPENAI_BASE_URL=API, OPENAI_AGENTS_DISABLE_TRACING="1",
                  LITELLM_LOCAL_MODEL_COST_MAP="True")


def trial(package, feature):
    """Registers a function as the trial of a feature of a package."""

    def register(function):
        TRIALS.append((package, feature, function))
        return function

    return register


def ending():
    """Fields with which even a random model ends its turn: the stop token is certain after four tokens."""

    def call(path, body=None):
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(f"{BASE}{path}", data) as reply:
            return json.load(reply)

    prompt = call("/tokenizer_info")["eos_token"]
    (stop,) = call("/tokenize", {"prompt": prompt, "add_special_tokens": False})["tokens"]
    return {"logit_bias": {str(stop): 100}, "min_tokens": 4}


def openai_client():
    import openai

    return openai.OpenAI(max_retries=0)


@trial("openai", "chat completion")
def chat():
    reply = openai_client().chat.completions.create(
        model=MODEL, messages=QUESTION, max_completion_tokens=8, temperature=0, logprobs=True,
        top_logprobs=2, n=2, seed=1, stop=["\n\n"], user="u", store=True, metadata={"a": "b"},
        service_tier="auto", reasoning_effort="low",
    )
    assert len(reply.choices) == 2 and reply.choices[0].message.role == "assistant"
    assert reply.choices[0].logprobs.content[0].top_logprobs
    assert reply.system_fingerprint and reply.usage.prompt_tokens_details.cached_tokens >= 0


@trial("openai", "chat completion, streamed")
def chat_streamed():
    ask = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    client = openai_client()
    whole = client.chat.completions.create(**ask).choices[0].message.content
    stream = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.completion_tokens > 0
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, max_tokens=8, extra_body=ending()
    ) as helper:
        assert helper.get_final_completion().choices[0].finish_reason == "stop"


@trial("openai", "completion with echo and log-probabilities")
def completion():
    reply = openai_client().completions.create(
        model=MODEL, prompt=["a lamp", "b"], max_tokens=0, echo=True, logprobs=2, best_of=1
    )
    logprobs = reply.choices[0].logprobs
    assert reply.choices[0].text == "a lamp" and logprobs.token_logprobs[0] is None
    assert len(logprobs.tokens) == len(logprobs.text_offset) == len(logprobs.top_logprobs)


@trial("openai", "response")
def response():
    reply = openai_client().responses.create(
        model=MODEL, instructions="Be brief.", input="Where is the lamp?", max_output_tokens=8,
        store=False, metadata={"a": "b"}, include=["message.output_text.logprobs"], top_logprobs=2,
    )
    assert reply.object == "response" and reply.output[0].role == "assistant"
    assert reply.output[0].content[0].logprobs and reply.usage.total_tokens > 0
    assert reply.output_text == reply.output[0].content[0].text
    again = openai_client().responses.create(
        model=MODEL, max_output_tokens=4,
        input=[*QUESTION, *[item.to_dict() for item in reply.output], *QUESTION],
    )
    assert again.usage.input_tokens > reply.usage.input_tokens - 10


@trial("openai", "response, streamed")
def response_streamed():
    ask = {"model": MODEL, "input": QUESTION, "max_output_tokens": 8, "temperature": 0}
    client = openai_client()
    whole = client.responses.create(**ask).output_text
    events = list(client.responses.create(**ask, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole
    with client.responses.stream(**ask) as helper:
        kinds = [event.type for event in helper]
    assert kinds[-1] == events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == whole
    done = list(client.responses.create(**ask, stream=True, extra_body=ending()))
    assert done[-1].type == "response.completed"


@trial("openai", "models")
def models():
    client = openai_client()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


@trial("openai", "errors are typed")
def errors():
    import openai

    for error, call in [
        (openai.NotFoundError, {"model": "other", "messages": QUESTION}),
        (openai.BadRequestError, {"model": MODEL, "messages": QUESTION, "temperature": -1}),
        (openai.BadRequestError, {"model": MODEL, "messages": QUESTION, "max_tokens": 10**6}),
    ]:
        try:
            openai_client().chat.completions.create(**call)
        except error:
            continue
        raise AssertionError(f"no {error}")


@trial("langchain-openai", "chat model, whole and streamed")
def langchain():
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=API, temperature=0, max_tokens=8)
    reply = model.invoke("Where is the lamp?")
    assert reply.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in model.stream("Where is the lamp?")) == reply.text
    history = [("system", "s"), ("human", "a"), ("ai", reply.text), ("human", "b")]
    assert model.invoke(history).usage_metadata["input_tokens"] > 0
    assert len(model.batch(["a", "b"])) == 2


@trial("langchain-openai", "responses API, whole and streamed")
def langchain_responses():
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model=MODEL, base_url=API, temperature=0, max_tokens=8, use_responses_api=True,
        output_version="responses/v1",
    )
    reply = model.invoke("Where is the lamp?")
    assert reply.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in model.stream("Where is the lamp?")) == reply.text
    assert model.invoke([("human", "a"), reply, ("human", "b")]).usage_metadata["input_tokens"] > 0


@trial("langchain-openai", "completions")
def langchain_completions():
    from langchain_openai import OpenAI

    model = OpenAI(model=MODEL, base_url=API, temperature=0, max_tokens=8)
    text = model.invoke("a lamp")
    assert "".join(model.stream("a lamp")) == text


def agents_run(model, settings):
    from agents import Agent, Runner

    agent = Agent(name="a", instructions="Be brief.", model=model, model_settings=settings)
    whole = Runner.run_sync(agent, "Where is the lamp?")
    assert isinstance(whole.final_output, str)

    async def streamed():
        result = Runner.run_streamed(agent, "Where is the lamp?")
        async for _ in result.stream_events():
            pass
        return result

    assert isinstance(asyncio.run(streamed()).final_output, str)
    more = [*whole.to_input_list(), {"role": "user", "content": "And the chair?"}]
    assert isinstance(Runner.run_sync(agent, more).final_output, str)


@trial("openai-agents", "responses API (its default), whole and streamed")
def agents_responses():
    from agents import ModelSettings, OpenAIResponsesModel
    from openai import AsyncOpenAI

    settings = ModelSettings(max_tokens=8, extra_body=ending())
    agents_run(OpenAIResponsesModel(MODEL, AsyncOpenAI()), settings)


@trial("openai-agents", "chat completions, whole and streamed")
def agents_chat():
    from agents import ModelSettings, OpenAIChatCompletionsModel
    from openai import AsyncOpenAI

    settings = ModelSettings(max_tokens=8, include_usage=True, extra_body=ending())
    agents_run(OpenAIChatCompletionsModel(MODEL, AsyncOpenAI()), settings)


@trial("pydantic-ai-slim", "chat completions and responses API, whole and streamed")
def pydantic_ai():
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

    async def streamed(agent):
        async with agent.run_stream("Where is the lamp?") as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    for model in [OpenAIChatModel, OpenAIResponsesModel]:
        settings = {"max_tokens": 8, "temperature": 0, "extra_body": ending()}
        agent = Agent(model(MODEL), instructions="Be brief.", model_settings=settings)
        whole = agent.run_sync("Where is the lamp?")
        assert asyncio.run(streamed(agent)) == whole.output
        agent.run_sync("And the chair?", message_history=whole.all_messages())


@trial("llama-index-llms-openai-like", "chat, streamed too, and completions")
def llama_index():
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    settings = {"model": MODEL, "api_base": API, "api_key": "none", "max_tokens": 8, "temperature": 0}
    model, history = OpenAILike(is_chat_model=True, **settings), [ChatMessage(**QUESTION[0])]
    whole = model.chat(history).message.content
    assert "".join(chunk.delta or "" for chunk in model.stream_chat(history)) == whole
    assert OpenAILike(is_chat_model=False, **settings).complete("a lamp").text


@trial("litellm", "providers openai and hosted_vllm, whole and streamed")
def litellm():
    import litellm

    for provider in ["openai", "hosted_vllm"]:
        ask = {"model": f"{provider}/{MODEL}", "messages": QUESTION, "api_base": API,
               "api_key": "none", "max_tokens": 8, "temperature": 0}
        whole = litellm.completion(**ask)
        chunks = litellm.completion(**ask, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole.choices[0].message.content
        # Its own message object goes back as history.
        ask["messages"] = [*QUESTION, whole.choices[0].message.model_dump(), *QUESTION]
        assert litellm.completion(**ask).usage.prompt_tokens > whole.usage.prompt_tokens


@trial("instructor", "Mode.MD_JSON: the request is accepted; a random model's reply is no JSON")
def instructor():
    import instructor
    import pydantic

    class Lamp(pydantic.BaseModel):
        """A lamp."""

        where: str

    client = instructor.from_openai(openai_client(), mode=instructor.Mode.MD_JSON)
    try:
        client.chat.completions.create(
            model=MODEL, response_model=Lamp, messages=QUESTION, max_tokens=8, max_retries=1
        )
    except Exception as error:  # Its name depends on the version.
        # A refusal would be a `BadRequestError` in the chain.
        assert "BadRequest" not in "".join(traceback.format_exception(error)), error


LM_EVAL_TASK = """
task: lamps
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""

LM_EVAL_MORE = {
    "multiple_choice": 'doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}, {metric: acc_norm}]',
    "generate_until": "generation_kwargs: {until: ['\\n'], max_gen_toks: 8}\nmetric_list: [{metric: exact_match}]",
    "loglikelihood_rolling": "metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]",
}


def lm_eval(kind, model, more_args=(), url=f"{API}/completions", extra=""):
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data.jsonl")
        with open(data, "w") as file:
            for index in range(6):
                question = f"Question {index}: where is the lamp?\nAnswer:"
                choices = [" left", " right ahead", " behind the chair"]
                answer = index % 3 if kind == "multiple_choice" else choices[index % 3]
                if kind == "loglikelihood_rolling":
                    question, answer = "", question
                row = {"question": question, "choices": choices, "answer": answer}
                file.write(json.dumps(row) + "\n")
        with open(os.path.join(folder, "lamps.yaml"), "w") as file:
            file.write(LM_EVAL_TASK.format(data=data, kind=kind, more=LM_EVAL_MORE[kind]))
        arguments = f"model={MODEL},base_url={url},num_concurrent=2,max_retries=1{extra}"
        command = [sys.executable, "-m", "lm_eval", "--model", model, "--model_args", arguments,
                   "--include_path", folder, "--tasks", "lamps", "--output_path", folder, *more_args]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": folder}
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stderr[-3000:]
        found = [os.path.join(path, name) for path, _, names in os.walk(folder)
                 for name in names if name.startswith("results_")]
        with open(found[0]) as file:
            scores = json.load(file)["results"]["lamps"]
    numbers = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
    assert numbers and all(math.isfinite(value) for value in numbers.values()), scores


@trial("lm-eval", "local-completions: log-likelihoods (multiple choice)")
def lm_eval_choice():
    lm_eval("multiple_choice", "local-completions", ["--batch_size", "4"])


@trial("lm-eval", "local-completions: rolling log-likelihoods (perplexity)")
def lm_eval_rolling():
    lm_eval("loglikelihood_rolling", "local-completions")


@trial("lm-eval", "local-completions: generation")
def lm_eval_generation():
    lm_eval("generate_until", "local-completions")


@trial("lm-eval", "local-chat-completions: generation")
def lm_eval_chat():
    lm_eval("generate_until", "local-chat-completions", ["--apply_chat_template"],
            f"{API}/chat/completions")


@trial("guidellm", "load test of 20 requests, 4 at a time; FOLDER of the model in GUIDELLM_TOKENIZER")
def guidellm():
    tokenizer = os.environ.get("GUIDELLM_TOKENIZER")
    if importlib.util.find_spec("guidellm") is None or not tokenizer:
        raise ImportError("guidellm, or GUIDELLM_TOKENIZER, is missing")
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [os.path.join(os.path.dirname(sys.executable), "guidellm"), "run",
                   "--backend", f"kind=openai_http,target={BASE},model={MODEL}",
                   "--profile", "kind=concurrent,streams=4",
                   "--constraint", "kind=max_requests,count=20",
                   "--tokenizer", f"kind=huggingface_auto,model={tokenizer}",
                   "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16",
                   "--disable-progress", "--output", f"kind=json,path={report}"]
        subprocess.run(command, check=True, capture_output=True)
        with open(report) as file:
            requests = json.load(file)["benchmarks"][0]["requests"]
    assert len(requests["successful"]) == 20 and not requests["errored"]


@trial("curl", "health, ping, version, models, tokenize")
def curl():
    def get(path, body=None):
        call = ["curl", "-sS", "-w", "%{http_code}", f"{BASE}{path}"]
        call += ["-d", json.dumps(body)] if body else []
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    for path in ["/health", "/ping", "/version", "/v1/models", "/metrics", "/tokenizer_info"]:
        assert get(path).endswith("200"), path
    tokens = json.loads(get("/tokenize", {"prompt": "a lamp"})[:-3])["tokens"]
    assert json.loads(get("/detokenize", {"tokens": tokens})[:-3]) == {"prompt": "a lamp"}


def version(package):
    if package == "curl":
        return subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1]
    return importlib.metadata.version(package)


def main():
    urllib.request.urlopen(f"{BASE}/health").read()
    only = sys.argv[3:]
    failed = 0
    for package, feature, function in TRIALS:
        if only and package not in only:
            continue
        try:
            function()
            result = "works"
        except ImportError as error:
            result = f"skipped: {error}"
        except Exception:
            failed += 1
            result = f"FAILED\n{traceback.format_exc()}"
        try:
            package = f"{package} {version(package)}"
        except importlib.metadata.PackageNotFoundError:
            pass
        print(f"{package}: {feature}: {result}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
