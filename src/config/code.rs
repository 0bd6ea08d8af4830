//! Every kind of diagnostic: its stable name, how grave it is, and what to do about it.
//!
//! The names are for scripts and editors: they never change their meaning. A test holds a golden
//! file to each of them (`tests/golden/check`).

use std::fmt;

/// Whether a configuration with this diagnostic is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted, but probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One row per kind: variant, name, severity and remedy. The remedy is empty where each message
/// brings its own.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $severity:ident $remedy:literal;)*) => {
        /// The kind of a diagnostic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $name] $variant,)*
        }

        impl Code {
            /// Every kind, in the order of this file.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// The stable name, in snake case.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)*
                }
            }

            /// How grave it is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Code::$variant => Severity::$severity,)*
                }
            }

            /// What to do about it, unless the diagnostic has a remedy of its own.
            pub fn remedy(self) -> Option<&'static str> {
                let remedy = match self {
                    $(Code::$variant => $remedy,)*
                };
                (!remedy.is_empty()).then_some(remedy)
            }
        }
    };
}

codes! {
    // Files and their encoding.
    FileUnreadable "file_unreadable" Error "check the path, and that the gateway's user may read it";
    FileTooLarge "file_too_large" Error "split it with `include`";
    FileNotUtf8 "file_not_utf8" Error "save it as UTF-8";
    ControlCharacter "control_character" Error "remove it, or write it as an escape in double quotes";
    ByteOrderMark "byte_order_mark" Error "split it into two files, or remove the mark";
    TooDeep "too_deep" Error "look for brackets that are never closed";
    TooManyValues "too_many_values" Error "use fewer aliases, or split the file with `include`";
    DotenvLine "dotenv_line" Error "write NAME=value, one in each line";
    NotAMapping "not_a_mapping" Error "begin with a key, such as `routes:`";
    SecondDocument "second_document" Error "remove the `---`, or move the document to a file named by `include`";
    TooManyProblems "too_many_problems" Error "correct those shown and check again";

    // YAML that cannot be read.
    YamlTab "yaml_tab" Error "use spaces";
    YamlUnclosedBracket "yaml_unclosed_bracket" Error "close it, or put the value in quotes if the bracket is part of it";
    YamlUnexpectedBracket "yaml_unexpected_bracket" Error "remove it, or put the value in quotes if the bracket is part of it";
    YamlUnclosedQuote "yaml_unclosed_quote" Error "add the closing quote";
    YamlAfterQuote "yaml_after_quote" Error "put the whole value in quotes, and double those inside: 'it''s'";
    YamlEscape "yaml_escape" Error "write `\\\\` for a backslash, or use single quotes";
    YamlAlias "yaml_alias" Error "put the value in quotes, such as '*', or define the anchor with `&name` above";
    YamlAnchor "yaml_anchor" Error "put the value in quotes";
    YamlReserved "yaml_reserved" Error "put the value in quotes";
    YamlSpaceAfterColon "yaml_space_after_colon" Error "write a space after the colon";
    YamlMissingColon "yaml_missing_colon" Error "write `key: value`";
    YamlColonInValue "yaml_colon_in_value" Error "put the value in quotes, or begin a new line for the second key";
    YamlMissingComma "yaml_missing_comma" Error "separate entries with commas";
    YamlSpaceAfterDash "yaml_space_after_dash" Error "write a space after the dash";
    YamlIndentation "yaml_indentation" Error "align it with the keys beside it";
    YamlVariable "yaml_variable" Error "inside {} and [] put the value in quotes: \"${…}\"";
    YamlTag "yaml_tag" Error "put the value in quotes, or remove the tag";
    YamlKey "yaml_key" Error "put the key in quotes";
    YamlEmptyKey "yaml_empty_key" Error "name the key, or put it in quotes";
    YamlSyntax "yaml_syntax" Error "look at this line and the one above for a quote, a bracket or a colon too many or too few";

    // Keys and values by themselves.
    RepeatedKey "repeated_key" Error "remove or rename one of the two";
    UnknownKey "unknown_key" Error "remove it, or correct its name";
    MissingKey "missing_key" Error "add it";
    UnknownValue "unknown_value" Error "";
    WrongType "wrong_type" Error "";
    UnquotedText "unquoted_text" Error "put it in quotes";
    OutOfRange "out_of_range" Error "";
    NotOneOf "not_one_of" Error "";
    NoSettings "no_settings" Error "";
    InvalidValue "invalid_value" Error "";

    // Includes, merge keys and references.
    IncludePattern "include_pattern" Error "write a path such as `routes/*.yaml`, relative to this file";
    IncludeMissing "include_missing" Error "create it, or correct the path, which is relative to this file";
    IncludeNested "include_nested" Error "name the file in the main file";
    IncludeTooMany "include_too_many" Error "use fewer, larger files";
    MergeKey "merge_key" Error "";
    NoDefault "no_default" Error "write it in each route";
    EmptyOverDefault "empty_over_default" Error "";
    TemplateNames "template_names" Error "write names as hosts have them, in lower case, such as orders or orders-2, at most 1,000";
    VariableUnset "variable_unset" Error "";
    VariableRequired "variable_required" Error "set it";
    VariableNotText "variable_not_text" Error "set it to text in UTF-8";
    ReferenceUnclosed "reference_unclosed" Error "add the `}`; a literal `$` is written `$$`";
    ReferenceForm "reference_form" Error "write ${VAR}, ${VAR:-default}, ${VAR:?why} or ${file:path}";
    ReferenceTooDeep "reference_too_deep" Error "use a variable of its own for the inner default";
    ReferencedFile "referenced_file" Error "correct the path, which is relative to this file";

    // Values that do not fit together.
    NoListener "no_listener" Error "add one, such as `public: {address: 0.0.0.0:8080}`";
    AddressTaken "address_taken" Error "choose another port";
    SocketTaken "socket_taken" Error "choose another path";
    AdminNowhere "admin_nowhere" Error "set `admin.socket`, or an address such as 127.0.0.1:9901";
    RecordWithoutStore "record_without_store" Error "add `record.store`, or set the mode to `off`";
    CommitInterval "commit_interval" Error "shorten it, or raise `record.commit_timeout`";
    NoEndpoint "no_endpoint" Error "add one, such as `http://127.0.0.1:3000`";
    OwnAddress "own_address" Error "name the address of the service";
    ProtocolScheme "protocol_scheme" Error "";
    NoTarget "no_target" Error "add one of them";
    TwoTargets "two_targets" Error "remove one of them";
    RedirectToItself "redirect_to_itself" Error "";
    RewriteOfRedirect "rewrite_of_redirect" Error "write its keys in `redirect`";
    SplitOfOne "split_of_one" Error "remove it, or list upstreams with their weights";
    SplitWithoutConsumer "split_without_consumer" Error "require credentials with `auth: {require: NAME}`, or write another key, such as `{cookie: session}` or `client_address`";
    SplitHashParameters "split_hash_parameters" Warning "let `balance` of all of them name the same parameter, or hash by something that a request has wherever it is drawn, such as a header";
    UnknownName "unknown_name" Error "define it, or correct the name";
    TwoLimitStores "two_limit_stores" Error "name one store for all of them";
    ReplaysWithoutKeys "replays_without_keys" Error "remove it, or add `idempotency`";
    ClaimWithoutToken "claim_without_token" Error "name an entry of `auth` with `jwt` in `auth.require`";
    FallbackOfServe "fallback_of_serve" Error "remove `fallback.upstream`";
    FallbackToItself "fallback_to_itself" Error "name another upstream, or answer with `status`";
    AttemptOutlastsRequest "attempt_outlasts_request" Error "shorten `timeout.attempt`, or raise `timeout.request`";
    FirstByteOutlasts "first_byte_outlasts" Error "shorten `first_byte`, or leave it out";
    ReservedName "reserved_name" Error "choose another name";
    TranscodeOfServe "transcode_of_serve" Error "remove `transcode`";
    GrpcOverHttp1 "grpc_over_http1" Error "";
    TranscodeAndRewrite "transcode_and_rewrite" Error "remove `rewrite`: `transcode.http` says the path";
    TranscodeAndJson "transcode_and_json" Error "remove `json`: `transcode.defaults` fills fields in";
    HeaderOfResponse "header_of_response" Error "write the header in `headers.response` instead";
    KeysWithoutStore "keys_without_store" Error "add `record.store`, or remove `idempotency`";
    KeysOfServe "keys_of_serve" Error "remove `idempotency`";
    KeysWithoutDeadline "keys_without_deadline" Error "set `timeout.request` to more than 0";
    KeysTooShort "keys_too_short" Error "";
    UpstreamParameter "upstream_parameter" Error "name a parameter that each pattern of `match.path` has";
    UpstreamHost "upstream_host" Error "name the upstream in lower case, by letters, digits, `-` and `.`, and in no other form than hosts have";
    RewriteParameter "rewrite_parameter" Error "name a parameter that each pattern of `match.path` has";

    // What only compiling finds.
    CertificateUnusable "certificate_unusable" Error "name PEM files of a certificate and its key";
    NoCertificate "no_certificate" Error "add one, or remove `tls`";
    ClientCaUnusable "client_ca_unusable" Error "name a PEM file of certificates";
    CallerNotAccepted "caller_not_accepted" Error "name an authority that accepts it in `auth.require`, or remove the caller";
    CallerAmbiguous "caller_ambiguous" Error "say whose: `{auth: NAME, name: …}`";
    NamelessConsumer "nameless_consumer" Error "set `consumer_header` to the header in which the service names the client";
    UpstreamCertificateUnusable "upstream_certificate_unusable" Error "name a PEM file of certificates, the gateway's own first, and the PEM file of its key";
    ClientCrlUnusable "client_crl_unusable" Error "name a PEM file of revocation lists (`-----BEGIN X509 CRL-----`), beside `client_ca`";
    TicketsUnusable "tickets_unusable" Error "write one key per line, as `openssl rand -base64 32` makes them; the first one seals";
    UpstreamCaUnusable "upstream_ca_unusable" Error "name a PEM file of certificates";
    CollectorUnusable "collector_unusable" Error "give the system certificates of authorities, or name a PEM file of them in `ca`";
    LimitStoreUnusable "limit_store_unusable" Error "";
    AuthorityUnusable "authority_unusable" Error "write the public key as `openssl pkey -in KEY -pubout` prints it, and the algorithms that it is for";
    RouteConflict "route_conflict" Error "give one of them another host, path or method, or a condition: the route with more conditions goes first";
    DescriptorsUnusable "descriptors_unusable" Error "write it with `protoc --include_imports --descriptor_set_out`";
    TranscodeUnusable "transcode_unusable" Error "compare it with the .proto file";
    AddressUnusable "address_unusable" Error "free it, or choose another; an address that overlaps with that of an earlier listener is free once that listener is gone";
    RestartNeeded "restart_needed" Error "restart it, or take the change back";
    Internal "internal" Error "report it: this is a fault of the gateway";

    // Accepted, but probably not meant.
    TooManyWarnings "too_many_warnings" Warning "heed those shown and check again";
    RenamedKey "renamed_key" Warning "write the new name";
    UnusedUpstream "unused_upstream" Warning "remove it, or name it in a route";
    UnusedAuthority "unused_authority" Warning "remove it, or name it in `auth.require` of a route";
    UnusedRetryBudget "unused_retry_budget" Warning "remove it, or name it in `retry.budget` of a route";
    UnusedLimitStore "unused_limit_store" Warning "remove it, or name it in `rate_limit` of a route";
    UnusedDescriptors "unused_descriptors" Warning "remove it, or name it in `transcode` of a route";
    UnknownMethod "unknown_method" Warning "correct it if it is misspelt";
    CertificateExpired "certificate_expired" Warning "renew it";
    CertificateExpiring "certificate_expiring" Warning "renew it";
    CertificateChain "certificate_chain" Warning "put the server's own certificate first, then the one that has issued it, and so on; leave out what does not belong to it";
    CertificateName "certificate_name" Warning "remove one of them, or renew it without the name";
    EverybodyTrusted "everybody_trusted" Warning "list the networks of your load balancers";
    RepeatedNetwork "repeated_network" Warning "remove it, or the larger network";
    UselessNetwork "useless_network" Warning "remove it, or change the other list";
    AdminExposed "admin_exposed" Warning "set `admin.token`, or use 127.0.0.1 or `admin.socket`";
    PinsWithoutTls "pins_without_tls" Warning "write https://, or remove the pins";
    UngrantableScope "ungrantable_scope" Warning "require an authority that grants them (`jwt`, `introspection`, `api_key`), or remove them";
    ShortKey "short_key" Warning "use a random one, such as `openssl rand -hex 32` makes";
    PermitNever "permit_never" Warning "correct it, or remove it";
    UnreachableRoute "unreachable_route" Warning "remove it, or give one of them another host, path, method or condition";
    AttemptsBeyondRequest "attempts_beyond_request" Warning "shorten the attempts, allow fewer, or raise `timeout.request`";
    BreakerForgets "breaker_forgets" Warning "make it longer than an attempt may take";
    EjectionOfOne "ejection_of_one" Warning "remove it, or give the upstream another endpoint";
    EphemeralFolder "ephemeral_folder" Warning "put it on a volume or a disk that outlives the process: a named volume of Docker, a volume claim of a StatefulSet, a directory of the machine";
    FewFiles "few_files" Warning "raise the hard limit on open files to 65536 (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker)";
    ConnectionsLowered "connections_lowered" Warning "lower it, or raise the hard limit on open files";
    PoolLowered "pool_lowered" Warning "lower it, or raise the hard limit on open files";
    ConnectionsAndPool "connections_and_pool" Warning "lower one of them, or raise the hard limit on open files";
    PoolSmall "pool_small" Warning "raise it, or lower `server.max_connections`";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_kinds_share_a_name() {
        let names: HashSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn every_warning_says_what_to_do_even_if_its_message_does_not() {
        for code in Code::ALL.iter().filter(|code| code.severity() == Severity::Warning) {
            assert!(code.remedy().is_some(), "{code}");
        }
    }
}
