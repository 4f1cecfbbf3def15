"""Holds KEDA's manifests against KEDA's published schemas, strictly: an unknown field or an unknown trigger parameter is an error.

usage: keda.py check MANIFESTS...
       keda.py queries OUT FILES...    (writes their PromQL as rules, for promtool)
       keda.py update KEDA        (KEDA: a checkout of github.com/kedacore/keda; writes keda-schemas.json anew)

keda-schemas.json is a part of KEDA's own files, which are under the Apache License 2.0.
"""

import json
import pathlib
import re
import subprocess
import sys

import yaml

SCHEMAS = pathlib.Path(__file__).with_name("keda-schemas.json")
KINDS = {"ScaledObject": "keda.sh_scaledobjects.yaml", "TriggerAuthentication": "keda.sh_triggerauthentications.yaml"}
# What is kept: how secrets are read here, and the triggers that docs/scaling.md names.
SPEC = {"TriggerAuthentication": ["env", "secretTargetRef"]}
TRIGGERS = ["metrics-api", "prometheus"]
# Parameters of `authentication.Config`, which KEDA's list of parameters leaves out.
SHARED = {"authMode", "authModes"}


def without_descriptions(schema):
    if isinstance(schema, dict):
        return {
            key: without_descriptions(value)
            for key, value in schema.items()
            if key != "description" or not isinstance(value, str)
        }
    if isinstance(schema, list):
        return [without_descriptions(item) for item in schema]
    return schema


def update(keda):
    keda = pathlib.Path(keda)
    commit = subprocess.check_output(["git", "-C", keda, "rev-parse", "HEAD"], text=True).strip()

    def source(path):
        return subprocess.check_output(["git", "-C", keda, "show", f"HEAD:{path}"], text=True)

    kinds = {}
    for kind, file in KINDS.items():
        (version,) = yaml.safe_load(source(f"config/crd/bases/{file}"))["spec"]["versions"]
        spec = without_descriptions(version["schema"]["openAPIV3Schema"])["properties"]["spec"]
        kept = SPEC.get(kind, spec["properties"])
        spec["properties"] = {key: value for key, value in spec["properties"].items() if key in kept}
        kinds[kind] = {"version": version["name"], "spec": spec}
    listed = json.loads(source("schema/generated/scalers-schema.json"))
    triggers = {
        scaler["type"]: [
            {key: parameter[key] for key in ("name", "optional", "default", "allowedValue") if key in parameter}
            for parameter in scaler["parameters"]
        ]
        for scaler in listed["scalers"]
        if scaler["type"] in TRIGGERS
    }
    written = {
        "source": "https://github.com/kedacore/keda, config/crd/bases and schema/generated, without descriptions",
        "commit": commit,
        "license": "Apache-2.0",
        "kinds": kinds,
        "triggers": triggers,
    }
    SCHEMAS.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def problems(value, schema, path):
    """What is wrong with a value, by a structural schema of Kubernetes."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            yield f"{path}: expected an integer or a string"
        return
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    expected = schema.get("type")
    if expected and (not isinstance(value, kinds[expected]) or (isinstance(value, bool) and expected != "boolean")):
        yield f"{path}: expected {expected}, found {value!r}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: expected one of {schema['enum']}, found {value!r}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{path}: expected at least {schema['minimum']}, found {value}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: expected {schema['pattern']}, found {value!r}"
    if expected == "array":
        for place, item in enumerate(value):
            yield from problems(item, schema["items"], f"{path}[{place}]")
    if expected == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key in schema.get("required", []):
            if key not in value:
                yield f"{path}: {key} is missing"
        for key, item in value.items():
            if key in known:
                yield from problems(item, known[key], f"{path}.{key}")
            elif isinstance(others, dict):
                yield from problems(item, others, f"{path}.{key}")
            elif not (others or schema.get("x-kubernetes-preserve-unknown-fields")):
                yield f"{path}: unknown field {key}"


def trigger_problems(trigger, parameters, path):
    if trigger["type"] not in parameters:
        yield f"{path}: there is no schema for the trigger {trigger['type']}"
        return
    known = {parameter["name"]: parameter for parameter in parameters[trigger["type"]]}
    metadata = trigger["metadata"]
    for name, parameter in known.items():
        if name not in metadata and not (parameter.get("optional") or "default" in parameter):
            yield f"{path}: {name} is missing"
    for name, value in metadata.items():
        if name not in known and name not in SHARED:
            yield f"{path}: unknown parameter {name}"
        allowed = known.get(name, {}).get("allowedValue")
        if allowed and value not in allowed:
            yield f"{path}: {name}: expected one of {allowed}, found {value!r}"


def false_zeros(document, path):
    """What would let KEDA scale to zero because something is not known."""
    spec = document["spec"]
    fallback = spec.get("fallback")
    if fallback and fallback["replicas"] == 0:
        yield f"{path}: fallback.replicas 0 scales to zero on errors"
    for trigger in spec["triggers"]:
        if trigger["type"] == "prometheus" and trigger["metadata"].get("ignoreNullValues") != "false":
            yield f'{path}: the prometheus trigger needs ignoreNullValues: "false", or no series is 0'
        if fallback and trigger.get("metricType", "AverageValue") != "AverageValue":
            yield f"{path}: fallback works with metricType AverageValue only"


def check(files):
    schemas = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    found, checked = [], 0
    for file in files:
        for document in yaml.safe_load_all(pathlib.Path(file).read_text(encoding="utf-8")):
            schema = schemas["kinds"].get(document["kind"])
            if schema is None:
                continue
            checked += 1
            path = f"{file}: {document['kind']} {document['metadata']['name']}"
            if document["apiVersion"] != f"keda.sh/{schema['version']}":
                found.append(f"{path}: expected apiVersion keda.sh/{schema['version']}")
            found += problems(document["spec"], schema["spec"], f"{path}: spec")
            if document["kind"] == "ScaledObject":
                for place, trigger in enumerate(document["spec"]["triggers"]):
                    found += trigger_problems(trigger, schemas["triggers"], f"{path}: triggers[{place}]")
                found += false_zeros(document, path)
    if not checked:
        found.append("there is no manifest of KEDA")
    sys.exit("\n".join(found) if found else 0)


def queries(out, files):
    found = []
    for file in files:
        for document in yaml.safe_load_all(pathlib.Path(file).read_text(encoding="utf-8")):
            found += [trigger["metadata"]["query"] for trigger in document.get("spec", {}).get("triggers", [])]
            # As prometheus-adapter fills its templates.
            matchers = 'stream="orders",consumer_group="workers"'
            found += [r["metricsQuery"].replace("<<.LabelMatchers>>", matchers) for r in document.get("externalRules", [])]
    if len(found) < len(files):
        sys.exit("there is a file without a query")
    rules = [{"record": f"scaling:query{place}", "expr": query} for place, query in enumerate(found)]
    pathlib.Path(out).write_text(yaml.safe_dump({"groups": [{"name": "scaling", "rules": rules}]}), encoding="utf-8")


if sys.argv[1] == "update":
    update(sys.argv[2])
elif sys.argv[1] == "queries":
    queries(sys.argv[2], sys.argv[3:])
else:
    check(sys.argv[2:])
