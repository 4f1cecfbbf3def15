"""Writes the Prometheus operator's objects in the forms that their tools check.

usage: manifests.py OUT MANIFESTS

Writes OUT/custom.mjs (a typed module that also validates itself when run) and OUT/rules-in-cluster-N.yml (the rules file inside
each PrometheusRule).
"""

import json
import pathlib
import sys

import yaml

OPERATOR = "monitoring.coreos.com/v1"
MODELS = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"


def main():
    out = pathlib.Path(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as file:
        custom = [document for document in yaml.safe_load_all(file) if document]
    if any(document["apiVersion"] != OPERATOR for document in custom):
        sys.exit(f"expected objects of {OPERATOR} only")

    module, rules = [f'import * as models from "{MODELS}";'], 0
    for number, document in enumerate(custom):
        kind = document["kind"]
        module += [
            f'/** @type {{import("{MODELS}").I{kind}}} */',
            f"const document{number} = {json.dumps(document)};",
            f"new models.{kind}(document{number}).validate();",
        ]
        if kind == "PrometheusRule":
            (out / f"rules-in-cluster-{rules}.yml").write_text(yaml.safe_dump(document["spec"]), encoding="utf-8")
            rules += 1
    (out / "custom.mjs").write_text("\n".join(module) + "\n", encoding="utf-8")
    if not rules or rules == len(custom):
        sys.exit(f"expected PrometheusRules and ServiceMonitors, found {rules} of {len(custom)}")


main()
