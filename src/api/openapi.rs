//! The API described: `/openapi.json` for machines, `/docs` for people. Both are made from the operations that
//! stand beside their handlers and from the shapes that check bodies; what is answered looks as `schemas` says.

mod schemas;

use std::fmt::Write as _;

use actix_web::{HttpResponse, ResponseError, web};
use serde_json::{Map, Value, json};

use super::problem::{Kind, Problem};
use super::shape::{self, FieldKind, Shape};
use super::{
    Keyed, Operation, access, admin, batch, dead_letters, further, guests, health, history, me, orders,
    resource, songs,
};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(
            resource("/openapi.json").route(web::get().to(|| async { HttpResponse::Ok().json(document()) })),
        )
        .service(resource("/docs").route(web::get().to(docs)))
        .service(resource("/problems/{name}").route(web::get().to(problem)));
}

const REALTIME: &[Operation] = &[
    Operation {
        path: "/v1/ws",
        summary: "Follow songs live",
        doc: "WebSocket, subprotocol `songs.v1`: subscribe to `me`, `song:<id>` or `share:<token>`; a snapshot \
              first, then every change in order, resumable by cursor.",
        answers: &[
            (101, "Switching to the WebSocket."),
            (400, "Not a WebSocket request."),
            (403, "Origin."),
            (503, "The service is being restarted; `Retry-After` says when to come again."),
        ],
        public: true,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/callbacks/{provider}/{task}/{token}",
        summary: "For providers",
        doc: "Where providers report. The url is unguessable; the raw body is durable before it is answered.",
        answers: &[
            (200, "Durable: news, a duplicate, or kept although it cannot be read."),
            (202, "Kept; there is no such task (any more)."),
            (401, "The url's token does not match."),
            (413, "Over 1 MiB."),
            (429, "Too many at once; nothing was kept, send it again."),
            (503, "Nothing was kept; send it again."),
        ],
        public: true,
        ..Operation::BASE
    },
];

/// Every operation there is, in reading order.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    [
        songs::OPERATIONS,
        batch::OPERATIONS,
        further::OPERATIONS,
        further::additions::OPERATIONS,
        history::OPERATIONS,
        me::OPERATIONS,
        guests::OPERATIONS,
        orders::OPERATIONS,
        REALTIME,
        admin::OPERATIONS,
        access::OPERATIONS,
        dead_letters::OPERATIONS,
        health::OPERATIONS,
    ]
    .into_iter()
    .flatten()
}

/// The document (OpenAPI 3.1).
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Songflight",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The backend for apps that make songs with AI.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": schemas::all(),
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let query = shape::schema(operation.query);
    for field in operation.query {
        let schema = &query["properties"][field.name];
        parameters
            .push(json!({"name": field.name, "in": "query", "description": field.doc, "schema": schema}));
    }
    if operation.keyed != Keyed::No {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": operation.keyed == Keyed::Required,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }));
    }
    let mut described = json!({
        "summary": operation.summary,
        "description": operation.doc,
        "parameters": parameters,
        "responses": responses(operation),
        "security": if operation.public { json!([]) } else { json!([{"bearer": []}]) },
    });
    if let Some(body) = operation.body {
        described["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": shape::schema(body)}}});
    }
    described
}

fn responses(operation: &Operation) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    let problem = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    for (status, doc) in operation.answers {
        let mut answer = json!({"description": doc});
        if *status >= 400 {
            answer["content"] = problem.clone();
        } else if let Some(name) = operation.returns.filter(|_| *status != 304) {
            let schema = json!({"$ref": format!("#/components/schemas/{name}")});
            answer["content"] = json!({"application/json": {"schema": schema}});
        }
        responses.insert(status.to_string(), answer);
    }
    let takes_a_body = matches!(operation.method, "post" | "put" | "patch");
    if takes_a_body {
        let most = "The body is over 256 KiB.";
        responses.entry("413").or_insert_with(|| json!({"description": most, "content": problem.clone()}));
    }
    if takes_a_body || !operation.query.is_empty() {
        let wrong =
            json!({"description": "Every wrong field, with a pointer to each.", "content": problem.clone()});
        responses.entry("400").or_insert(wrong);
    }
    if !operation.public && operation.method != "get" {
        let doc = "Far too many requests; `Retry-After` says when to come again.";
        responses.entry("429").or_insert_with(|| json!({"description": doc, "content": problem.clone()}));
    }
    if !operation.public {
        for (status, doc) in
            [(401, "No valid token."), (404, "No such thing, or not yours."), (503, "Try again.")]
        {
            responses
                .entry(status.to_string())
                .or_insert_with(|| json!({"description": doc, "content": problem.clone()}));
        }
    }
    Value::Object(responses)
}

async fn docs() -> HttpResponse {
    let mut text = String::from(
        "<h1>Songflight API</h1><p>JSON over HTTP; every call but the public ones takes \
         <code>Authorization: Bearer &lt;token&gt;</code>. Errors are \
         <a href=\"#problems\">problems</a> (RFC 9457). The same for machines: \
         <a href=\"/openapi.json\">/openapi.json</a>.</p><nav>",
    );
    for operation in operations() {
        let _ = write!(text, "<a href=\"#{}\">{}</a>", anchor(operation), html(operation.summary));
    }
    text.push_str("</nav>");
    for operation in operations() {
        section(&mut text, operation);
    }
    text.push_str("<section id=\"problems\"><h2>Problems</h2><table>");
    for kind in Kind::ALL {
        let (name, title, status) = kind.facts();
        let _ = write!(
            text,
            "<tr><td>{}</td><td><a href=\"/problems/{name}\"><code>{name}</code></a></td><td>{title}</td></tr>",
            status.as_u16()
        );
    }
    text.push_str("</table></section>");
    page("Songflight API", &text)
}

/// Where the `type` of a problem leads (RFC 9457 section 3.1.1).
async fn problem(name: web::Path<String>) -> HttpResponse {
    let known = Kind::ALL.into_iter().find(|kind| kind.facts().0 == name.as_str());
    let Some(kind) = known else { return Problem::not_found().error_response() };
    let (name, title, status) = kind.facts();
    page(
        title,
        &format!(
            "<h1>{title}</h1><p class=route><b>{}</b> <code>/problems/{name}</code></p><p>{}</p>\
             <p><a href=\"/docs#problems\">All problems</a></p>",
            status.as_u16(),
            marked(kind.advice())
        ),
    )
}

fn section(text: &mut String, operation: &Operation) {
    let _ = write!(
        text,
        "<section id=\"{}\"><h2>{}</h2><p class=route><b class={}>{}</b> <code>{}</code>{}</p><p>{}</p>",
        anchor(operation),
        html(operation.summary),
        operation.method,
        operation.method.to_uppercase(),
        html(operation.path),
        if operation.public { "" } else { " <i>token</i>" },
        marked(operation.doc),
    );
    fields(text, "Body", operation.body.unwrap_or_default());
    fields(text, "Query", operation.query);
    text.push_str("<h3>Answers</h3><table>");
    for (status, doc) in operation.answers {
        let _ = write!(text, "<tr><td>{status}</td><td>{}</td></tr>", marked(doc));
    }
    text.push_str("</table></section>");
}

fn fields(text: &mut String, title: &str, shape: Shape) {
    if shape.is_empty() {
        return;
    }
    let _ = write!(text, "<h3>{title}</h3><table>");
    rows(text, "", shape);
    text.push_str("</table>");
}

/// A row for each field; below a list of bodies, those of each of them.
fn rows(text: &mut String, within: &str, shape: Shape) {
    for field in shape {
        let required = if field.required { " <i>required</i>" } else { "" };
        let _ = write!(
            text,
            "<tr><td><code>{within}{}</code>{required}</td><td>{}</td><td>{}</td></tr>",
            field.name,
            html(&kind(field.kind)),
            marked(field.doc)
        );
        if let FieldKind::Bodies { each, .. } = field.kind {
            rows(text, &format!("{within}{}[].", field.name), each);
        }
    }
}

fn kind(kind: FieldKind) -> String {
    match kind {
        FieldKind::Text { max } => format!("text, at most {max} characters"),
        FieldKind::Word(words) => words.join(" | "),
        FieldKind::Texts { max, each_max } => format!("up to {max} texts of {each_max} characters"),
        FieldKind::Number { min, max } => format!("{min:?} to {max:?}"),
        FieldKind::Integer { min, max } => format!("whole number, {min} to {max}"),
        FieldKind::Flag => "true | false".to_owned(),
        FieldKind::Url => "https url".to_owned(),
        FieldKind::Bodies { max, .. } => format!("a list of 1 to {max} objects"),
        FieldKind::Object { bytes_max } => format!("object, at most {} KiB", bytes_max / 1024),
    }
}

fn anchor(operation: &Operation) -> String {
    let path: String =
        operation.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{}{path}", operation.method)
}

pub(super) fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Backticks become code.
fn marked(text: &str) -> String {
    let parts = html(text);
    let parts = parts.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

fn page(title: &str, body: &str) -> HttpResponse {
    page_with(title, body, "script-src 'none'")
}

/// A page that may do a little more than be read: what, says this part of its policy.
pub(super) fn page_with(title: &str, body: &str, rules: &str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "Content-Security-Policy",
            format!("default-src 'none'; style-src 'unsafe-inline'; {rules}"),
        ))
        .body(format!(
            "<!doctype html><html lang=en><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
             <style>{STYLE}</style><main>{body}</main></html>"
        ))
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5d6b7c;--line:#dde3ea;--paper:#fff;--mark:#f3f6f9;--hot:#0b6bcb}\
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa8b8;--line:#2b3542;--paper:#12171d;--mark:#1a212a;--hot:#6cb6ff}}\
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}\
main{max-width:52rem;margin:0 auto;padding:2.5rem 1.25rem 5rem}h1{font-size:2rem;margin:0 0 .5rem}\
h2{font-size:1.25rem;margin:0 0 .4rem}h3{font-size:.8rem;text-transform:uppercase;letter-spacing:.06em;color:var(--soft);margin:1.2rem 0 .3rem}\
section{border-top:1px solid var(--line);margin-top:2rem;padding-top:1.5rem}a{color:var(--hot)}\
nav{display:flex;flex-wrap:wrap;gap:.35rem .9rem;margin-top:1rem}code,pre{font:.9em ui-monospace,monospace}\
code{background:var(--mark);padding:.1em .3em;border-radius:.25em}pre{background:var(--mark);padding:1rem;border-radius:.5rem;overflow:auto}\
.call{white-space:pre-wrap;overflow-wrap:anywhere}button{font:inherit;padding:.3rem .9rem;cursor:pointer}\
table{border-collapse:collapse;width:100%}td{border-top:1px solid var(--line);padding:.4rem .8rem .4rem 0;vertical-align:top}\
tr:first-child td{border-top:0}td:first-child{white-space:nowrap}i{color:var(--soft);font-size:.85em}\
.route b{display:inline-block;min-width:3.6rem;font:600 .85em ui-monospace,monospace;color:var(--hot)}.delete{color:#c2410c!important}\
.post,.patch{color:#15803d!important}@media(max-width:34rem){td{display:block;border:0;padding:.1rem 0}td:first-child{border-top:1px solid var(--line);padding-top:.5rem}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_stands_in_the_document_once() {
        let document = document();
        let mut seen = std::collections::HashSet::new();
        for operation in operations() {
            assert!(seen.insert((operation.method, operation.path)), "{} twice", operation.path);
            assert!(document["paths"][operation.path][operation.method].is_object());
            let answers =
                operation.returns.iter().map(|name| (*name, &document["components"]["schemas"][*name]));
            answers.for_each(|(name, schema)| assert!(schema.is_object(), "{name} of {}", operation.path));
        }
    }

    #[test]
    fn whatever_makes_a_song_takes_a_key_and_says_what_is_wrong_and_when_there_is_too_much() {
        let document = document();
        for path in [
            "/v1/songs",
            "/v1/songs/batch",
            "/v1/songs/{id}/extend",
            "/v1/songs/{id}/replace-section",
            "/v1/songs/{id}/cover",
            "/v1/songs/merge",
            "/v1/orders",
        ] {
            let described = &document["paths"][path]["post"];
            let parameters = described["parameters"].as_array().expect("a list");
            assert!(parameters.iter().any(|one| one["name"] == "Idempotency-Key"), "{path}");
            for status in ["400", "429"] {
                assert!(described["responses"][status].is_object(), "{path}: {status}");
            }
        }
        for operation in operations().filter(|one| one.body.is_some() || !one.query.is_empty()) {
            let described = &document["paths"][operation.path][operation.method];
            assert!(described["responses"]["400"].is_object(), "{}", operation.path);
        }
    }

    #[test]
    fn the_page_shows_what_each_object_of_a_list_holds() {
        let mut text = String::new();
        for operation in orders::OPERATIONS {
            section(&mut text, operation);
        }
        for field in ["songs[].prompt", "songs[].variations[].modifier", "selections[].song_id"] {
            assert!(text.contains(&format!("<code>{field}</code>")), "{field}: {text}");
        }
    }

    #[actix_web::test]
    async fn the_type_of_every_problem_leads_to_a_page() {
        for kind in Kind::ALL {
            let (name, title, _) = kind.facts();
            let page = problem(name.to_owned().into()).await;
            assert_eq!(page.status(), 200, "{name}");
            let body = actix_web::body::to_bytes(page.into_body()).await.expect("a page");
            assert!(String::from_utf8_lossy(&body).contains(title), "{name}");
        }
        assert_eq!(problem("none".to_owned().into()).await.status(), 404);
    }

    #[test]
    fn the_schema_of_a_body_is_the_shape_that_checks_it() {
        let schema =
            &document()["paths"]["/v1/songs"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["required"], json!(["mode"]));
        assert_eq!(schema["properties"]["prompt"]["maxLength"], json!(3000));
        assert_eq!(schema["properties"].as_object().map(Map::len), Some(super::super::wishes::CREATE.len()));
    }
}
