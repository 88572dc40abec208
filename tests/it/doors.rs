//! What stands beside the songs: the description of the interface, probes, figures, and which pages may
//! call.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::person::{answer, client, music};
use crate::harness::{Cable, Setup, eventually, shared, simulator, within};

#[tokio::test]
async fn every_route_that_is_described_is_there() {
    let server = shared().await;
    let mira = server.person("mira");
    let document = answer(client().get(format!("{}/openapi.json", server.url()))).await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let mut routes = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let real = path.replace("{id}", &songflight::id::fresh().to_string()).replace("{n}", "1");
        let real = real.replace("{provider}", "suno").replace("{task}", "x").replace("{token}", "x");
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = answer(mira.request(method.clone(), &real)).await;
            assert!(!answer.text.contains("Nothing is at"), "{method} {path}: {}", answer.text);
            assert!(answer.status < 500, "{method} {path}: {}", answer.text);
            routes += 1;
        }
    }
    assert!(routes >= 14, "{routes} routes");
}

#[tokio::test]
async fn every_reference_in_the_description_leads_somewhere() {
    let server = shared().await;
    let document = answer(client().get(format!("{}/openapi.json", server.url()))).await;
    let places = document.text.split("\"$ref\":\"#").skip(1);
    for place in places.map(|rest| &rest[..rest.find('"').unwrap()]) {
        assert!(document.body.pointer(place).is_some(), "{place}");
    }
}

#[tokio::test]
async fn a_song_has_exactly_the_fields_that_are_described() {
    let server = shared().await;
    let mira = server.person("mira");
    let song = mira.order(music("described")).await;
    let song = mira.until(&song, "ready").await;
    let document = answer(client().get(format!("{}/openapi.json", server.url()))).await.expect(200);
    let described = document["components"]["schemas"]["Song"]["properties"].as_object().unwrap();
    let mut missing: Vec<_> =
        song.as_object().unwrap().keys().filter(|name| !described.contains_key(*name)).collect();
    missing.extend(described.keys().filter(|name| song.get(name).is_none()));
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn pages_for_people_and_probes_answer_without_a_token() {
    let server = shared().await;
    let get = |path: &str| answer(client().get(format!("{}{path}", server.url())));
    for path in ["/docs", "/"] {
        let page = get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text.len() > 100, "{path}: {}", page.text);
    }
    assert!(get("/").await.text.contains("Bearer "), "a call to try, for whoever sits here");
    let forwarded = client().get(format!("{}/", server.url())).header("X-Forwarded-For", "192.0.2.1");
    assert!(!answer(forwarded).await.text.contains("Bearer "), "the token is nobody else's");
    assert_eq!(get("/healthz").await.expect(200)["status"], "ok");
    assert_eq!(get("/readyz").await.expect(200)["status"], "ready");
    for path in ["/healthz", "/readyz", "/metrics", "/docs", "/", "/openapi.json"] {
        let head = answer(client().head(format!("{}{path}", server.url()))).await;
        assert_eq!((head.status, head.text.len()), (200, 0), "HEAD {path}");
        let posted = answer(client().post(format!("{}{path}", server.url()))).await;
        assert_eq!(posted.problem(405), "method-not-allowed", "POST {path}");
        assert!(posted.header("allow").contains("GET"), "POST {path}: {}", posted.header("allow"));
    }
    let figures = get("/metrics").await;
    assert_eq!(figures.status, 200);
    for name in ["songflight_songs_created_total", "songflight_journal_commit_seconds"] {
        let person = server.person("mira");
        person.order(music("counted")).await;
        assert!(get("/metrics").await.text.contains(name), "{name}");
    }
    let nothing = get("/v2/songs").await;
    assert_eq!(nothing.problem(404), "not-found");
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_no_error_of_ours() {
    let server = shared().await;
    let address = server.url().trim_start_matches("http://").to_owned();
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\r\n\r\n"[..], b"GET / HTTP/1.1\r\nno header\r\n\r\n"] {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        stream.write_all(garbage).await.expect("sent");
        let mut answer = Vec::new();
        within("an answer", stream.read_to_end(&mut answer)).await.expect("an answer and an end");
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
    let said = server.program.said();
    assert!(!said.contains("actix_http"), "{said}");
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let simulator = simulator().await;
    let setup = Setup::new(&simulator.provider()).await;
    let cable = Cable::to(&setup.database).await;
    let server = setup.variable("DATABASE_URL", &cable.url).start().await;
    let ready = || answer(client().get(format!("{}/readyz", server.url())));
    assert_eq!(ready().await.status, 200);
    cable.go_dead();
    let away = ready().await;
    assert_eq!((away.status, &away.body["database"]), (503, &json!(false)));
    assert_eq!(away.header("retry-after"), "2");
    cable.mend();
    eventually("it to be ready again", || async {
        let now = ready().await;
        if now.status == 200 { Ok(()) } else { Err(now.text) }
    })
    .await;
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_call() {
    let server = shared().await;
    let mira = server.person("mira");
    let from = |origin: &str| {
        let request =
            client().request(Method::OPTIONS, format!("{}/v1/songs", mira.url)).header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        answer(request.header("Access-Control-Request-Headers", "authorization,idempotency-key,content-type"))
    };
    let good = from("https://app.example.com").await;
    assert_eq!((good.status, good.header("access-control-allow-origin")), (200, "https://app.example.com"));
    let headers = good.header("access-control-allow-headers").to_lowercase();
    for name in ["authorization", "idempotency-key", "content-type"] {
        assert!(headers.contains(name), "{headers}");
    }
    for origin in
        ["https://evil.example.com", "http://app.example.com", "https://app.example.com.evil.org", "null"]
    {
        assert_eq!(from(origin).await.header("access-control-allow-origin"), "", "{origin}");
    }
    let request = mira.request(Method::GET, "/v1/songs").header("Origin", "https://app.example.com");
    let listed = answer(request).await;
    let exposed = listed.header("access-control-expose-headers").to_lowercase();
    for name in ["songs-cursor", "etag", "location", "retry-after"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    // A problem can be read by the page as well.
    let refused =
        answer(client().get(format!("{}/v1/me", mira.url)).header("Origin", "https://app.example.com")).await;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, "https://app.example.com")
    );
}

#[tokio::test]
async fn sockets_open_for_allowed_origins_alone() {
    let server = shared().await;
    let open = async |origin: Option<&str>| {
        let mut request =
            format!("{}/v1/ws", server.url().replacen("http", "ws", 1)).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "songs.v1".parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        let (status, headers) = match connect_async(request).await {
            Ok((_, response)) => (response.status(), response.headers().clone()),
            Err(Error::Http(response)) => (response.status(), response.headers().clone()),
            Err(error) => panic!("{error}"),
        };
        assert!(headers.contains_key("x-request-id"), "{headers:?}");
        status.as_u16()
    };
    assert_eq!(open(None).await, 101);
    assert_eq!(open(Some("https://app.example.com")).await, 101);
    // Our own, whose configured url ends in a slash.
    assert_eq!(open(Some(server.url())).await, 101);
    assert_eq!(open(Some("https://evil.example.com")).await, 403);
    assert_eq!(open(Some("null")).await, 403);
    let plain = answer(client().get(format!("{}/v1/ws", server.url()))).await;
    assert_eq!(plain.status, 400);
}
