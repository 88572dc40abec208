//! Tokens signed by others were made once with OpenSSL, so that no private key is kept here. They
//! expire in 2100.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::*;

const NOON: Time = Time::from_millis(1_766_318_400_000);
const HOUR: Duration = Duration::from_secs(3600);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const ES256: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjLTEifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwicGxhbiI6InBy\
     byJ9.hBIlKmEh9ctMBJ1kn4pi3vtKwmHGpfcKBuCpPRkoldokIYa711iubUf_nM9nyq0DYjQVVdjOiqq0OvIK-YeWOg";
const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwicGxhbiI6InB\
     ybyJ9.DQDTHEWFmScA7kVHPCdsiuzzH2QwUbjClPRYZmgxFogXtMxheW6Z0LI9fn3plcIqQIcuLl-X8QGRCb6fvu-3lqXcN\
     Q6ALn-VDHWpOZ2xz4bqAsljVGOBo7OTtvwUyd8a1kOysTMsGffNYe6SL5aVR2AkfJ_PEKGe3GKIdPYMtVBTKx8Lk9005sdT\
     Id_Ata8bVnXL6bRwuXMY5bbxnaYou1CQX1y45OA_bj6cHwtMpi1nmgUoQBI83m0DULjX31wKr4Ym0CLrnQ-JdqM_YMStzAL\
     0FIhcLjPidi6Ro4Suq6BHvikGIFtZel5TheRETpfPsS1ebpFEdNGolPBuwoa9Aw";
const ES256_UNKNOWN_KEY: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImdvbmUifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwicGxhbiI6InBy\
     byJ9.EN-0Vmx96PZvsO-_7fdhCFZ0uN9pFBC7mJ2Q5ZNyLdtpke6ECh9BtpioK47g-5HrX0DZBDu7TOrBiG9UsVeQiw";
const EC_X: &str = "vgB3xUHKAJfh7VfrPNc4rG9KxT63u-YIBUpTL80vpBk";
const EC_Y: &str = "lrFs1NFYlTevOm5mi-bZ5T8FUf75gUhLjlo4VVCGDNI";
const RSA_N: &str = "lYQ3zsP_LAzdrdQK9E6Mv-KR--Txx3GsUalQ5m0HZMU5-IPRJk_B5uy-1cemjwc_ZqeERdB7az9DTmVpD6nkaAoRwPLOZmx\
     VGjmqr1vi1jnKhh-xYeWtZ7yPFcQEdwi3HmrOS1MQWyVenGz3dlmi8yLgbTd00tbDgk_IbElX2onGpmRPNR7F6Bg9FC-EOj\
     2ZGQGpIVH9ZuzsjcM0ZVhHTEKKgt4_g559zUBy7d5Hi40SQH5kv0IpvFW5CzCR6PH2D8qYSV7EITL5MubIcr55K6iDTJmUI\
     Y_aW9GjH4n6vYrgjkL_dPPc04e71H7oNiH2xbo--6nsA_RM6UwQi3PaFw";

fn alice() -> UserId {
    UserId::trusted("alice")
}

fn auth(change: impl FnOnce(&mut config::Auth)) -> Auth {
    let mut config = config::Auth::default();
    change(&mut config);
    let _ = rustls::crypto::ring::default_provider().install_default();
    Auth::new(&config, &SECRET.into(), reqwest::Client::new())
}

/// A token with any header and claims, signed with our key.
fn signed(header: &str, claims: &str) -> String {
    use hmac::{Hmac, Mac};
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    hmac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac.finalize().into_bytes()))
}

const HS256: &str = r#"{"alg":"HS256"}"#;

#[actix_web::test]
async fn what_was_issued_is_read_back() {
    let auth = auth(|_| {});
    let token = auth.issue(&alice(), Some("pro"), Role::Service, HOUR, NOON);
    let identity = auth.verify(&token, NOON).await.expect("an identity");
    let expires = NOON + HOUR;
    assert_eq!(identity, Identity { user: alice(), plan: Some("pro".into()), role: Role::Service, expires });
}

#[actix_web::test]
async fn a_token_ends_at_its_second_without_leeway() {
    let auth = auth(|_| {});
    let token = auth.issue(&alice(), None, Role::Authenticated, HOUR, NOON);
    assert!(auth.verify(&token, NOON + HOUR - Duration::from_millis(1)).await.is_ok());
    assert_eq!(auth.verify(&token, NOON + HOUR).await, Err(AuthError::Expired));
    let later = signed(HS256, r#"{"sub":"alice","exp":4102444800,"nbf":4102444000}"#);
    assert_eq!(auth.verify(&later, NOON).await, Err(AuthError::NotYet));
}

#[actix_web::test]
async fn a_changed_token_is_refused() {
    let auth = auth(|_| {});
    let token = auth.issue(&alice(), None, Role::Authenticated, HOUR, NOON);
    let (_, signature) = token.rsplit_once('.').expect("three parts");
    let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"bob","exp":4102444800,"role":"service"}"#);
    let forged = format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode(HS256));
    assert_eq!(auth.verify(&forged, NOON).await, Err(AuthError::BadSignature));
    assert_eq!(auth.verify("", NOON).await, Err(AuthError::Missing));
    for text in ["x", "a.b", "a.b.c", "...", &"a".repeat(10_000), &token[..token.len() / 2]] {
        assert_eq!(auth.verify(text, NOON).await, Err(AuthError::Malformed), "{text}");
    }
}

#[actix_web::test]
async fn other_algorithms_are_refused_even_with_our_key() {
    let auth = auth(|config| config.jwks_url = Some("http://127.0.0.1:9/none".into()));
    let claims = r#"{"sub":"alice","exp":4102444800}"#;
    for alg in ["HS384", "HS512", "PS256", "ES384"] {
        let token = signed(&format!(r#"{{"alg":"{alg}"}}"#), claims);
        assert_eq!(auth.verify(&token, NOON).await, Err(AuthError::BadSignature), "{alg}");
    }
    for alg in ["none", "None", "NONE", ""] {
        let token = signed(&format!(r#"{{"alg":"{alg}"}}"#), claims);
        let unsigned = &token[..=token.rfind('.').expect("three parts")];
        assert_eq!(auth.verify(&token, NOON).await, Err(AuthError::Malformed), "{alg}");
        assert_eq!(auth.verify(unsigned, NOON).await, Err(AuthError::Malformed), "{alg}");
    }
    let critical = signed(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, claims);
    assert_eq!(auth.verify(&critical, NOON).await, Err(AuthError::Malformed));
}

#[actix_web::test]
async fn claims_must_be_there_and_make_sense() {
    let auth = auth(|_| {});
    for claims in [
        r#"{"sub":"alice"}"#,
        r#"{"exp":4102444800}"#,
        r#"{"sub":"","exp":4102444800}"#,
        r#"{"sub":"alice","exp":"tomorrow"}"#,
        r#"{"sub":"alice","exp":4102444800,"role":"anon"}"#,
        r#"{"sub":7,"exp":4102444800}"#,
    ] {
        assert_eq!(auth.verify(&signed(HS256, claims), NOON).await, Err(AuthError::Malformed), "{claims}");
    }
    let plain = signed(HS256, r#"{"sub":"alice","exp":4102444800.5,"aud":"any","more":[]}"#);
    let identity = auth.verify(&plain, NOON).await.expect("an identity");
    assert_eq!((identity.plan, identity.role), (None, Role::Authenticated));
}

#[actix_web::test]
async fn audience_and_issuer_are_checked_when_set() {
    let strict = auth(|config| {
        config.audience = Some("songs".into());
        config.issuer = Some("us".into());
    });
    let own = strict.issue(&alice(), None, Role::Authenticated, HOUR, NOON);
    assert!(strict.verify(&own, NOON).await.is_ok());
    let among = signed(HS256, r#"{"sub":"a","exp":4102444800,"aud":["x","songs"],"iss":"us"}"#);
    assert!(strict.verify(&among, NOON).await.is_ok());
    for (claims, error) in [
        (r#"{"sub":"a","exp":4102444800,"iss":"us"}"#, AuthError::WrongAudience),
        (r#"{"sub":"a","exp":4102444800,"aud":"x","iss":"us"}"#, AuthError::WrongAudience),
        (r#"{"sub":"a","exp":4102444800,"aud":"songs"}"#, AuthError::WrongIssuer),
        (r#"{"sub":"a","exp":4102444800,"aud":"songs","iss":"x"}"#, AuthError::WrongIssuer),
    ] {
        assert_eq!(strict.verify(&signed(HS256, claims), NOON).await, Err(error), "{claims}");
    }
}

#[actix_web::test]
async fn tokens_of_others_are_read_with_their_public_keys() {
    let (url, fetches) = key_server(&key_set());
    let auth = auth(|config| config.jwks_url = Some(url));
    for token in [ES256, RS256] {
        let identity = auth.verify(token, NOON).await.expect("an identity");
        assert_eq!((identity.user, identity.plan.as_deref()), (alice(), Some("pro")));
    }
    assert_eq!(auth.verify(&changed(ES256), NOON).await, Err(AuthError::BadSignature));
    assert_eq!(auth.verify(&changed(RS256), NOON).await, Err(AuthError::BadSignature));
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[actix_web::test]
async fn unknown_keys_do_not_cause_a_flood_of_fetches() {
    let (url, fetches) = key_server(&key_set());
    let auth = auth(|config| config.jwks_url = Some(url));
    for _ in 0..5 {
        assert_eq!(auth.verify(ES256_UNKNOWN_KEY, NOON).await, Err(AuthError::BadSignature));
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[actix_web::test]
async fn a_public_key_is_never_a_shared_secret() {
    let (url, _) = key_server(&key_set());
    let auth = auth(|config| config.jwks_url = Some(url));
    // The classic: HS256 with the public key's text as the secret.
    for secret in [RSA_N, EC_X] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("rsa-1".into());
        let claims = serde_json::json!({"sub": "alice", "exp": 4_102_444_800_u64});
        let token = jsonwebtoken::encode(&header, &claims, &key).expect("a token");
        assert_eq!(auth.verify(&token, NOON).await, Err(AuthError::BadSignature));
    }
}

#[actix_web::test]
async fn keys_that_cannot_be_fetched_are_not_the_clients_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    drop(listener);
    let away = auth(|config| config.jwks_url = Some(url));
    assert_eq!(away.verify(ES256, NOON).await, Err(AuthError::KeysUnavailable));
    assert_eq!(auth(|_| {}).verify(ES256, NOON).await, Err(AuthError::BadSignature));
}

/// The signer has changed its keys, and nobody can be asked for the new ones.
#[actix_web::test]
async fn a_key_that_is_not_known_while_keys_cannot_be_fetched_is_not_the_clients_fault_either() {
    let (url, requests) = held_key_server();
    let auth = Arc::new(auth(|config| config.jwks_url = Some(url)));
    let verifying = |token: &'static str| {
        let auth = auth.clone();
        actix_web::rt::spawn(async move { auth.verify(token, NOON).await })
    };
    let known = verifying(ES256);
    answer(told(&requests).await, &sized(&key_set()));
    assert!(known.await.expect("it ends").is_ok());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let unknown = verifying(ES256_UNKNOWN_KEY);
    answer(told(&requests).await, "HTTP/1.1 500 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(unknown.await.expect("it ends"), Err(AuthError::KeysUnavailable));
    assert!(auth.verify(ES256, NOON).await.is_ok(), "what is known goes on being used");
}

/// Or whoever names any key and hangs up keeps everybody's keys away.
#[actix_web::test]
async fn a_caller_who_hangs_up_takes_nobodys_keys_away() {
    let (url, requests) = held_key_server();
    let auth = Arc::new(auth(|config| config.jwks_url = Some(url)));
    let hasty = auth.clone();
    let hasty = actix_web::rt::spawn(async move { hasty.verify(ES256_UNKNOWN_KEY, NOON).await });
    let request = told(&requests).await;
    hasty.abort();
    assert!(hasty.await.is_err_and(|error| error.is_cancelled()));
    let patient = [ES256, RS256].map(|token| {
        let auth = auth.clone();
        actix_web::rt::spawn(async move { auth.verify(token, NOON).await })
    });
    answer(request, &sized(&key_set()));
    for patient in patient {
        assert_eq!(patient.await.expect("it ends").map(|identity| identity.user), Ok(alice()));
    }
    assert!(requests.try_recv().is_err(), "one fetch for all");
}

#[actix_web::test]
async fn a_set_of_keys_that_does_not_end_is_not_read_to_its_end() {
    let (url, requests) = held_key_server();
    let auth = Arc::new(auth(|config| config.jwks_url = Some(url)));
    let verifying = auth.clone();
    let verified = actix_web::rt::spawn(async move { verifying.verify(ES256, NOON).await });
    let mut stream = told(&requests).await;
    let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let written = std::thread::spawn(move || {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        (0..1_000).try_for_each(|_| stream.write_all(piece.as_bytes()))
    });
    assert_eq!(verified.await.expect("it ends"), Err(AuthError::KeysUnavailable));
    assert!(written.join().expect("it ends").is_err(), "the connection was closed long before");
}

/// They grow old by Tokio's clock, which a simulation moves on.
#[actix_web::test]
async fn keys_are_fetched_anew_when_they_are_old_and_unknown_ones_after_a_pause() {
    let (url, fetches) = key_server(&key_set());
    let auth = auth(|config| config.jwks_url = Some(url));
    for (seconds, token, known, fetched) in [
        (0, ES256, true, 1),
        (590, ES256, true, 1),
        (20, ES256, true, 2),
        (20, ES256_UNKNOWN_KEY, false, 2),
        (20, ES256_UNKNOWN_KEY, false, 3),
    ] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
        assert_eq!(auth.verify(token, NOON).await.is_ok(), known);
        assert_eq!(fetches.load(Ordering::SeqCst), fetched, "{seconds} s later");
    }
}

#[test]
fn the_header_is_read_as_http_says() {
    assert_eq!(bearer(Some("Bearer abc")), Ok("abc"));
    assert_eq!(bearer(Some("bearer  abc ")), Ok("abc"));
    assert_eq!(bearer(None), Err(AuthError::Missing));
    assert_eq!(bearer(Some("Basic abc")), Err(AuthError::Malformed));
    assert_eq!(bearer(Some("abc")), Err(AuthError::Malformed));
}

#[test]
fn the_development_key_is_made_once_even_by_many_at_a_time() {
    let dir = std::env::temp_dir().join(format!("songflight-key-{}", std::process::id()));
    let makers: Vec<_> = (0..8)
        .map(|_| {
            let dir = dir.clone();
            std::thread::spawn(move || development_key(&dir).expect("a key").expose_secret().to_owned())
        })
        .collect();
    let keys: Vec<String> = makers.into_iter().map(|maker| maker.join().expect("a key")).collect();
    assert!(keys.iter().all(|key| *key == keys[0] && key.len() >= KEY_BYTES));
    let mode = std::fs::metadata(dir.join(KEY_FILE)).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&dir).expect("the folder").count(), 1);
    std::fs::write(dir.join(KEY_FILE), "").expect("the file");
    assert!(development_key(&dir).is_err());
    std::fs::remove_dir_all(dir).expect("the folder");
}

/// The token with another signature of the same length.
fn changed(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{message}.{first}{}", &signature[1..])
}

fn key_set() -> String {
    serde_json::json!({"keys": [
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "of a future kind"},
        {"kty": "EC", "crv": "P-256", "kid": "ec-1", "x": EC_X, "y": EC_Y, "use": "sig"},
        {"kty": "RSA", "kid": "rsa-1", "n": RSA_N, "e": "AQAB", "alg": "RS256"},
    ]})
    .to_string()
}

fn sized(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn answer(mut request: TcpStream, text: &str) {
    request.write_all(text.as_bytes()).expect("somebody reads");
}

/// Hands over each request that was read, to be answered by the test.
fn held_key_server() -> (String, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            read_head(&stream);
            drop(tell.send(stream));
        }
    });
    (url, told)
}

/// The next of them, while everything else goes on.
async fn told(requests: &Receiver<TcpStream>) -> TcpStream {
    loop {
        match requests.try_recv() {
            Ok(request) => return request,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn read_head(stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
}

/// Serves one text over HTTP for as long as the tests run, and counts how often.
fn key_server(body: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let answer = sized(body);
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            read_head(&stream);
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, served)
}
