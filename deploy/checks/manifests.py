"""Sorts Kubernetes manifests by the tool that can check them.

usage: manifests.py OUT MANIFESTS...

Writes OUT/core.yaml (kinds of Kubernetes itself), OUT/custom.mjs (the Prometheus operator's kinds, as a typed module that
also validates itself when run) and OUT/rules-in-cluster.yml (the rules file inside PrometheusRule).
"""

import json
import pathlib
import sys

import yaml

OPERATOR = "monitoring.coreos.com/v1"
MODELS = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"


def main():
    out = pathlib.Path(sys.argv[1])
    documents = []
    for name in sys.argv[2:]:
        with open(name, encoding="utf-8") as file:
            documents += [document for document in yaml.safe_load_all(file) if document]

    custom = [document for document in documents if document["apiVersion"] == OPERATOR]
    core = [document for document in documents if document["apiVersion"] != OPERATOR]
    (out / "core.yaml").write_text(yaml.safe_dump_all(core), encoding="utf-8")

    module = [f'import * as models from "{MODELS}";']
    for number, document in enumerate(custom):
        kind = document["kind"]
        module += [
            f'/** @type {{import("{MODELS}").I{kind}}} */',
            f"const document{number} = {json.dumps(document)};",
            f"new models.{kind}(document{number}).validate();",
        ]
    (out / "custom.mjs").write_text("\n".join(module) + "\n", encoding="utf-8")

    (rule,) = [document for document in custom if document["kind"] == "PrometheusRule"]
    (out / "rules-in-cluster.yml").write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")


main()
