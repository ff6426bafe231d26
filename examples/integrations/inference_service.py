"""An inference service that loads a deployed model by its deployment id, in the process that needs it.

    python examples/integrations/inference_service.py finance/fin-assistant --mount models=/mnt/models --port 8080
    curl -d '{"prompt": "What is a bond?"}' http://127.0.0.1:8080/generate

Most callers should use the deployment's own endpoint. This is for a batch job or an edge box that has the claim mounted: it
asks the cluster which model serves, finds the files, checks them against the digest that was validated, and loads those only.
"""

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from lora_client import ClientError, SyncLoRAClient
from lora_integration_tools import LoRADeploymentManager
from lora_job.digest import directory_digest


def find_model(deployment_id: str, mounts: dict[str, Path]) -> Path:
    """The directory of the model that serves under this id, proven by its digest.

    Raises:
        SystemExit: nothing serves, its claim is not mounted here, or the files are not those that were validated.
    """
    status = LoRADeploymentManager().get_deployment_status(deployment_id)
    path = status["deployed_model_path"]
    if not path:
        sys.exit(f"{deployment_id}: no model serves ({status.get('error') or status.get('message')})")
    claim, _, inside = path.removeprefix("pvc://").partition("/")
    if claim not in mounts:
        sys.exit(f"{path}: claim {claim} is not mounted here; say where with --mount {claim}=DIRECTORY")
    directory = mounts[claim] / inside
    with SyncLoRAClient() as client:
        stable = client.get_deployment_status(deployment_id).stable
    found = directory_digest(directory)
    if stable is None or found != stable.artifact_digest:
        sys.exit(f"{directory}: digest {found} is not the deployed one; is the right claim mounted?")
    return directory


class Model:
    """A loaded model; one request at a time."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - seconds that --help must not take

        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", trust_remote_code=False)
        self._lock = Lock()

    def generate(self, prompt: str, *, max_new_tokens: int = 64) -> str:
        """The greedy continuation."""
        inputs = self._tokenizer(prompt, return_tensors="pt")
        with self._lock:
            output = self._model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return str(self._tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def serve(model: Model, *, port: int) -> None:
    """POST /generate {"prompt": …} → {"text": …}, until interrupted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                prompt = str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
            except (ValueError, KeyError, TypeError):
                self.send_error(400, 'expected {"prompt": "..."}')
                return
            body = json.dumps({"text": model.generate(prompt)}, ensure_ascii=False).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"listening on port {server.server_address[1]}", flush=True)
        server.serve_forever()


def main() -> int:
    """Loads, then answers once (`--ask`) or serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment_id", help="[namespace/]name[/revision]")
    parser.add_argument(
        "--mount", action="append", default=[], metavar="CLAIM=DIRECTORY", help="where a claim lies here"
    )
    parser.add_argument("--ask", default="", help="answer this and end")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    mounts = {claim: Path(directory) for claim, _, directory in (text.partition("=") for text in options.mount)}
    try:
        model = Model(find_model(options.deployment_id, mounts))
    except ClientError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.ask:
        print(model.generate(options.ask))
        return 0
    serve(model, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
