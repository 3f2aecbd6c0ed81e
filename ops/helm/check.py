#!/usr/bin/env python3
"""Checks the chart: `check.py <binary> <kubernetes version>…`. Needs the packages of ops/requirements.txt, and promtool.

It lints the chart, renders it with each file of values in postrider/ci, validates every object against the schemas of each
version of Kubernetes, and checks what a schema cannot tell, such as whether the server takes the settings. Wrong values
must be refused.
"""

import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import settings

import helm_python as helm
import kubernetes_validate
import yaml

CHART = pathlib.Path(__file__).parent / "postrider"
# The operator of Prometheus defines these; its schemas are not part of Kubernetes.
OF_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
# What must be refused, and a word of the reason.
WRONG = [
    ({"store": "mysql"}, "store"),
    ({"replica": 3}, "replica"),
    ({"store": "postgres"}, "url"),
    ({"store": "postgres", "database": {"url": "postgres://u@h/d"}}, "masterKeySecret"),
    ({"store": "postgres", "database": {"url": "postgres://u:secret@h/d"}, "masterKeySecret": {"name": "m"}}, "url"),
    ({"settings": {"listen": "0.0.0.0:1"}}, "listen"),
    ({"stopGraceSeconds": 601}, "stopGraceSeconds"),
]
failures = []


def expect(holds, text):
    if not holds:
        failures.append(text)


def objects_of(rendered):
    for name, text in rendered.items():
        if name.endswith(".yaml"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def check(name, values, found, versions, binary):
    for thing in found:
        if thing["kind"] in OF_OPERATOR:
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                failures.append(f"{name}: {thing['kind']}: {error.message} at {list(error.path)} ({version})")
    kinds = sorted(thing["kind"] for thing in found)
    by_kind = {thing["kind"]: thing for thing in found}
    is_postgres = values.get("store") == "postgres"
    workload = by_kind["Deployment" if is_postgres else "StatefulSet"]
    replicas = values.get("replicas", 2) if is_postgres else 1
    pod, grace = pod_of(workload), values.get("stopGraceSeconds", 20)
    expect(workload["spec"]["replicas"] == replicas, f"{name}: {workload['spec']['replicas']} pods in place of {replicas}")
    expect(pod["terminationGracePeriodSeconds"] >= 2 * grace, f"{name}: the pod is killed before it has stopped")
    expect(("PodDisruptionBudget" in kinds) == (replicas > 1), f"{name}: the disruption budget")
    expect(workload["spec"]["selector"]["matchLabels"].items() <= workload["spec"]["template"]["metadata"]["labels"].items(),
           f"{name}: the workload does not select its pods")
    expect(by_kind["Service"]["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"], f"{name}: the service selects others")
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"] for volume in pod["volumes"]} | {
        claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    expect(mounts == volumes, f"{name}: mounted {mounts}, volumes {volumes}")
    mounted_at = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
    expect(len(environment) == len(pod["containers"][0]["env"]), f"{name}: a variable is there twice")
    expect(environment["POSTRIDER_DATA_DIR"].startswith(f"{mounted_at['data']}/"), f"{name}: the data is in the volume's root")
    for setting, value in values.get("settings", {}).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        expect(environment[f"POSTRIDER_{setting.upper()}"] == shown, f"{name}: the setting {setting}")
    failures.extend(f"{name}: {problem}" for problem in settings.check(binary, environment))
    if "PrometheusRule" in by_kind:
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules:
            yaml.safe_dump(by_kind["PrometheusRule"]["spec"], rules)
            rules.flush()
            subprocess.run(["promtool", "check", "rules", rules.name], check=True, stdout=subprocess.DEVNULL)
        base = values["metrics"]["rules"].get("runbookBase", "")
        links = [rule["annotations"]["runbook_url"] for group in by_kind["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
        expect(all(link.startswith(f"{base}docs/alerts.md#") for link in links), f"{name}: the links of the alerts")
    print(f"{name}: {', '.join(kinds)}")


def main():
    binary, *versions = sys.argv[1:]
    with helm.Chart.load(str(CHART)) as chart:
        for file in sorted((CHART / "ci").glob("*.yaml")):
            values = yaml.safe_load(file.read_text())
            for finding in helm.lint(str(CHART), values, strict=True)["messages"]:
                # 1 is a hint, 2 a warning, 3 an error.
                expect(finding["severity"] < 2, f"{file.stem}: {finding['path']}: {finding['error']}")
            chart.validate_schema(values)
            found = list(objects_of(chart.render(values, name="hooks", namespace="webhooks")))
            check(file.stem, values, found, versions, binary)
        for values, word in WRONG:
            try:
                chart.validate_schema(values)
                chart.render(values, name="hooks", namespace="webhooks")
                failures.append(f"taken, but wrong: {values}")
            except helm.HelmError as error:
                expect(word in str(error), f"{values} is refused for another reason: {error}")
    if failures:
        sys.exit("\n".join(failures))


main()
