//! The examples in each command's help. A test parses every one of them.

pub(super) const TOP: &str = "\
Examples:
  portcullis check -c portcullis.yaml
  portcullis run -c portcullis.yaml";

pub(super) const RUN: &str = "\
Examples:
  portcullis run -c portcullis.yaml
  PORTCULLIS_CONFIG=/etc/portcullis/edge.yaml portcullis run";

pub(super) const ROUTES: &str = "\
Examples:
  portcullis routes -c portcullis.yaml
  portcullis routes -c portcullis.yaml --format json | jq -r 'select(.upstream == \"users\") .path'";

pub(super) const CONFIG: &str = "\
Examples:
  portcullis config -c portcullis.yaml | grep -v '# default'
  portcullis config -c portcullis.yaml --format json | jq .routes.users.timeout";

pub(super) const SCHEMA: &str = "\
Examples:
  portcullis schema > portcullis.schema.json
  portcullis schema | jq '.[\"$defs\"].Route.properties | keys'

An editor checks a file whose first line is
# yaml-language-server: $schema=portcullis.schema.json";

pub(super) const COMPLETIONS: &str = "\
Examples:
  portcullis completions bash > /etc/bash_completion.d/portcullis
  portcullis completions zsh > ~/.zfunc/_portcullis";

pub(super) const MAN: &str = "\
Examples:
  portcullis man | man -l -
  portcullis man check > portcullis-check.1";

pub(super) const HEALTH: &str = "\
Examples:
  portcullis health
  portcullis health --address 127.0.0.1:9901 --path /readyz
  portcullis health --socket /run/portcullis/admin.sock";

pub(super) const INVOCATIONS: &str = "\
Examples:
  portcullis invocations -c portcullis.yaml --since 15m --status 5xx
  portcullis invocations -c portcullis.yaml --follow --format json";

pub(super) const STATS: &str = "\
Examples:
  portcullis invocations stats -c portcullis.yaml --since 24h
  portcullis invocations stats -c portcullis.yaml --route users --format csv";

pub(super) const WHY: &str = "\
Examples:
  portcullis why 0193f2a1-7c11-7e02-9d5e-2f6b8c0a4e11 -c portcullis.yaml
  portcullis why 0193f2a1-7c11-7e02-9d5e-2f6b8c0a4e11 --log access.log --format json";

pub(super) const ORDER: &str = "\
Examples:
  portcullis order drain users 10.0.0.7:8080 --for 10m --reason maintenance
  portcullis order split shop stable=90 canary=10

An order lasts until it is withdrawn or its time is over. It survives a reload, but no restart.";

pub(super) const ORDER_DRAIN: &str = "\
Examples:
  portcullis order drain users 10.0.0.7:8080 -c portcullis.yaml
  portcullis order drain users unix:/run/app.sock --for 10m --socket /run/portcullis/admin.sock";

pub(super) const ORDER_EJECT: &str = "\
Examples:
  portcullis order eject users 10.0.0.7:8080 --for 1h
  portcullis order eject users [::1]:8080 --author anna --reason slow";

pub(super) const ORDER_WEIGHT: &str = "\
Examples:
  portcullis order weight users 10.0.0.7:8080 5
  portcullis order weight users 10.0.0.7:8080 1 --for 30m --format json";

pub(super) const ORDER_READMIT: &str = "\
Examples:
  portcullis order readmit users 10.0.0.7:8080
  portcullis order readmit users 10.0.0.7:8080 --reason repaired";

pub(super) const ORDER_RESTORE: &str = "\
Examples:
  portcullis order restore users 10.0.0.7:8080
  portcullis order restore users unix:/run/app.sock -c portcullis.yaml";

pub(super) const ORDER_SPLIT: &str = "\
Examples:
  portcullis order split shop stable=90 canary=10 --for 1h
  portcullis order split shop --restore";

pub(super) const ORDER_CIRCUIT: &str = "\
Examples:
  portcullis order circuit open upstream users --for 10m --reason maintenance
  portcullis order circuit reset route shop";

pub(super) const ORDER_LIST: &str = "\
Examples:
  portcullis order list
  portcullis order list --format json | jq -r '.[].endpoint'";

pub(super) const BUNDLE: &str = "\
Exit codes: 0 if the archive is written, also where parts of it are missing, 1 if it is not, 2 for a
wrong command line.

Examples:
  portcullis bundle -c portcullis.yaml
  portcullis bundle --socket /run/portcullis/admin.sock --output - | ssh desk 'cat > bundle.tar.gz'";
