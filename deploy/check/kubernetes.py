"""Whether the objects of a rendered kustomization fit together (with --sidecar: those of a service with a gateway
beside it), and, with --schemas, each by itself.

A selector that selects nothing, or everything, is valid by every schema.
"""

import sys

import kubernetes_validate
import yaml

# Kinds of the Prometheus operator: there are no schemas of them here.
FOREIGN = {"ServiceMonitor"}


def by_schemas(objects):
    for thing in objects:
        if thing["kind"] not in FOREIGN:
            kubernetes_validate.validate(thing, "1.37", strict=True)


def selects(selector, labels):
    assert selector, "an empty selector"
    return selector.items() <= labels.items()


def fit(objects):
    kinds = {}
    for thing in objects:
        kinds.setdefault(thing["kind"], []).append(thing)
    (work,) = kinds.get("Deployment", []) + kinds.get("StatefulSet", [])
    template = work["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert selects(work["spec"]["selector"]["matchLabels"], labels)

    for service in kinds["Service"]:
        assert selects(service["spec"]["selector"], labels), service["metadata"]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, port
    public = [s for s in kinds["Service"] if s["spec"].get("clusterIP") != "None"]
    reached = {port["targetPort"] for s in public for port in s["spec"]["ports"]}
    assert "admin" not in reached, "the admin port is in a Service that clients use"

    (budget,) = kinds["PodDisruptionBudget"]
    assert selects(budget["spec"]["selector"]["matchLabels"], labels)
    (scaler,) = kinds["HorizontalPodAutoscaler"]
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (work["kind"], work["metadata"]["name"])
    assert scaler["spec"]["minReplicas"] > budget["spec"]["minAvailable"], "no node could be drained"

    (policy,) = kinds["NetworkPolicy"]
    assert selects(policy["spec"]["podSelector"]["matchLabels"], labels)
    for rule in policy["spec"]["ingress"]:
        for port in rule["ports"]:
            assert port["port"] in ports, port
            assert port["port"] != "admin" or rule.get("from"), "anyone may reach the admin port"

    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
    claims = {claim["metadata"]["name"] for claim in work["spec"].get("volumeClaimTemplates", [])}
    volumes = {volume["name"] for volume in pod["volumes"]} | claims
    for mount in container["volumeMounts"]:
        assert mount["name"] in volumes, mount

    (config,) = kinds["ConfigMap"]
    gateway = yaml.safe_load(config["data"]["portcullis.yaml"])
    address = gateway["listeners"]["public"]["address"]
    assert int(address.rsplit(":", 1)[1]) == ports["http"], address
    assert int(gateway["admin"]["address"].rsplit(":", 1)[1]) == ports["admin"]
    durable = any(r.get("record", {}).get("mode") == "durable" for r in gateway["routes"].values())
    if durable:
        journal = gateway["record"]["journal"]["path"]
        lasting = [m["mountPath"] for m in container["volumeMounts"] if m["name"] in claims]
        assert any(journal.startswith(path + "/") for path in lasting), f"{journal} is on no claim"

    for monitor in kinds.get("ServiceMonitor", []):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [s for s in kinds["Service"] if selects(selector, s["metadata"]["labels"])]
        names = {port["name"] for port in service["spec"]["ports"]}
        assert {end["port"] for end in monitor["spec"]["endpoints"]} <= names


def beside(objects):
    kinds = {}
    for thing in objects:
        kinds.setdefault(thing["kind"], []).append(thing)
    (work,) = kinds["Deployment"]
    template = work["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    (sidecar,) = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always", "an init container that ends"
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert selects(work["spec"]["selector"]["matchLabels"], labels)

    (service,) = kinds["Service"]
    assert selects(service["spec"]["selector"], labels)
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == port["port"] == ports["mesh"], port
    (budget,) = kinds["PodDisruptionBudget"]
    assert selects(budget["spec"]["selector"]["matchLabels"], labels)
    assert work["spec"]["replicas"] > budget["spec"]["minAvailable"], "no node could be drained"
    (policy,) = kinds["NetworkPolicy"]
    assert selects(policy["spec"]["podSelector"]["matchLabels"], labels)
    for rule in policy["spec"]["ingress"]:
        for port in rule["ports"]:
            assert port["port"] in ports.values(), port
            assert port["port"] != ports["admin"] or rule.get("from"), "anyone may reach the admin port"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert sidecar[probe]["httpGet"]["port"] == "admin", probe

    (config,) = kinds["ConfigMap"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}
    assert mounts.keys() == volumes.keys(), mounts
    (file,) = config["data"]
    assert sidecar["args"][-1] == f"{mounts['config']}/{file}", sidecar["args"]
    values = {one["name"]: one.get("value") for one in sidecar["env"]}
    text = config["data"][file]
    unknown = [name for name in values if not name.startswith("OTEL_") and f"${{{name}:" not in text]
    assert not unknown, f"the file reads no {unknown}"
    assert values["SIDECAR_CERTIFICATES"] == mounts["certificates"]
    gateway = yaml.safe_load(text)
    assert f":-0.0.0.0:{ports['mesh']}}}" in gateway["listeners"]["inbound"]["address"]
    assert values["ADMIN_ADDRESS"].endswith(f":{ports['admin']}")


def main():
    *options, file = sys.argv[1:]
    with open(file, encoding="utf-8") as text:
        objects = [thing for thing in yaml.safe_load_all(text) if thing]
    assert len(objects) >= 5, objects
    checks = {"--schemas": by_schemas, "--sidecar": beside}
    (checks[options[0]] if options else fit)(objects)


main()
