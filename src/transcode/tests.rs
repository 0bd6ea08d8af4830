//! A service with and without annotations, translated both ways.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::wire::Framing;
use super::*;
use crate::coding::{Coding, Encoding};

const IDENTITY: Encoding = Encoding::Identity;
const GZIP: Encoding = Encoding::Coded(Coding::Gzip);

const ANNOTATIONS: &str = include_str!("../../tests/protos/annotations.proto");

const LIBRARY: &str = r#"
syntax = "proto3";
package library;
import "google/api/annotations.proto";
import "google/protobuf/timestamp.proto";
service Books {
  rpc Get(GetRequest) returns (Book) {
    option (google.api.http) = {
      get: "/v1/{name=shelves/*/books/*}"
      additional_bindings { get: "/v1/books/{name}" response_body: "title" }
    };
  }
  rpc Create(CreateRequest) returns (Book) {
    option (google.api.http) = { post: "/v1/{shelf=shelves/*}/books" body: "book" };
  }
  rpc Replace(Book) returns (Book) {
    option (google.api.http) = { put: "/v1/books/{name}" body: "*" };
  }
  rpc Read(GetRequest) returns (stream Book) { option (google.api.http) = { get: "/v1/read" }; }
  rpc Plain(Book) returns (Book);
}
message GetRequest { string name = 1; int32 page_size = 2; bool brief = 3; repeated string tags = 4; Book like = 5; }
message CreateRequest { string shelf = 1; Book book = 2; string request_id = 3; }
message Book {
  string name = 1; string title = 2; int64 pages = 3; repeated string tags = 4; Book sequel = 5;
  google.protobuf.Timestamp printed = 6; Kind kind = 7; bytes cover = 8; map<string, int32> copies = 9; double price = 10;
}
enum Kind { UNKNOWN = 0; NOVEL = 1; }
"#;

struct Sources;

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "google/api/annotations.proto" => File::from_source(name, ANNOTATIONS),
            "library.proto" => File::from_source(name, LIBRARY),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

static DESCRIPTORS: LazyLock<Descriptors> = LazyLock::new(|| {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("library.proto").expect("a valid file");
    Descriptors::parse(&compiler.encode_file_descriptor_set()).expect("a complete set")
});

fn config(yaml: &str) -> Config {
    serde_yaml::from_str(&format!("descriptors: library\n{yaml}")).expect("a configuration")
}

fn compile(yaml: &str) -> Result<Transcoder, Mistake> {
    Transcoder::compile(&config(yaml), &DESCRIPTORS)
}

fn transcoder(yaml: &str) -> Transcoder {
    compile(yaml).expect("fits the descriptors")
}

/// A call of `Plain` with this HTTP side, as `(method, target, body)`.
fn plain(http: &str, message: &str) -> Result<(String, String, String), Fault> {
    let transcoder = transcoder(&format!("method: library.Books/Plain\nhttp: {http}"));
    call(&transcoder, "Plain", message)
}

fn call(of: &Transcoder, method: &str, message: &str) -> Result<(String, String, String), Fault> {
    let method = of.method(&format!("/library.Books/{method}"))?;
    let request = of.to_http(method, Codec::Json, message.as_bytes())?;
    let body = String::from_utf8(request.body.unwrap_or_default().into()).expect("text");
    Ok((request.method.to_string(), request.target, body))
}

fn called(http: &str, message: &str) -> (String, String, String) {
    plain(http, message).expect("a request")
}

fn parts(method: &str, target: &str, body: &str) -> (String, String, String) {
    (method.to_owned(), target.to_owned(), body.to_owned())
}

fn answered(method: &Method, json: &[u8], codec: Codec) -> Result<Vec<u8>, Fault> {
    method.answer(json).and_then(|answer| method.write(&answer, codec))
}

#[test]
fn a_message_becomes_a_body_a_path_and_a_query() {
    let book = r#"{"name":"a b/ü","title":"T","tags":["x","y&z"],"pages":"7"}"#;
    assert_eq!(
        called("{path: /b, body: '*'}", r#"{"name":"n","kind":"NOVEL"}"#),
        parts("POST", "/b", r#"{"name":"n","kind":"NOVEL"}"#)
    );
    assert_eq!(
        called("{method: GET, path: '/b/{name}'}", book),
        parts("GET", "/b/a%20b%2F%C3%BC?pages=7&tags=x&tags=y%26z&title=T", "")
    );
    assert_eq!(
        called("{method: PUT, path: '/b/{name}:put', body: '*', query: {p: pages}}", book),
        parts(
            "PUT",
            "/b/a%20b%2F%C3%BC:put?p=7",
            r#"{"pages":"7","tags":["x","y&z"],"title":"T"}"#
        )
    );
    assert_eq!(
        called("{path: '/b/{name=**}', body: tags}", book),
        parts("POST", "/b/a%20b/%C3%BC?pages=7&title=T", r#"["x","y&z"]"#)
    );
}

#[test]
fn a_template_is_filled_with_fields_of_their_own_type() {
    let http = "{path: /b, body: {id: '{name}', text: '{title}: {pages} {{s}}', tags: '{tags}', one: 1, of: ['{price}', '{sequel.title}']}}";
    let (_, _, body) = called(http, r#"{"name":"n","title":"T","tags":["x"],"price":1.5}"#);
    let expected = serde_json::json!({"id": "n", "text": "T: 0 {s}", "tags": ["x"], "one": 1, "of": [1.5, ""]});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).expect("JSON"), expected);
}

#[test]
fn no_value_climbs_out_of_its_place_in_the_path() {
    for name in ["", ".", ".."] {
        let message = serde_json::json!({"name": name}).to_string();
        let found = plain("{path: '/b/{name}', body: '*'}", &message);
        assert!(matches!(found, Err(Fault::Malformed(_))), "{name:?}: {found:?}");
    }
    for name in ["../x", "a/../b", "a//b", "/a", "a/"] {
        let message = serde_json::json!({"name": name}).to_string();
        let found = plain("{path: '/b/{name=**}', body: '*'}", &message);
        assert!(matches!(found, Err(Fault::Malformed(_))), "{name:?}: {found:?}");
    }
    assert_eq!(called("{path: '/b/{name}', body: '*'}", r#"{"name":"../x?y"}"#).1, "/b/..%2Fx%3Fy");
    let fixed = plain("{path: '/{name=shelves/*}', body: '*'}", r#"{"name":"books/1"}"#);
    assert!(matches!(fixed, Err(Fault::Malformed(_))), "{fixed:?}");
}

#[test]
fn empty_fields_get_their_defaults_and_others_keep_theirs() {
    let transcoder = transcoder(
        "method: library.Books/Plain\nhttp: {path: /b, body: '*'}\ndefaults: {name: World, sequel.pages: 2, kind: NOVEL}",
    );
    let (_, _, body) = call(&transcoder, "Plain", "{}").expect("a request");
    assert_eq!(body, r#"{"name":"World","sequel":{"pages":"2"},"kind":"NOVEL"}"#);
    let (_, _, body) =
        call(&transcoder, "Plain", r#"{"name":"A","sequel":{"pages":1}}"#).expect("a request");
    assert_eq!(body, r#"{"name":"A","sequel":{"pages":"1"},"kind":"NOVEL"}"#);
}

#[test]
fn proto_and_json_say_the_same() {
    let transcoder = transcoder("method: library.Books/Plain\nhttp: {path: /b, body: '*'}");
    let method = transcoder.method("/library.Books/Plain").expect("a method");
    let mut book = DynamicMessage::new(
        DESCRIPTORS.pool().get_message_by_name("library.Book").expect("a type"),
    );
    book.set_field_by_name("name", Value::String("n".to_owned()));
    book.set_field_by_name("pages", Value::I64(i64::MAX));
    let request =
        transcoder.to_http(method, Codec::Proto, &book.encode_to_vec()).expect("a request");
    let json = request.body.expect("a body");
    assert_eq!(&json[..], br#"{"name":"n","pages":"9223372036854775807"}"#);
    assert_eq!(answered(method, &json, Codec::Proto).expect("an answer"), book.encode_to_vec());
}

#[test]
fn an_answer_is_found_where_its_mapping_says() {
    let whole = transcoder("method: library.Books/Plain\nhttp: {path: /b, body: '*'}");
    let method = whole.method("/library.Books/Plain").expect("a method");
    let answer = |json: &str| answered(method, json.as_bytes(), Codec::Json);
    assert_eq!(answer(r#"{"title":"T","more":[{}]}"#), Ok(br#"{"title":"T"}"#.to_vec()));
    assert_eq!(answer(""), Ok(b"{}".to_vec()));
    for json in ["{", "[]", r#"{"title":7}"#, r#"{"title":"T"}x"#, "<html>"] {
        assert!(matches!(answer(json), Err(Fault::Malformed(_))), "{json}");
    }
    let mapped = transcoder(
        "method: library.Books/Plain\nhttp: {path: /b, body: '*'}\nresponse: {title: data.0.text, sequel: '*', pages: none}",
    );
    let method = mapped.method("/library.Books/Plain").expect("a method");
    assert_eq!(answered(method, b"", Codec::Json), Ok(b"{}".to_vec()));
    let answer = answered(method, br#"{"data":[{"text":"T"}],"name":"s"}"#, Codec::Json);
    assert_eq!(answer, Ok(br#"{"title":"T","sequel":{"name":"s"}}"#.to_vec()));
}

#[test]
fn unknown_fields_are_ignored_unless_they_shall_be_refused() {
    let of = |unknown: &str| {
        transcoder(&format!(
            "method: library.Books/Plain\nhttp: {{path: /b, body: '*'}}\n{unknown}"
        ))
    };
    let message = r#"{"title":"T","nothing":{"deep":[1]}}"#;
    assert!(call(&of(""), "Plain", message).is_ok());
    let refused = call(&of("unknown_fields: refuse"), "Plain", message);
    assert!(matches!(refused, Err(Fault::Malformed(_))), "{refused:?}");
}

#[test]
fn size_and_depth_are_bounded() {
    let small =
        transcoder("method: library.Books/Plain\nhttp: {path: /b, body: '*'}\nmax_message: 100B");
    let long = |length| serde_json::json!({"title": "x".repeat(length)}).to_string();
    assert!(call(&small, "Plain", &long(80)).is_ok());
    assert_eq!(call(&small, "Plain", &long(100)), Err(Fault::TooLarge));
    // Some bytes take more room in JSON.
    let method = small.method("/library.Books/Plain").expect("a method");
    let cover = [&[0x42, 90][..], &[7; 90]].concat();
    assert_eq!(small.to_http(method, Codec::Proto, &cover), Err(Fault::TooLarge));
    assert_eq!(answered(method, long(100).as_bytes(), Codec::Json), Err(Fault::TooLarge));
    let deep = transcoder("method: library.Books/Plain\nhttp: {path: /b, body: '*'}");
    let json = [r#"{"sequel":"#.repeat(5000), "{}".to_owned(), "}".repeat(5000)].concat();
    assert!(matches!(call(&deep, "Plain", &json), Err(Fault::Malformed(_))));
    let mut proto = Vec::new();
    for _ in 0..5000 {
        let mut outer = vec![0x2a];
        prost_reflect::prost::encoding::encode_varint(proto.len() as u64, &mut outer);
        outer.append(&mut proto);
        proto = outer;
    }
    let method = deep.method("/library.Books/Plain").expect("a method");
    assert!(matches!(deep.to_http(method, Codec::Proto, &proto), Err(Fault::Malformed(_))));
}

#[test]
fn annotations_give_the_same_both_ways() {
    let out = transcoder("service: library.Books");
    let get =
        call(&out, "Get", r#"{"name":"shelves/1/books/a b","pageSize":3,"like":{"title":"T"}}"#);
    assert_eq!(get, Ok(parts("GET", "/v1/shelves/1/books/a%20b?like.title=T&pageSize=3", "")));
    assert_eq!(call(&out, "Read", "{}"), Err(Fault::NoMethod));
    assert_eq!(call(&out, "Plain", "{}"), Err(Fault::NoMethod));
    let into = transcoder("service: library.Books\nupstream: grpc");
    let read = |method: &str, path: &str, query: Option<&str>, body: &str| {
        let method = method.parse().expect("a method");
        let (method, request) = into.to_rpc(&method, path, query, body.as_bytes())?;
        let message = wire::unwrap(Framing::Grpc, &request.body, IDENTITY, 0)?;
        let message =
            DynamicMessage::decode(method.input.clone(), &message[..]).expect("a message");
        Ok((request.path, serde_json::to_string(&message).expect("JSON")))
    };
    let ok = |path: &str, json: &str| Ok::<_, Fault>((path.to_owned(), json.to_owned()));
    assert_eq!(
        read(
            "GET",
            "/v1/shelves/1/books/a%20b",
            Some("page_size=3&like.title=T+U&tags=x&tags=y&brief=true&z=1"),
            ""
        ),
        ok(
            "/library.Books/Get",
            r#"{"name":"shelves/1/books/a b","pageSize":3,"brief":true,"tags":["x","y"],"like":{"title":"T U"}}"#
        )
    );
    assert_eq!(
        read("GET", "/v1/books/x%2Fy", None, ""),
        ok("/library.Books/Get", r#"{"name":"x/y"}"#)
    );
    assert_eq!(
        read("POST", "/v1/shelves/2/books", Some("requestId=r"), r#"{"title":"T"}"#),
        ok(
            "/library.Books/Create",
            r#"{"shelf":"shelves/2","book":{"title":"T"},"requestId":"r"}"#
        )
    );
    // The value in the path takes precedence.
    assert_eq!(
        read("PUT", "/v1/books/n", None, r#"{"name":"other","pages":"3","kind":"NOVEL"}"#),
        ok("/library.Books/Replace", r#"{"name":"n","pages":"3","kind":"NOVEL"}"#)
    );
    assert_eq!(
        read("DELETE", "/v1/books/n", None, ""),
        Err(Fault::WrongMethod("GET, PUT".to_owned()))
    );
    assert_eq!(read("GET", "/v1/nothing/n", None, ""), Err(Fault::NoMethod));
    for (method, path, query, body) in [
        ("GET", "/v1/books/n", Some("page_size=many"), ""),
        ("GET", "/v1/books/n", Some("like.pages=x"), ""),
        ("PUT", "/v1/books/n", None, "{"),
        ("PUT", "/v1/books/n", None, "[]"),
        ("POST", "/v1/shelves/2/books", None, "7"),
    ] {
        let found = read(method, path, query, body);
        assert!(
            matches!(found, Err(Fault::Malformed(_))),
            "{method} {path} {query:?} {body}: {found:?}"
        );
    }
}

#[test]
fn a_reply_is_json_or_the_field_its_binding_names() {
    let into = transcoder("service: library.Books\nupstream: grpc");
    let mut book = DynamicMessage::new(
        DESCRIPTORS.pool().get_message_by_name("library.Book").expect("a type"),
    );
    book.set_field_by_name("title", Value::String("T".to_owned()));
    let framed = wire::wrap(Framing::Grpc, book.encode_to_vec());
    let reply = |path: &str| {
        let (method, request) = into.to_rpc(&http::Method::GET, path, None, b"").expect("bound");
        method.reply(request.binding, &framed, IDENTITY)
    };
    assert_eq!(reply("/v1/shelves/1/books/2"), Ok(br#"{"title":"T"}"#.to_vec()));
    assert_eq!(reply("/v1/books/2"), Ok(br#""T""#.to_vec()));
}

#[test]
fn what_does_not_fit_the_descriptors_is_named_with_its_key() {
    for (yaml, key, message) in [
        ("method: library.Book/Get", "method", "no service is named `library.Book`"),
        ("method: library.Books/Got", "method", "has no method `Got`"),
        ("method: library.Books/Read", "method", "is a stream"),
        ("method: library.Books/Plain", "method", "is not annotated"),
        ("method: Plain", "method", "package.Service/Method"),
        ("service: library.Nothing", "service", "no service"),
        ("service: library.Books\nhttp: {path: /}", "http", "one `method`"),
        ("upstream: http", "", "a `method` or a `service`"),
        ("service: library.Books\nmax_message: 0B", "max_message", "must have a bound"),
        ("method: library.Books/Plain\nhttp: {path: 'b'}", "http.path", "slash"),
        ("method: library.Books/Plain\nhttp: {path: '/{nam}'}", "http.path", "has no field `nam`"),
        ("method: library.Books/Plain\nhttp: {path: '/{tags}'}", "http.path", "not one value"),
        ("method: library.Books/Plain\nhttp: {path: '/a{name}'}", "http.path", "is no segment"),
        ("method: library.Books/Plain\nhttp: {path: '/**/a'}", "http.path", "last segment"),
        ("method: library.Books/Plain\nhttp: {path: '/*'}", "http.path", "cannot be filled in"),
        ("method: library.Books/Plain\nhttp: {path: /, method: 'A B'}", "http.method", "no method"),
        (
            "method: library.Books/Plain\nhttp: {path: /b, body: titel}",
            "http.body",
            "no field `titel`",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b, body: {a: '{name.x}'}}",
            "http.body",
            "has no fields",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b, body: {a: '{name'}}",
            "http.body",
            "a brace stands alone",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b, method: GET, body: '*'}",
            "http.body",
            "no body",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b, query: {q: x}}",
            "http.query.q",
            "no field `x`",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b}\nresponse: {x: y}",
            "response.x",
            "no field `x`",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b}\ndefaults: {x: y}",
            "defaults.x",
            "no field `x`",
        ),
        (
            "method: library.Books/Plain\nhttp: {path: /b}\ndefaults: {pages: many}",
            "defaults.pages",
            "cannot be \"many\"",
        ),
        (
            "method: library.Books/Plain\nupstream: grpc\nhttp: {path: /b, body: {}}",
            "http.body",
            "template",
        ),
        ("service: library.Books\nupstream: grpc\nresponse: {title: t}", "response", "speaks gRPC"),
    ] {
        let mistake = compile(yaml).err().expect(yaml);
        assert_eq!(mistake.key.join("."), key, "{yaml}: {}", mistake.message);
        assert!(mistake.message.contains(message), "{yaml}: {}", mistake.message);
    }
    for bytes in [&b""[..], b"syntax", &[0x0a, 0x00]] {
        assert!(Descriptors::parse(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn frames_that_are_broken_are_known_by_what_is_wrong() {
    let unwrap = |body: &[u8], encoding| {
        wire::unwrap(Framing::Grpc, body, encoding, 1000).map(Cow::into_owned)
    };
    for encoding in [IDENTITY, GZIP, Encoding::Unknown] {
        assert_eq!(unwrap(&[0, 0, 0, 0, 1, 7], encoding), Ok(vec![7]));
    }
    assert_eq!(unwrap(&[1, 0, 0, 0, 1, 7], Encoding::Unknown), Err(Fault::Compressed));
    assert_eq!(unwrap(&[1, 0, 0, 0, 1, 7], IDENTITY), Err(Fault::UnannouncedCompression));
    assert!(matches!(unwrap(&[1, 0, 0, 0, 1, 7], GZIP), Err(Fault::Malformed(_))));
    for body in
        [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 0, 7], &[2, 0, 0, 0, 1, 7]]
    {
        assert!(matches!(unwrap(body, GZIP), Err(Fault::Malformed(_))), "{body:?}");
    }
    let bare = wire::unwrap(Framing::Bare, b"{}", Encoding::Unknown, 1000);
    assert_eq!(bare, Err(Fault::Compressed));
    let in_pieces = [STANDARD.encode([0, 0, 0, 0]), STANDARD.encode([1, 7])].concat();
    assert_eq!(
        wire::unwrap(Framing::GrpcWebText, in_pieces.as_bytes(), IDENTITY, 0).as_deref(),
        Ok(&[7][..])
    );
    assert!(wire::unwrap(Framing::GrpcWebText, b"AAAA*", IDENTITY, 0).is_err());
}

#[test]
fn a_connect_get_holds_its_message_in_the_query() {
    let read = |query: &str| Ok((wire::codec_of_query(query)?, wire::message_of_query(query)?));
    assert_eq!(read("encoding=json&message=a+b%2Bc"), Ok((Codec::Json, b"a b+c".to_vec())));
    assert_eq!(read("connect=v1&encoding=json&message=%7B%7D"), Ok((Codec::Json, b"{}".to_vec())));
    assert_eq!(read("encoding=proto&base64=1&message=CgE_"), Ok((Codec::Proto, vec![10, 1, 63])));
    assert_eq!(read("encoding=proto&base64=1&message=CgE%3D"), Ok((Codec::Proto, vec![10, 1])));
    for (compression, encoding) in
        [("gzip", GZIP), ("identity", IDENTITY), ("", IDENTITY), ("br", Encoding::Unknown)]
    {
        let query = format!("encoding=json&message=x&compression={compression}");
        assert_eq!(wire::encoding_of_query(&query), encoding);
        assert_eq!(read(&query), Ok((Codec::Json, b"x".to_vec())));
    }
    for query in [
        "",
        "encoding=json",
        "message=x",
        "encoding=xml&message=x",
        "encoding=json&base64=1&message=*",
    ] {
        assert!(matches!(read(query), Err(Fault::Malformed(_))), "{query}");
    }
}

proptest! {
    #[test]
    fn whatever_arrives_nothing_panics_or_grows_past_its_bound(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let transcoder = transcoder("service: library.Books\nmax_message: 200B");
        for name in ["Get", "Create", "Replace"] {
            let method = transcoder.method(&format!("/library.Books/{name}")).expect("a method");
            for codec in [Codec::Json, Codec::Proto] {
                if let Ok(request) = transcoder.to_http(method, codec, &bytes) {
                    prop_assert!(request.body.map_or(0, |body| body.len()) <= 200);
                    prop_assert!(request.target.parse::<http::Uri>().is_ok(), "{}", request.target);
                }
                if let Ok(answer) = answered(method, &bytes, codec) {
                    prop_assert!(answer.len() <= 200);
                }
            }
            let _ = method.reply(0, &bytes, GZIP);
        }
        for framing in [Framing::Bare, Framing::Grpc, Framing::GrpcWeb, Framing::GrpcWebText] {
            for encoding in [IDENTITY, GZIP] {
                let _ = wire::unwrap(framing, &bytes, encoding, 200);
                let _ = wire::inflated(framing, &bytes, encoding, 200);
            }
            let _ = wire::deflated(framing, &bytes, Coding::Gzip);
            let _ = wire::first(framing, &bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = wire::message_of_query(&text);
        let _ = transcoder.to_rpc(&http::Method::GET, &text, Some(&text), &bytes);
        let _ = transcoder.to_rpc(&http::Method::PUT, "/v1/books/n", Some(&text), &bytes);
    }

    #[test]
    fn a_message_comes_back_as_it_went(name in "\\PC{1,40}", title in "\\PC{0,40}", pages in any::<i64>(), price in any::<f64>(), cover in prop::collection::vec(any::<u8>(), 0..40)) {
        let into = transcoder("service: library.Books\nupstream: grpc");
        let out = transcoder("service: library.Books");
        let mut book = DynamicMessage::new(DESCRIPTORS.pool().get_message_by_name("library.Book").expect("a type"));
        book.set_field_by_name("name", Value::String(name.clone()));
        book.set_field_by_name("title", Value::String(title));
        book.set_field_by_name("pages", Value::I64(pages));
        book.set_field_by_name("price", Value::F64(price));
        book.set_field_by_name("cover", Value::Bytes(cover.into()));
        let method = out.method("/library.Books/Replace").expect("a method");
        let Ok(request) = out.to_http(method, Codec::Proto, &book.encode_to_vec()) else {
            // Only a value that would change the path.
            prop_assert!(name == "." || name == "..");
            return Ok(());
        };
        let body = request.body.expect("a body");
        let (_, call) = into.to_rpc(&request.method, &request.target, None, &body).expect("bound");
        let message = wire::unwrap(Framing::Grpc, &call.body, IDENTITY, 0).expect("one message");
        let back = DynamicMessage::decode(method.input.clone(), &message[..]).expect("a message");
        if !price.is_nan() {
            prop_assert_eq!(back.encode_to_vec(), book.encode_to_vec());
        }
        let body_length = body.len();
        for framing in [Framing::Grpc, Framing::GrpcWebText] {
            // Without the trailers at the end of a gRPC-Web response.
            let wrapped = match framing {
                Framing::GrpcWebText => STANDARD.encode(wire::wrap(Framing::Grpc, body.to_vec())).into_bytes(),
                framing => wire::wrap(framing, body.to_vec()),
            };
            let unwrap = |body: &[u8]| wire::unwrap(framing, body, GZIP, body_length).map(Cow::into_owned);
            prop_assert_eq!(unwrap(&wrapped), Ok(body.to_vec()));
            if let Some(deflated) = wire::deflated(framing, &wrapped, Coding::Gzip) {
                prop_assert_eq!(unwrap(&deflated), Ok(body.to_vec()));
                let inflated = wire::inflated(framing, &deflated, GZIP, usize::MAX);
                prop_assert_eq!(inflated, Ok(wrapped));
            }
        }
    }
}
