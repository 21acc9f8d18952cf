"""The examples for Kubernetes name what there is: routes, options, settings, columns, series, and each other."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import pytest
import yaml

from frontends.http.places import Place
from wanreel.core.settings import Settings, load_settings
from wanreel.frontends.cli.app import cli

FOLDER = Path(__file__).parents[3] / "examples" / "kubernetes"
Manifest = dict[str, Any]
MANIFESTS: list[Manifest] = [
    one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text()) if one
]
#: What each kind is of, as the API server would insist.
KINDS = {
    "Namespace": "v1",
    "Secret": "v1",
    "ConfigMap": "v1",
    "Service": "v1",
    "PersistentVolumeClaim": "v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "ScaledObject": "keda.sh/v1alpha1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "RayCluster": "ray.io/v1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
}


def of_kind(*kinds: str) -> list[Manifest]:
    return [one for one in MANIFESTS if one["kind"] in kinds]


def names(kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in of_kind(kind)}


def pods() -> Iterator[tuple[str, Manifest]]:
    """Every pod's name and template."""
    for one in of_kind("Deployment", "Job"):
        yield one["metadata"]["name"], one["spec"]["template"]
    for one in of_kind("RayCluster"):
        for group in (one["spec"]["headGroupSpec"], *one["spec"]["workerGroupSpecs"]):
            yield group.get("groupName", "head"), group["template"]


PODS = dict(pods())
CONTAINERS = {f"{name}/{it['name']}": it for name, pod in PODS.items() for it in pod["spec"]["containers"]}


def test_each_manifest_is_of_a_known_kind_and_all_are_in_one_place() -> None:
    assert {one["kind"]: one["apiVersion"] for one in MANIFESTS} == KINDS
    (kustomization,) = of_kind("Kustomization")
    assert all((FOLDER / name).is_file() for name in kustomization["resources"])
    spaced = [one for one in MANIFESTS if one["kind"] not in ("Namespace", "Kustomization")]
    assert {one["metadata"]["namespace"] for one in spaced} == names("Namespace") == {"wanreel"}
    every = [(one["kind"], one["metadata"]["name"]) for one in spaced]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", PODS)
def test_pods_refer_to_what_is_there(name: str) -> None:
    spec = PODS[name]["spec"]
    volumes = {it["name"]: it for it in spec["volumes"]}
    claims = {it["persistentVolumeClaim"]["claimName"] for it in volumes.values() if "persistentVolumeClaim" in it}
    assert claims <= names("PersistentVolumeClaim")
    for container in spec["containers"]:
        assert {it["name"] for it in container["volumeMounts"]} <= set(volumes)
        for source in container["envFrom"]:
            assert source.get("secretRef", {"name": None})["name"] in {*names("Secret"), None}
            assert source.get("configMapRef", {"name": None})["name"] in {*names("ConfigMap"), None}


def labels_of(name: str) -> set[tuple[str, str]]:
    return set(PODS[name]["metadata"]["labels"].items())


def test_selectors_select() -> None:
    for one in of_kind("Deployment", "PodDisruptionBudget"):
        assert set(one["spec"]["selector"]["matchLabels"].items()) <= labels_of(one["metadata"]["name"])
    services = {one["metadata"]["name"]: one for one in of_kind("Service")}
    for name, pod in (("wanreel-api", "wanreel-api"), ("wanreel-cluster", "head")):
        assert set(services[name]["spec"]["selector"].items()) <= labels_of(pod)
        ports = {port["name"] for it in PODS[pod]["spec"]["containers"] for port in it["ports"]}
        assert {port["targetPort"] for port in services[name]["spec"]["ports"]} <= ports
    (monitor,), (scaled,) = of_kind("ServiceMonitor"), of_kind("ScaledObject")
    wanted = set(monitor["spec"]["selector"]["matchLabels"].items())
    assert [name for name, it in services.items() if wanted <= set(it["metadata"]["labels"].items())] == ["wanreel-api"]
    target = scaled["spec"]["scaleTargetRef"]
    assert target["name"] in names("Deployment")
    assert f"{target['name']}/{target['envSourceContainerName']}" in CONTAINERS


@pytest.mark.parametrize("name", [name for name, it in CONTAINERS.items() if "args" in it])
def test_commands_and_options_are_ours(name: str) -> None:
    command: click.Command = cli
    given: list[str] = list(CONTAINERS[name]["args"])
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, given.pop(0))
        assert found is not None, name
        command, context = found, click.Context(found, parent=context)
    command.make_parser(context).parse_args(given)  # raises for an option or a value that it does not know


def environment() -> Iterator[tuple[str, str]]:
    for one in (*of_kind("ConfigMap"), *of_kind("Secret")):
        yield from {**one.get("data", {}), **one.get("stringData", {})}.items()


def test_the_environment_is_settings_that_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a setting that it does not know are refused by it; whole ones would be passed over."""
    ours = {name: value for name, value in environment() if name.startswith("WANREEL_")}
    for name, value in ours.items():
        assert name.removeprefix("WANREEL_").lower().split("__")[0] in Settings.model_fields, name
        assert isinstance(value, str), "the API server takes nothing else"
        monkeypatch.setenv(name, value)
    settings = load_settings(data_dir=tmp_path)
    assert settings.storage[settings.shared_storage].secret_access_key is not None
    assert settings.http.api_key is not None and settings.database_url.get_secret_value()


def test_probes_ask_routes_that_need_no_key(shared: Place) -> None:
    paths: set[str] = set()
    for name, container in CONTAINERS.items():
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                get = container[probe]["httpGet"]
                assert get["port"] in ports, name
                paths.add(get["path"])
    assert paths == {"/live", "/health"}
    for path in paths:
        assert shared.client.get(path, headers={"Authorization": ""}).status_code == 200
    assert "readinessProbe" in CONTAINERS["wanreel-api/api"]


def test_the_scaler_asks_for_columns_that_there_are(empty_database: Path) -> None:
    (scaled,) = of_kind("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    with sqlite3.connect(empty_database) as database:
        assert database.execute(trigger["metadata"]["query"]).fetchone() == (0,)
    assert trigger["metadata"]["connectionFromEnv"] in dict(environment())


def exported(place: Place) -> set[str]:
    """Every series that /metrics can have; those of a state of which there is none yet by their type alone."""
    place.app.house.pulse.look()
    found = re.findall(r"^# TYPE (\S+) (\S+)$", place.client.get("/metrics").text, re.MULTILINE)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in found for part in parts.get(kind, ("",))} | {"wanreel_cost"}


def expressions() -> Iterator[str]:
    (rules,) = of_kind("PrometheusRule")
    yield from (rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    dashboard = cast("dict[str, Any]", json.loads((FOLDER / "grafana-dashboard.json").read_text()))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (it["query"] for it in dashboard["templating"]["list"] if it["type"] == "query")


def test_dashboard_and_alerts_ask_for_series_that_are_exported_and_show_all_of_them(shared: Place) -> None:
    asked = {name for expression in expressions() for name in re.findall(r"\bwanreel_\w+", expression)}
    known = exported(shared)
    assert asked <= known, asked - known
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in known if name.startswith("wanreel_")}
    shown = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in asked}
    assert {name for name in families if not name.endswith("_created")} <= shown


def test_panels_lie_beside_each_other() -> None:
    panels = json.loads((FOLDER / "grafana-dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for it in panels
        for place in [it["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({it["id"] for it in panels}) == len(panels)


def test_rays_token_reaches_all_who_need_it() -> None:
    """KubeRay gives it to the first container of each pod, from this very key; the others take it themselves."""
    (ray,) = of_kind("RayCluster")
    auth = ray["spec"]["authOptions"]
    (secret,) = (one for one in of_kind("Secret") if one["metadata"]["name"] == auth["secretName"])
    assert (auth["mode"], list(secret["stringData"])) == ("token", ["auth_token"])
    for group in (ray["spec"]["headGroupSpec"], *ray["spec"]["workerGroupSpecs"]):
        first, *others = group["template"]["spec"]["containers"]
        assert first["name"].startswith("ray-") and not any("AUTH" in it["name"] for it in first.get("env", []))
        for container in others:
            known = {it["name"]: it for it in container["env"]}
            taken = known["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
            assert known["RAY_AUTH_MODE"]["value"] == "token"
            assert taken == {"name": auth["secretName"], "key": "auth_token"}
    # Older ones are probed through the dashboard, which is off.
    assert tuple(int(it) for it in ray["spec"]["rayVersion"].split(".")[:2]) >= (2, 53)
