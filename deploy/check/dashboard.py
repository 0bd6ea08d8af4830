"""Makes a test for promtool of each query of a Grafana dashboard: with samples of the gateway's own series it
must find something, and group by labels that its series have.
"""

import json
import re
import sys

import yaml

MINUTES = 30


def samples(series):
    """A counter rises, a gauge is 1; a certificate lasts for 20 days."""
    name = series.split("{")[0]
    if name.endswith(("_total", "_bucket", "_count", "_sum")):
        return f"0+6x{MINUTES}"
    if name.endswith("not_after_seconds"):
        return f"{20 * 24 * 3600}x{MINUTES}"
    return f"1x{MINUTES}"


def of_instance(series):
    """As Prometheus stores it: with the target."""
    name, _, labels = series.partition("{")
    labels = labels.rstrip("}")
    return f'{name}{{{labels}{"," if labels else ""}instance="a:9901"}}'


def queries(panels):
    """Each with what its legend shows."""
    for panel in panels:
        yield from queries(panel.get("panels", []))
        for target in panel.get("targets", []):
            yield target["expr"], target["legendFormat"]


def labels_exist(expression, legend, series):
    """A label that no series has groups them all together, and is no mistake to Prometheus."""
    used = set(re.findall(r"\b(?:portcullis|process)_\w+", expression))
    there = {"instance"}
    for line in series:
        name, _, labels = line.partition("{")
        if name in used:
            there |= set(re.findall(r'(\w+)="', labels))
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    shown = set(re.findall(r"{{(\w+)}}", legend))
    matched = set(re.findall(r"(\w+)=~?\"", expression))
    assert grouped | matched <= there, f"{expression}: no label {(grouped | matched) - there}"
    assert shown <= (grouped or there), f"{expression}: the legend has no {shown - grouped}"


def main():
    dashboard, series = sys.argv[1:]
    with open(dashboard, encoding="utf-8") as text:
        board = json.load(text)
    with open(series, encoding="utf-8") as text:
        lines = [line.strip() for line in text if line.strip()]
    found = list(queries(board["panels"]))
    found += [(note["expr"], note["titleFormat"]) for note in board["annotations"]["list"]]
    assert len(found) > 25, found
    tests = []
    for expression, legend in found:
        labels_exist(expression, legend, lines)
        expression = expression.replace("$__rate_interval", "5m")
        expression = expression.replace("$instance", ".*").replace("$route", ".*")
        assert "$" not in expression, expression
        # A note's condition need not hold: what it compares must be there.
        expression = expression.replace(" > 0", "")
        tests.append({
            "expr": f"count({expression}) > bool 0",
            "eval_time": "20m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        })
    input_series = [{"series": of_instance(s), "values": samples(s)} for s in lines]
    test = {"interval": "1m", "input_series": input_series, "promql_expr_test": tests}
    yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}, sys.stdout)


main()
