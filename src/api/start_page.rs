//! The page at `/`, for whoever opens the address in a browser: that it runs, and a first song to try.
//!
//! The call to try carries a valid token. It is shown to whoever sits at this machine, and to nobody else.

use std::net::IpAddr;

use actix_web::http::header::{self, HeaderName};
use actix_web::http::uri::Authority;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use super::openapi::{html, page_with};
use super::{Api, resource};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes.service(resource("/").route(web::get().to(welcome)));
}

async fn welcome(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    let hint = api.hint.as_deref();
    let body = match hint {
        Some(call) if is_from_here(&request) => first_song(call),
        Some(_) => FROM_ELSEWHERE.to_owned(),
        None => String::new(),
    };
    let rules = format!("script-src 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(COPY)));
    page_with("Songflight", &format!("{RUNS}{body}"), &rules)
}

const RUNS: &str = "<h1>Songflight</h1><p>It runs. <a href=\"/docs\">Read the API</a>, or take \
                    <a href=\"/openapi.json\">its OpenAPI document</a>.</p>";
const FROM_ELSEWHERE: &str = "<p>Opened on the machine where it runs, as <code>http://127.0.0.1</code>, this page shows a \
                              first call to try. <code>songflight token --user alice</code> makes a token there.</p>";
/// Browsers let a page copy on `https` and on this machine's own addresses, which is where it is shown.
const COPY: &str = "document.querySelector('button').onclick=e=>navigator.clipboard.writeText(\
                    document.querySelector('pre').textContent).then(()=>e.target.textContent='Copied')";

fn first_song(call: &str) -> String {
    format!(
        "<p>A first song, from a terminal; what else can be asked for stands in <a href=\"/docs\">/docs</a>.</p>\
         <pre class=call>{}</pre><p><button>Copy</button></p><script>{COPY}</script>",
        html(call)
    )
}

/// Whether somebody at this machine asks: from one of its own addresses, by one of its own names (a name that
/// somebody else gave out may lead here, too), and not by way of a proxy that runs here.
fn is_from_here(request: &HttpRequest) -> bool {
    const PROXIES: [&str; 3] = ["forwarded", "via", "x-real-ip"];
    let is_own = |ip: IpAddr| ip.to_canonical().is_loopback();
    let peer = request.peer_addr().is_some_and(|peer| is_own(peer.ip()));
    let host =
        request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_own)
    });
    let names = || request.headers().keys().map(HeaderName::as_str);
    peer && named && !names().any(|name| name.starts_with("x-forwarded") || PROXIES.contains(&name))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_token_is_shown_to_this_machine_alone() {
        let from = |peer: &str, host: &str| {
            let peer = peer.parse().expect("an address");
            TestRequest::default().peer_addr(peer).insert_header(("Host", host))
        };
        for (peer, host) in [
            ("127.0.0.1:50000", "127.0.0.1:8080"),
            ("127.0.0.1:50000", "localhost:8080"),
            ("127.0.0.1:50000", "LOCALHOST"),
            ("[::1]:50000", "[::1]:8080"),
            ("[::1]:50000", "[::1]"),
            ("[::ffff:127.0.0.1]:50000", "127.0.0.1:8080"),
        ] {
            assert!(is_from_here(&from(peer, host).to_http_request()), "{peer} {host}");
        }
        for (peer, host) in [
            ("192.0.2.1:50000", "127.0.0.1:8080"),
            ("192.0.2.1:50000", "localhost:8080"),
            ("127.0.0.1:50000", "songs.example"),
            ("127.0.0.1:50000", "localhost.example:8080"),
            ("127.0.0.1:50000", "192.0.2.1:8080"),
        ] {
            assert!(!is_from_here(&from(peer, host).to_http_request()), "{peer} {host}");
        }
        for header in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"] {
            let request = from("127.0.0.1:50000", "127.0.0.1:8080").insert_header((header, "192.0.2.1"));
            assert!(!is_from_here(&request.to_http_request()), "{header}");
        }
    }

    #[test]
    fn the_call_to_try_stands_whole_on_the_page() {
        let page = first_song("curl -H 'Authorization: Bearer a.b.c' -d '{\"a\":1}'");
        assert!(page.contains("Bearer a.b.c' -d '{&quot;a&quot;:1}'</pre>"), "{page}");
        assert!(page.contains("<button>") && page.contains("/docs"), "{page}");
    }
}
