"""Loads an export with the tool that it is for. Usage: load.py TOOL FOLDER. Prints one JSON object:
version of the tool, number of cases, and the first case's id (where the tool keeps ids), input and expected answer."""

import importlib.metadata
import json
import os
import pathlib
import sys

tool, folder = sys.argv[1], pathlib.Path(sys.argv[2])


def lines(name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").split("\n") if line]


def said(package, cases, case_id, text, expected):
    version = importlib.metadata.version(package)
    print(json.dumps({"version": version, "cases": cases, "id": case_id, "input": text, "expected": expected}))


def inspect():
    from inspect_ai.dataset import json_dataset

    data = json_dataset(str(folder / "samples.jsonl"))
    said("inspect-ai", len(data), data[0].id, data[0].input[0].text, data[0].target)


def langsmith():
    from langsmith.schemas import ExampleCreate

    items = [ExampleCreate.model_validate(item) for item in lines("examples.jsonl")]
    first = items[0]
    said("langsmith", len(items), first.metadata["case_id"], first.inputs["messages"][0]["content"], first.outputs["answer"])


def serve(answer):
    """Runs a server in this process, for clients of services. `answer(method, path, body)` returns the body of the
    response: JSON, bytes, or None for an empty one. Returns its address and the list of requests."""
    import gzip
    import http.server
    import threading

    received = []

    class Server(http.server.BaseHTTPRequestHandler):
        def respond(self):
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("content-encoding") == "gzip":
                raw = gzip.decompress(raw)
            body = json.loads(raw) if raw else None
            received.append((self.command, self.path, body))
            value = answer(self.command, self.path, body)
            text = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
            self.send_response(200 if text else 204)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = respond

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", received


def langfuse():
    from langfuse import Langfuse

    def answer(_method, _path, body):
        empty = {field: None for field in ("input", "expectedOutput", "metadata", "sourceTraceId", "sourceObservationId")}
        times = {"createdAt": "2026-11-30T00:00:00Z", "updatedAt": "2026-11-30T00:00:00Z"}
        return empty | (body or {}) | times | {"status": "ACTIVE", "datasetId": "d", "mediaReferences": []}

    address, received = serve(answer)
    client = Langfuse(public_key="pk", secret_key="sk", base_url=address, tracing_enabled=False)
    for item in lines("dataset-items.jsonl"):
        client.create_dataset_item(
            dataset_name=item["datasetName"], id=item["id"], input=item["input"], expected_output=item["expectedOutput"], metadata=item["metadata"]
        )
    items = [body for _, path, body in received if path.endswith("/dataset-items")]
    said("langfuse", len(items), items[0]["metadata"]["case_id"], items[0]["input"][0]["content"], items[0]["expectedOutput"])


def opik():
    import opik

    def answer(method, path, _body):
        if path.endswith("/ver"):
            return {"version": importlib.metadata.version("opik")}
        if path.endswith("/datasets/retrieve"):
            return {"id": "0197f3f0-0000-7000-8000-000000000001", "name": "export", "dataset_items_count": 0}
        return {} if method == "GET" else None

    address, received = serve(answer)
    client = opik.Opik(host=address + "/", workspace="default")
    client.get_or_create_dataset("export").insert(json.loads((folder / "items.json").read_text("utf-8")))
    items = [item["data"] for _, _, body in received for item in (body or {}).get("items", [])]
    first = next(item for item in items if item["metadata"]["case_id"] == "case-1")
    said("opik", len(items), first["metadata"]["case_id"], first["input"][0]["content"], first["expected_output"])


def phoenix():
    """Starts Phoenix itself, uploads the export and reads the data set back."""
    import subprocess
    import tempfile
    import time
    import urllib.request

    with tempfile.TemporaryDirectory() as store:
        ports = [free_port(), free_port()]
        env = dict(
            os.environ, PHOENIX_WORKING_DIR=store, PHOENIX_HOST="127.0.0.1", PHOENIX_PORT=str(ports[0]), PHOENIX_GRPC_PORT=str(ports[1]), PHOENIX_TELEMETRY_ENABLED="false"
        )
        log = open(pathlib.Path(store) / "log", "w+")
        server = subprocess.Popen([sys.executable, "-m", "phoenix.server.main", "serve"], env=env, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{ports[0]}"
            deadline = time.monotonic() + 300
            while True:
                try:
                    urllib.request.urlopen(address + "/healthz", timeout=10)
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline, log.seek(0) or log.read()
                    time.sleep(0.2)
            body = (folder / "upload.json").read_bytes()
            request = urllib.request.Request(address + "/v1/datasets/upload?sync=true", body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=60).read()

            from phoenix.client import Client

            data = Client(base_url=address).datasets.get_dataset(dataset=json.loads(body)["name"])
            first = next(one for one in data.examples if one["metadata"]["case_id"] == "case-1")
            said("arize-phoenix", len(data.examples), first["metadata"]["case_id"], first["input"]["messages"][0]["content"], first["output"]["answer"])
        finally:
            server.terminate()
            server.wait(30)


def free_port():
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def ragas():
    from ragas import EvaluationDataset

    data = EvaluationDataset.from_jsonl(str(folder / "samples.jsonl"))
    index = [case["case_id"] for case in lines("cases.jsonl")]
    first = data.samples[0]
    assert data.samples[1].rubrics, "the rubric of the second case"
    said("ragas", len(data.samples), index[0], first.user_input, first.reference)


def openai_api():
    """Creates the eval and a run of it with the client, and checks all that it sends against its own types."""
    import jsonschema
    from openai import OpenAI
    from openai.types import EvalCreateParams
    from openai.types.evals.create_eval_jsonl_run_data_source_param import CreateEvalJSONLRunDataSourceParam
    from pydantic import TypeAdapter

    evaluation, items = json.loads((folder / "eval.json").read_text("utf-8")), lines("items.jsonl")
    TypeAdapter(EvalCreateParams).validate_python(evaluation)
    source = {"type": "jsonl", "source": {"type": "file_content", "content": items}}
    TypeAdapter(CreateEvalJSONLRunDataSourceParam).validate_python(source)
    for item in items:
        jsonschema.validate(item["item"], evaluation["data_source_config"]["item_schema"])
    graders = {criterion["name"]: criterion for criterion in evaluation["testing_criteria"]}
    code = {}
    exec(graders["rules"]["source"], code)
    # The first case must equal "yes"; the second must contain "{{ a }}", and has a rubric.
    grades = {text: [code["grade"]({"output_text": text}, item["item"]) for item in items] for text in ("yes", "yes {{ a }}", "no")}
    assert grades == {"yes": [1.0, 0.0], "yes {{ a }}": [0.0, 1.0], "no": [0.0, 0.0]}, grades
    assert "{{item.rubric}}" in graders["rubric"]["input"][1]["content"] and items[1]["item"]["rubric"] == "must be polite"

    def answer(_method, path, body):
        return dict(body or {}, id="run_1" if path.endswith("/runs") else "eval_1", object="eval", created_at=0)

    address, received = serve(answer)
    client = OpenAI(api_key="k", base_url=address)
    created = client.evals.create(**evaluation)
    client.evals.runs.create(created.id, name="export", data_source=source)
    sent = [item["item"] for item in received[1][2]["data_source"]["source"]["content"]]
    assert received[0][2] == evaluation and [path for _, path, _ in received] == ["/evals", "/evals/eval_1/runs"]
    said("openai", len(sent), sent[0]["case_id"], sent[0]["messages"][0]["content"], sent[0]["expected"])


def openai_evals():
    """Runs the export with a model that knows the answer and one that does not."""
    os.environ["OPENAI_API_KEY"] = "k"
    from evals.api import CompletionFn
    from evals.base import RunSpec
    from evals.record import DummyRecorder
    from evals.registry import Registry

    class Answer:
        def __init__(self, text):
            self.text = text

        def get_completions(self):
            return [self.text]

    class Says(CompletionFn):
        def __init__(self, text):
            self.text = text

        def __call__(self, prompt, **_):
            return Answer(self.text)

    os.environ["EVALS_SEQUENTIAL"] = "1"
    registry = Registry(registry_paths=[folder / "registry"])
    name = next((folder / "registry" / "evals").glob("*.yaml")).stem

    def run(name, *models):
        spec = registry.get_eval(name)
        functions = [Says(text) for text in models]
        arguments = dict(spec.args, completion_fns=functions, eval_registry_path=folder / "registry", name=spec.key, registry=registry)
        evaluation = registry.get_class(spec)(**arguments)
        run = RunSpec(completion_fns=["says"], eval_name=spec.key, base_eval="export", split="v1", run_config={}, created_by="", run_id="r", created_at="")
        return evaluation.run(DummyRecorder(run, log=False)), evaluation.get_samples()

    sys.path.insert(0, str(folder))
    # The first case must equal "yes"; the second must contain "{{ a }}".
    scores = {text: run(name, text)[0]["accuracy"] for text in ("yes", "yes {{ a }}", "no")}
    assert scores == {"yes": 0.5, "yes {{ a }}": 0.5, "no": 0.0}, scores
    graded = {text: run(name + "-rubric", "an answer", text)[0]["score"] for text in ("Yes", "No")}
    assert graded == {"Yes": 1.0, "No": 0.0}, graded
    samples = run(name, "yes")[1]
    first = samples[0]
    said("evals", len(samples), first["metadata"]["case_id"], first["input"][0]["content"], first["ideal"])


def braintrust():
    from braintrust import Eval

    cases = lines("cases.jsonl")
    keys = ("id", "input", "expected", "metadata", "tags")
    result = Eval(
        "export",
        data=lambda: [{key: case[key] for key in keys} for case in cases],
        task=lambda question: question[0]["content"],
        scores=[lambda input, output, expected: 1.0],
        no_send_logs=True,
    )
    first = next(it for it in result.results if it.metadata["case_id"] == cases[0]["id"])
    said("braintrust", len(result.results), first.metadata["case_id"], first.input[0]["content"], first.expected)


def deepeval():
    from deepeval.dataset import EvaluationDataset

    data = EvaluationDataset()
    data.add_goldens_from_json_file(file_path=str(folder / "goldens.json"))
    first = data.goldens[0]
    said("deepeval", len(data.goldens), first.additional_metadata["case_id"], first.input, first.expected_output)


def mlflow():
    import tempfile

    import mlflow
    from mlflow.genai.datasets import create_dataset

    with tempfile.TemporaryDirectory() as store:
        mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
        data = create_dataset(name="export")
        records = json.loads((folder / "records.json").read_text("utf-8"))
        data.merge_records(records)
        data.merge_records(records)  # the second time updates
        rows = data.to_df()
        first = next(row for _, row in rows.iterrows() if row["tags"]["case_id"] == records[0]["tags"]["case_id"])
        said("mlflow", len(rows), first["tags"]["case_id"], first["inputs"]["messages"][0]["content"], first["expectations"]["expected_response"])


def huggingface():
    import tempfile

    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset(str(folder), cache_dir=cache)
        first = data["regression"][0]
        said("datasets", sum(len(split) for split in data.values()), first["id"], first["messages"][0]["content"], first["expected"])


def table(format):
    import tempfile

    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset(format, data_files=str(folder / f"cases.{format}"), cache_dir=cache)["train"]
        first = data[0]
        said("datasets", len(data), first["case_id"], json.loads(first["messages"])[0]["content"], first["expected"])


def run_inspect():
    """Runs the first case twice with a stub for a model: to a passing and a failing grade. Writes two logs."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import json_dataset
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import exact

    for name, says in (("pass", None), ("fail", "something else")):
        data = json_dataset(str(folder / "samples.jsonl"))[:1]
        output = ModelOutput.from_content("mockllm/model", says or data[0].target)
        output.usage = ModelUsage(input_tokens=3, output_tokens=1, total_tokens=4)  # or it would fetch a tokenizer
        model = get_model("mockllm/model", custom_outputs=[output], memoize=False)
        log = eval(Task(dataset=data, scorer=exact()), model=model, log_dir=str(folder / "logs"), log_format="json", display="none")[0]
        pathlib.Path(log.location.removeprefix("file://")).rename(folder / f"{name}.json")


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DEEPEVAL_TELEMETRY_OPT_OUT", "YES")
if tool in ("csv", "parquet"):
    table(tool)
else:
    globals()[tool.replace("-", "_")]()
