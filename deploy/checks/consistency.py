"""Holds the files under deploy/ against each other and against the program.

usage: consistency.py MANIFESTS COMPOSE    (as chart.py renders them and docker-compose config prints them)

Each test below is one promise. Prints what is broken and exits 1, or prints nothing.
"""

import json
import pathlib
import re
import sys
import tomllib

import yaml

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = REPO / "deploy"
# The program's drain deadline: whoever stops it must wait longer.
DRAIN_SECONDS = 10

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def read(path):
    return (REPO / path).read_text(encoding="utf-8")


def load(path):
    return yaml.safe_load(read(path))


def need(condition, message):
    if not condition:
        raise AssertionError(message)


MANIFESTS = [d for d in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")) if d]
COMPOSE = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8"))


def manifest(kind):
    (found,) = [d for d in MANIFESTS if d["kind"] == kind]
    return found


def pod():
    return manifest("Deployment")["spec"]["template"]["spec"]


def container():
    (only,) = pod()["containers"]
    return only


@test
def the_version_is_cargo_tomls_everywhere():
    version = re.search(r'^version = "(.+)"$', read("Cargo.toml"), re.M).group(1)
    chart = load("deploy/helm/streamlag/Chart.yaml")
    found = {
        "Chart.yaml": chart["version"],
        "Chart.yaml's appVersion": chart["appVersion"],
        "Dockerfile": re.search(r"^ARG VERSION=(.+)$", read("Dockerfile"), re.M).group(1),
        "compose.yaml": COMPOSE["services"]["streamlag"]["image"].rpartition(":")[2],
        "the chart's Deployment": container()["image"].rpartition(":")[2],
    }
    for where, said in found.items():
        need(said == version, f"{where} says {said}, Cargo.toml {version}")


@test
def the_builders_rust_is_cargo_tomls():
    wanted = re.search(r'^rust-version = "(.+)"$', read("Cargo.toml"), re.M).group(1)
    has = re.search(r"^FROM --platform=\$BUILDPLATFORM rust:([0-9.]+)-", read("Dockerfile"), re.M).group(1)
    need((has + ".").startswith(wanted + "."), f"the Dockerfile builds with Rust {has}, rust-version is {wanted}")


@test
def the_builders_stand_ins_are_all_that_cargo_toml_names():
    manifest = tomllib.loads(read("Cargo.toml"))
    touched = set(re.search(r"&& touch (.+) \\$", read("Dockerfile"), re.M).group(1).split())
    wanted = set()
    for kind, directory in (("bench", "benches"), ("bin", "src/bin")):
        for target in manifest.get(kind, []):
            paths = [target.get("path"), f"{directory}/{target['name']}.rs", f"{directory}/{target['name']}/main.rs"]
            wanted.add(next(path for path in paths if path and (REPO / path).exists()))
    need(touched == wanted, f"the Dockerfile makes stand-ins for {sorted(touched)}, Cargo.toml names {sorted(wanted)}")


@test
def every_image_is_pinned():
    images = re.findall(r"^FROM (?:--\S+ )*(\S+)", read("Dockerfile"), re.M)
    images += [service["image"] for service in COMPOSE["services"].values()]
    images.append(container()["image"])
    for image in images:
        need(image == "scratch" or re.search(r":v?\d+\.\d+\.\d+[\w.-]*$", image), f"{image} has no exact tag")


@test
def compose_publishes_on_loopback_only():
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            address = port if isinstance(port, str) else f"{port.get('host_ip', '')}:"
            need(address.startswith("127.0.0.1:"), f"{name} publishes {port}")


@test
def compose_mounts_what_exists():
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume["source"]
            if source.startswith("/"):
                need(pathlib.Path(source).exists(), f"{name} mounts {source}, which is not there")


@test
def no_secret_is_shipped():
    for line in (read("deploy/compose/.env.example") + read("deploy/systemd/streamlag.env.example")).splitlines():
        if re.match(r"[A-Z_]*(TOKEN|PASSWORD)[A-Z_]*=", line):
            need(line.endswith("="), f"an example sets {line.partition('=')[0]}")
    need(not any(document["kind"] == "Secret" for document in MANIFESTS), "the chart makes a Secret")
    need(".env" in read("deploy/compose/.gitignore").split(), "deploy/compose/.env is not ignored by git")


@test
def every_variable_is_one_the_program_reads():
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((REPO / "src").rglob("*.rs")))
    names = set(COMPOSE["services"]["streamlag"]["environment"])
    names |= set(re.findall(r"^#?([A-Z_]+)=", read("deploy/systemd/streamlag.env.example"), re.M))
    for name in sorted(names):
        need(f'"{name}"' in source, f"nothing under src/ reads {name}")


@test
def the_scrape_jobs_are_the_one_the_rules_name():
    jobs = set(re.findall(r'job="([^"]+)"', read("alerts/streamlag.rules.yml")))
    configured = {job["job_name"] for job in load("deploy/compose/prometheus.yml")["scrape_configs"]}
    need(jobs <= configured, f"the rules name {jobs}, prometheus.yml has {configured}")


@test
def alertmanager_inhibits_alerts_that_exist():
    rules = [rule for group in load("alerts/streamlag.rules.yml")["groups"] for rule in group["rules"]]
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in rules if "alert" in rule}

    def names(matchers):
        (matcher,) = matchers
        pattern = re.fullmatch(r'alertname(=~?)"([^"]+)"', matcher).group(2)
        for part in re.split(r"\|(?![^(]*\))", pattern):
            need(any(re.fullmatch(part, name) for name in severity), f"{part} is no rule's name")
        return {name for name in severity if re.fullmatch(pattern, name)}

    # Name by name, what keeps it back: nothing less severe, and never in a circle.
    by = {}
    for rule in load("alerts/inhibit_rules.yml")["inhibit_rules"]:
        sources = names(rule["source_matchers"])
        for target in names(rule["target_matchers"]):
            by.setdefault(target, set()).update(sources)
    for target, sources in by.items():
        for source in sources:
            need(severity[target] != "critical" or severity[source] == "critical",
                 f"{source} ({severity[source]}) keeps {target} (critical) back")
        seen, more = set(), set(sources)
        while more:
            need(target not in more, f"{target} is kept back by itself, through others")
            seen |= more
            more = {source for name in more for source in by.get(name, ())} - seen


@test
def alertmanager_sends_what_the_rules_raise():
    severities = {rule["labels"]["severity"] for group in load("alerts/streamlag.rules.yml")["groups"]
                  for rule in group["rules"] if "alert" in rule}
    plain = {severity for severity in severities if "{{" not in severity}
    need(plain == {"critical", "warning", "info"}, f"the routes of Alertmanager do not know {plain}")


def deploy_link(file):
    return DEPLOY / "helm/streamlag/files/dashboards" / file.name


@test
def grafana_finds_its_dashboard_and_its_datasource():
    mounts = [volume if isinstance(volume, str) else f"{volume['source']}:{volume['target']}"
              for volume in COMPOSE["services"]["grafana"]["volumes"]]
    (provider,) = load("deploy/compose/grafana/provisioning/dashboards/streamlag.yaml")["providers"]
    for file in sorted((REPO / "dashboards").glob("*.json")):
        mounted = [mount.split(":")[1] for mount in mounts if mount.split(":")[0].endswith(f"dashboards/{file.name}")]
        need(len(mounted) == 1, f"{file.name} is not mounted once")
        need(str(pathlib.PurePosixPath(mounted[0]).parent) == provider["options"]["path"], "the provider looks elsewhere")
        if file.name == "streamlag.json":
            dashboard = mounted[0]
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    need(home == dashboard, f"the home dashboard is {home}, the dashboard is at {dashboard}")

    (source,) = load("deploy/compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    service, _, port = source["url"].removeprefix("http://").partition(":")
    need(service in COMPOSE["services"] and port == "9090", f"no service answers at {source['url']}")
    for file in sorted((REPO / "dashboards").glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        # Inputs are asked for by the import page only; a provisioned dashboard that has them shows nothing.
        need(not content.get("__inputs"), f"{file.name} has __inputs")
        variables = content["templating"]["list"]
        need(any(v["type"] == "datasource" and v["query"] == "prometheus" for v in variables), f"{file.name} has no datasource variable")
        linked = deploy_link(file)
        need(linked.resolve() == file, f"the chart has no {file.name}")


@test
def the_pods_user_is_the_images():
    security = pod()["securityContext"]
    user = re.search(r"^USER (\d+):(\d+)$", read("Dockerfile"), re.M)
    need((security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2])), "its user is not the image's")


@test
def everything_waits_longer_than_the_drain():
    need(int(COMPOSE["services"]["streamlag"]["stop_grace_period"].rstrip("s")) > DRAIN_SECONDS, "stop_grace_period")
    unit = read("deploy/systemd/streamlag.service")
    need(int(re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.M)[1]) > DRAIN_SECONDS, "TimeoutStopSec")


@test
def the_socket_is_the_services_own_way_of_listening():
    unit, drop_in = read("deploy/systemd/streamlag.service"), read("deploy/systemd/streamlag-socket.conf")
    (plain,) = re.findall(r"^ExecStart=(.+)$", unit, re.M)
    (activated,) = re.findall(r"^ExecStart=(.+)$", drop_in, re.M)
    need(activated == f"{plain} --web.systemd-socket", "the drop-in starts another command than the service")
    (listen,) = re.findall(r"^ListenStream=(.+)$", read("deploy/systemd/streamlag.socket"), re.M)
    (default,) = re.findall(r"^STREAMLAG_WEB_LISTEN_ADDRESS=(.+)$", read("deploy/systemd/streamlag.env.example"), re.M)
    need(listen == default, f"the socket listens on {listen}, the service on {default}")
    (backlog,) = re.findall(r"^Backlog=(\d+)$", read("deploy/systemd/streamlag.socket"), re.M)
    need(f"const BACKLOG: u32 = {backlog};" in read("src/http.rs"), f"streamlag asks for another backlog than {backlog}")


def main():
    broken = 0
    for function in TESTS:
        try:
            function()
        except Exception as error:  # noqa: BLE001: a missing key is a broken promise too
            broken += 1
            reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            print(f"{function.__name__.replace('_', ' ')}: {reason}")
    sys.exit(1 if broken else 0)


main()
