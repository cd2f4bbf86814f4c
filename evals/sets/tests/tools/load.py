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


def langfuse():
    from langfuse import Langfuse

    # The client's own method against a server of this process, which keeps what it receives.
    import http.server
    import threading

    received = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.endswith("/dataset-items"):
                received.append(body)
            answer = dict(body, status="ACTIVE", datasetId="d", createdAt="2026-11-30T00:00:00Z", updatedAt="2026-11-30T00:00:00Z", mediaReferences=[])
            for field in ("input", "expectedOutput", "metadata", "sourceTraceId", "sourceObservationId"):
                answer.setdefault(field, None)
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Langfuse(public_key="pk", secret_key="sk", base_url=f"http://127.0.0.1:{server.server_port}", tracing_enabled=False)
    for item in lines("dataset-items.jsonl"):
        client.create_dataset_item(
            dataset_name=item["datasetName"], id=item["id"], input=item["input"], expected_output=item["expectedOutput"], metadata=item["metadata"]
        )
    first = received[0]
    said("langfuse", len(received), first["metadata"]["case_id"], first["input"][0]["content"], first["expectedOutput"])


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
