"""Renders the Helm chart with many sets of values, by Helm itself, and checks what comes out. No cluster is needed.

usage: chart.py OUT PROGRAM ENDPOINT    (OUT: a folder to write into; PROGRAM: streamlag, which checks the configuration files;
                                        ENDPOINT: what endpoint.mjs prints)

With STREAMLAG_BLESS=1 it first writes `definitions` in values.schema.json anew: what the chart passes through.
Writes OUT/SET.yaml, OUT/operator.yaml (the distinct objects of the Prometheus operator) and OUT/keda.yaml. Prints what is broken and
exits 1, or prints what was checked.
"""

import contextlib
import copy
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import helm_python as helm
import jsonschema
import yaml
from kubernetes_validate import utils
from referencing import Registry, Resource

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = REPO / "deploy/helm/streamlag"
SCHEMA = CHART / "values.schema.json"
OUT, PROGRAM, ENDPOINT = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
OPERATOR, KEDA = "monitoring.coreos.com/v1", "keda.sh/v1alpha1"
# The program's drain deadline: whoever stops it must wait longer.
DRAIN_SECONDS = 10

problems = []


def need(condition, message):
    if not condition:
        raise AssertionError(message)


def read(path):
    return (REPO / path).read_text(encoding="utf-8")


@contextlib.contextmanager
def silenced():
    """Helm's library says on standard error that it follows symbolic links."""
    kept = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# ---------------------------------------------------------------------------------------------------------------------
# Kubernetes's own kinds, by its schemas


@functools.cache
def validator(version, kind, api):
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = utils.schema_contents(f"{folder}/{kind.lower()}-{short}.json", version)
    definitions = utils.schema_contents(f"{folder}/_definitions.json", version)
    registry = Resource.from_contents(definitions) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


@functools.cache
def validated(text):
    document = json.loads(text)
    for version in VERSIONS:
        for error in validator(version, document["kind"], document["apiVersion"]).iter_errors(document):
            path = ".".join(str(part) for part in error.path)
            raise AssertionError(f"{document['kind']}, Kubernetes {version}: {path}: {error.message[:200]}")


# ---------------------------------------------------------------------------------------------------------------------
# What has to hold for every set of values


def pods(documents):
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet"):
            yield document["spec"]["template"]["metadata"], document["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            yield document["metadata"], document["spec"]


def restricted(documents):
    for metadata, pod in pods(documents):
        need(not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "it shares a namespace of the host")
        need(pod["automountServiceAccountToken"] is False, "it is given a service account token")
        kinds = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        for volume in pod["volumes"]:
            need(set(volume) - {"name"} <= kinds, f"volume {volume['name']} is of a kind that is not allowed")
        for container in pod["containers"]:
            security = pod["securityContext"] | container["securityContext"]
            need(security["runAsNonRoot"] is True and security["runAsUser"] > 0, "it may run as root")
            need(security["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp profile")
            need(security["allowPrivilegeEscalation"] is False, "privilege escalation is allowed")
            need(security["capabilities"] == {"drop": ["ALL"]}, "capabilities are kept")
            need(security["readOnlyRootFilesystem"] is True, "the root file system is writable")


def consistent(documents):
    def of(kind):
        return [d for d in documents if d["kind"] == kind and d["metadata"].get("labels", {}).get("helm.sh/chart")]

    (workload,) = of("Deployment") + of("StatefulSet")
    labels, pod = workload["spec"]["template"]["metadata"]["labels"], workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (service,) = of("Service")
    selectors = {"workload": workload["spec"]["selector"]["matchLabels"], "Service": service["spec"]["selector"]}
    selectors |= {d["kind"]: d["spec"]["podSelector"]["matchLabels"] for d in of("NetworkPolicy")}
    selectors |= {d["kind"]: d["spec"]["selector"]["matchLabels"] for d in of("PodDisruptionBudget")}
    for what, selector in selectors.items():
        need(selector.items() <= labels.items(), f"the {what} selects other pods")
        for metadata, _ in pods([d for d in documents if d["kind"] == "Pod"]):
            need(not selector.items() <= metadata["labels"].items(), f"the {what} selects the test pod")

    services = [d for d in documents if d["kind"] == "Service"]
    ports = {port["name"] for port in container["ports"]}
    for d in services:
        need(all(port["targetPort"] in ports for port in d["spec"]["ports"]), f"a port of {d['metadata']['name']} leads nowhere")
    jobs = set()
    for monitor in of("ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        selected = [d for d in services if selector.items() <= d["metadata"]["labels"].items()]
        need(len(selected) == 1, f"the ServiceMonitor selects {len(selected)} Services")
        need(monitor["spec"]["endpoints"][0]["port"] in {p["name"] for p in selected[0]["spec"]["ports"]}, "its port leads nowhere")
        jobs.add(selected[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]])
    for rule in of("PrometheusRule"):
        named = set(re.findall(r'job="([^"]+)"', json.dumps(rule["spec"]).replace('\\"', '"')))
        need(named == {labels["app.kubernetes.io/name"]} and jobs <= named, f"the rules name {named}, the ServiceMonitor gives {jobs}")

    if workload["kind"] == "StatefulSet":
        (governing,) = [d for d in services if d["metadata"]["name"] == workload["spec"]["serviceName"]]
        need(governing["spec"]["clusterIP"] == "None", "the governing Service is not headless")
        shards = workload["spec"]["replicas"]
        given = [v["value"] for v in container["env"] if v["name"] == "STREAMLAG_SHARD"]
        need(given == ([f"$(POD_INDEX)/{shards}"] if shards > 1 else []), f"{shards} shards, and {given}")

    need(pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS, "terminationGracePeriodSeconds")
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    for _, some in pods(documents):
        volumes = {volume["name"] for volume in some["volumes"]}
        mounted = {mount["name"] for c in some["containers"] for mount in c["volumeMounts"]}
        need(mounted - volumes <= claims and volumes <= mounted, f"mounted: {sorted(mounted)}, there are: {sorted(volumes | claims)}")
    source = sources()
    for variable in container["env"]:
        name = variable["name"]
        need(name == "POD_INDEX" or f'"{name}"' in source, f"nothing under src/ reads {name}")
        if str(variable.get("value", "")).startswith(("/run/", "/etc/", "/var/")):
            folder = str(pathlib.PurePosixPath(variable["value"]).parent)
            need(folder in {mount["mountPath"] for mount in container["volumeMounts"]}, f"{name} is a file that is not mounted")
    names = [(d["apiVersion"], d["kind"], d["metadata"]["name"]) for d in documents]
    need(len(set(names)) == len(names), "two objects have the same name")


def served(documents, values):
    """Whoever asks the port uses the same scheme, and helm test sees the same web configuration."""
    https = values.get("https", "auto")
    if https == "auto":
        https = bool(values.get("secrets", {}).get("tls", {}).get("name"))
    scheme = "https" if https else "http"
    (container,) = next(pods([d for d in documents if d["kind"] != "Pod"]))[1]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        need(container[probe]["httpGet"]["scheme"] == scheme.upper(), f"the {probe} does not use {scheme}")
    for document in documents:
        if document["kind"] == "ServiceMonitor":
            need(document["spec"]["endpoints"][0].get("scheme", "http") == scheme, f"the ServiceMonitor does not use {scheme}")
        if document["kind"] == "ScaledObject":
            need(document["spec"]["triggers"][0]["metadata"]["url"].startswith(f"{scheme}://"), f"the ScaledObject does not use {scheme}")
    for metadata, pod in pods(documents):
        if "prometheus.io/scrape" in metadata.get("annotations", {}):
            need(metadata["annotations"].get("prometheus.io/scheme", "http") == scheme, f"the annotation is not {scheme}")
        env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        file = {one["name"]: one.get("value") for one in container["env"]}.get("STREAMLAG_WEB_CONFIG_FILE")
        need(env.get("STREAMLAG_WEB_CONFIG_FILE") == file, "a pod has another web configuration")


@functools.cache
def sources():
    return "".join(path.read_text(encoding="utf-8") for path in sorted((REPO / "src").rglob("*.rs")))


def unchanged(documents):
    """Rules and dashboards are those of the repository."""
    for document in documents:
        if document["kind"] == "PrometheusRule":
            job = document["metadata"]["labels"]["app.kubernetes.io/name"]
            groups = document["spec"]["groups"]
            file = "streamlag-replicas" if "max without" in str(groups[:2]) else "streamlag"
            text = read(f"alerts/{file}.rules.yml")
            for quote in ('"', '\\"'):
                text = text.replace(f"job={quote}streamlag{quote}", f"job={quote}{job}{quote}")
            fleet = yaml.safe_load(read("alerts/streamlag-fleet.rules.yml"))["groups"]
            rules = yaml.safe_load(text)["groups"]
            need(groups in (rules, rules + fleet), "the rules are not those of alerts/")
        if document["kind"] == "ConfigMap" and "dashboard" in document["metadata"]["name"]:
            for name, text in document["data"].items():
                need(json.loads(text) == json.loads(read(f"dashboards/{name}")), f"{name} is not that of dashboards/")


def certificate():
    """Any."""
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", "/dev/null"]
    return subprocess.run([*command, "-subj", "/CN=redis"], check=True, capture_output=True, text=True).stdout


def files(folder):
    """Stands in for what the Secrets have."""
    contents = {"redis-password/password": "secret", "us/password": "secret", "act/password": "secret", "act/hook": "a secret of 24 bytes or more", "prometheus/token": "secret", "web/web.yml": "", "issued/web.yml": "", "redis-tls/ca.crt": certificate()}
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    tokens = folder / "api-tokens/tokens"
    tokens.parent.mkdir(exist_ok=True)
    made = subprocess.run([PROGRAM, "token", "me"], check=True, capture_output=True, text=True, env={}).stdout
    tokens.write_text(made.splitlines()[-1] + "\n", encoding="utf-8")
    tokens.chmod(0o600)


@functools.cache
def config_checked(config, env):
    """The program takes the configuration file, in the environment of the pod."""
    moved = {name: value.replace("/run/secrets/", f"{OUT}/secrets/") for name, value in env}
    file = OUT / "config.yml"
    here = config.replace("/run/secrets/", f"{OUT}/secrets/").replace("/var/lib/streamlag-audit/", f"{OUT}/")
    file.write_text(here, encoding="utf-8")
    moved |= {"STREAMLAG_CONFIG_FILE": str(file)}
    if "STREAMLAG_HISTORY_PATH" in moved:
        moved["STREAMLAG_HISTORY_PATH"] = f"{OUT}/history.db"
    said = subprocess.run([PROGRAM, "--config.check"], capture_output=True, text=True, env=moved, check=False)
    need(said.returncode == 0 and not said.stderr, f"streamlag --config.check: {said.stderr.strip()}")


def configured(documents):
    config = next(d["data"]["streamlag.yml"] for d in documents if d["kind"] == "ConfigMap" and "streamlag.yml" in d["data"])
    _, pod = next(pods([d for d in documents if d["kind"] != "Pod"]))
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in pod["containers"][0]["volumeMounts"]}
    for key, file in re.findall(r"\b(\w+[_-]file): (\S+)", config):
        read_only = mounts.get(str(pathlib.PurePosixPath(file).parent))
        need(read_only is not None, f"{key} {file} is not mounted")
        need(key != "audit_file" or not read_only, f"{key} {file} cannot be written")
    env = {}
    for variable in pod["containers"][0]["env"]:
        value = variable.get("value", "a-token" if variable["name"] == "STREAMLAG_API_TOKEN" else "0")
        env[variable["name"]] = value.replace("$(POD_INDEX)", env.get("POD_INDEX", ""))
    env.pop("POD_INDEX", None)
    config_checked(config, tuple(sorted(env.items())))


# ---------------------------------------------------------------------------------------------------------------------


def every_setting():
    """A set with every setting of the file at its default."""
    config = {}
    table = read("deploy/helm/streamlag/README.md").partition("<!-- config: begin -->")[2].partition("<!-- config: end -->")[0]
    for key, default in re.findall(r"^\| `config\.([a-z.-]+)` \| `(.+?)` \|", table, re.M):
        at, rest = config, key
        while "." in rest and rest.split(".")[0] not in ("streams", "groups"):
            section, _, rest = rest.partition(".")
            at = at.setdefault(section, {})
        at[rest] = {"true": True, "false": False}.get(default, default)
    need(len(config) > 10, "the chart's README has no table of settings")
    config["redis"]["url"] = "redis://redis:6379/0"
    # Only with mode sentinel.
    del config["redis"]["sentinel-master"]
    return {"config": config}


ENDPOINT_KIND, QUANTITY = "monitoring.v1.Endpoint", "resource.Quantity"


def short(kind):
    """io.k8s.api.core.v1.Affinity is core.v1.Affinity."""
    return re.sub(r"^io\.k8s\.(api|apimachinery\.pkg\.(apis|api|util))\.", "", kind)


def pruned(schema):
    """Without descriptions and what only Kubernetes reads."""
    if isinstance(schema, list):
        return [pruned(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": f"#/definitions/{short(schema['$ref'].rpartition('/')[2])}"}
    kept = {key: part for key, part in schema.items() if key not in ("description", "format") and not key.startswith("x-")}
    return {
        key: {name: pruned(one) for name, one in part.items()} if key == "properties" else pruned(part)
        for key, part in kept.items()
    }


def definitions(wanted):
    """The kinds that are wanted, and those that they name, as Kubernetes and the Prometheus operator have them."""
    kinds = utils.schema_contents(f"kubernetes-json-schema/v{VERSIONS[-1]}.0-local-strict/_definitions.json", VERSIONS[-1])["$defs"]
    kinds = {short(kind): schema for kind, schema in kinds.items()}
    found = {ENDPOINT_KIND: json.loads(ENDPOINT.read_text(encoding="utf-8"))}
    left = [kind for kind in wanted if kind != ENDPOINT_KIND]
    while left:
        kind = left.pop()
        if kind not in found:
            found[kind] = pruned(kinds[kind])
            left += re.findall(r'"#/definitions/([^"]+)"', json.dumps(found[kind]))
    # Kubernetes says no more than that it is a text or a number.
    found[QUANTITY] = {"pattern": "^[0-9.]+([eE][0-9]+|m|k|Ki|[MGTPE]i?)?$", "type": ["number", "string"]}
    return found


def pass_through():
    """What the chart passes through may have the fields, at any depth, that Kubernetes and the operator know, and no other."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    wanted = re.findall(r'"#/definitions/([^"]+)"', json.dumps(schema["properties"]))
    known = definitions(wanted)
    if os.environ.get("STREAMLAG_BLESS"):
        schema["definitions"] = known
        SCHEMA.write_text(json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    for kind in sorted({*known, *schema.get("definitions", {})}):
        need(schema.get("definitions", {}).get(kind) == known.get(kind), f"values.schema.json: {kind} is another: STREAMLAG_BLESS=1 deploy/check")
    open_ended = sorted(free_form(schema["properties"]))
    need(open_ended == ["extraManifests[]", "global"], f"values.schema.json: these take any key: {open_ended}")


def free_form(properties, prefix=""):
    """Objects that take any key with any value."""
    for key, part in properties.items():
        for schema, name in ((part, prefix + key), (part.get("items", {}), f"{prefix}{key}[]")):
            kinds = schema.get("type", [])
            if "object" in ([kinds] if isinstance(kinds, str) else kinds) and not {"additionalProperties", "allOf"} & set(schema):
                yield name
            yield from free_form(schema.get("properties", {}), f"{name}.")


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def reached(sets):
    """Every value of the chart is set by one of the sets."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

    def names(schema, prefix=""):
        for key, part in schema["properties"].items():
            if prefix + key in ("config", "global"):
                continue
            if "properties" in part:
                yield from names(part, f"{prefix}{key}.")
            else:
                yield prefix + key

    given = [name for values in sets.values() for name in leaves(values)]
    for name in names(schema):
        need(any(g == name or g.startswith(name + ".") for g in given), f"no set of values has {name}")


def main():
    with open(pathlib.Path(__file__).with_name("chart-values.yaml"), encoding="utf-8") as file:
        listed = yaml.safe_load(file)
    sets = listed["sets"] | {"every-setting": every_setting()}
    pass_through()
    reached(sets)
    OUT.mkdir(parents=True, exist_ok=True)
    files(OUT / "secrets")
    with silenced():
        chart = helm.Chart.load(str(CHART))
        report = helm.lint(str(CHART), {"config": {"redis": {"url": "redis://redis"}}}, strict=True)
    need(not report["errors"] and all(m["severity"] < 2 for m in report["messages"]), f"helm lint: {report}")

    def render(values):
        with silenced():
            chart.validate_schema(values)
            return chart.render(values, name="lag", namespace="monitoring-of-streams")

    def with_url(values):
        values = copy.deepcopy(values)
        config = values.setdefault("config", {})
        if not config.get("targets"):
            config.setdefault("redis", {}).setdefault("url", "redis://redis:6379/0")
        return values

    operator, keda = {}, []
    for name, values in sets.items():
        try:
            rendered = {k: v for k, v in render(with_url(values)).items() if not k.endswith("NOTES.txt")}
            documents = [d for text in rendered.values() for d in yaml.safe_load_all(text) if d]
            (OUT / f"{name}.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
            for document in documents:
                if document["apiVersion"] == OPERATOR:
                    operator[json.dumps(document, sort_keys=True)] = document
                elif document["apiVersion"] == KEDA:
                    keda.append(document)
                else:
                    validated(json.dumps(document, sort_keys=True))
            for check in (restricted, consistent, unchanged, configured):
                check(documents)
            served(documents, values)
        except Exception as error:  # noqa: BLE001: whatever it is, the set is named
            problems.append(f"{name}: {type(error).__name__}: {error}")
    for refused in listed["refused"]:
        values, expected = refused[:2]
        try:
            render(values if len(refused) > 2 else with_url(values))
            problems.append(f"{values}: it is not refused")
        except helm.HelmError as error:
            if expected not in str(error):
                problems.append(f"{values}: the refusal does not name {expected}: {error}")
    (OUT / "operator.yaml").write_text(yaml.safe_dump_all(operator.values()), encoding="utf-8")
    (OUT / "keda.yaml").write_text(yaml.safe_dump_all(keda), encoding="utf-8")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(sets)} sets of values, Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}, {len(listed['refused'])} refusals")


try:
    main()
except AssertionError as error:
    sys.exit(str(error))
