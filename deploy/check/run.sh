#!/usr/bin/env bash
# Holds every file of deploy/ to the tools of the system that it is for; `make deploy-check`. Takes half a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/deploy
python=$folder/venv/bin/python
export ADMIN_TOKEN=a-token-for-the-check DATABASE_URL=postgres://portcullis@127.0.0.1/portcullis

fail() { printf 'deploy: %s\n' "$*" >&2; exit 1; }

# passes WHAT COMMAND…: its output is shown only if it fails.
passes() {
    local what=$1 log=$folder/log
    shift
    "$@" >"$log" 2>&1 || { cat "$log" >&2; fail "$what: failed (above): $*"; }
    echo "deploy: $what"
}

mkdir -p "$folder"
if ! cmp -s deploy/check/requirements.txt "$folder/requirements.txt"; then
    rm -rf "$folder/venv"
    python3 -m venv "$folder/venv"
    "$python" -m pip install --quiet --disable-pip-version-check --retries 10 -r deploy/check/requirements.txt \
        || fail "pip could not install deploy/check/requirements.txt (above)"
    cp deploy/check/requirements.txt "$folder/requirements.txt"
fi

cargo build --locked --quiet --bin portcullis
gateway=$target/debug/portcullis
find deploy -name gateway.yaml -o -path deploy/systemd/portcullis.yaml | while read -r file; do
    passes "$file is valid" "$gateway" check -c "$file"
done

compose() { if command -v docker-compose >/dev/null; then docker-compose "$@"; else docker compose "$@"; fi; }
passes "the compose file is valid" compose -f deploy/compose/compose.yaml config -q

for overlay in base durable example; do
    file=$folder/$overlay.yaml
    "$folder/venv/bin/kubectl" kustomize "deploy/kubernetes/$overlay" >"$file" || fail "kustomize: $overlay (above)"
    passes "kubernetes/$overlay: parts fit together" "$python" deploy/check/kubernetes.py "$file"
    # What operators bring has no schema in Kubernetes.
    passes "kubernetes/$overlay: valid by the schemas" "$python" deploy/check/kubernetes.py --schemas "$file"
done

file=$folder/sidecar.yaml
"$folder/venv/bin/kubectl" kustomize deploy/kubernetes/sidecar >"$file" || fail "kustomize: sidecar (above)"
passes "kubernetes/sidecar: parts fit together" "$python" deploy/check/kubernetes.py --sidecar "$file"
passes "kubernetes/sidecar: valid by the schemas" "$python" deploy/check/kubernetes.py --schemas "$file"

# The program and its manual are not where the package puts them.
sed "s#/usr/bin/portcullis#$gateway#; /^Documentation=/d" deploy/systemd/portcullis.service >"$folder/portcullis.service"
passes "the unit is valid" systemd-analyze verify "$folder/portcullis.service"
grep -q . "$folder/log" && { cat "$folder/log" >&2; fail "the unit: see above"; }
cp deploy/systemd/portcullis.socket "$folder/"
passes "the socket unit is valid" systemd-analyze verify "$folder/portcullis.socket"
grep -q . "$folder/log" && { cat "$folder/log" >&2; fail "the socket unit: see above"; }
passes "the unit is hardened" systemd-analyze security --offline=yes --threshold=20 "$folder/portcullis.service"

cp deploy/compose/prometheus.yaml deploy/prometheus/alerts.yaml "$folder/"
passes "Prometheus's configuration is valid" promtool check config "$folder/prometheus.yaml"
passes "the alert rules are valid" promtool check rules deploy/prometheus/alerts.yaml
passes "each alert is raised by its samples" promtool test rules deploy/prometheus/alerts_test.yaml
sed -n 's/^ *- alert: //p' deploy/prometheus/alerts.yaml | while read -r alert; do
    grep -q "alertname: $alert\$" deploy/prometheus/alerts_test.yaml || fail "no samples raise $alert"
done
"$python" deploy/check/dashboard.py deploy/grafana/portcullis.json deploy/prometheus/series.txt >"$folder/dashboard_test.yaml"
passes "each query of the dashboard finds something" promtool test rules "$folder/dashboard_test.yaml"
