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
  portcullis health --address 127.0.0.1:9901 --path /readyz";

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
