//! Broken answers and broken connections over real HTTP (`durability.md` section 5): what surely did
//! not arrive, and what may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use songflight::provider::failure::{Arrived, Class, Failure};
use songflight::provider::http::{BODY_BYTES_MAX, Timeouts};
use songflight::provider::suno::{Dialect, Suno};
use songflight::provider::{News, Order, Provider, Submitted, TaskKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::conformance::REPLY_TO;
use crate::suno::{adapter, order};
use crate::wire::{Reply, Server};

const QUICK: Timeouts = Timeouts {
    connect: Duration::from_millis(300),
    submit: Duration::from_millis(300),
    ask: Duration::from_millis(300),
};

const ACCEPTED: &str = r#"{"code":200,"msg":"success","data":{"taskId":"t1"}}"#;

fn a_song() -> Order {
    Order { prompt: Some("a calm folk song".into()), ..order(TaskKind::Generate) }
}

async fn submit(suno: &Suno) -> Result<Submitted, Failure> {
    suno.submit(&a_song(), REPLY_TO).await
}

/// The failures of a submission and of a poll that get this reply.
async fn failures(reply: Reply) -> (Failure, Failure) {
    let server = Server::start(reply);
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    let submitted = submit(&suno).await.expect_err("a failure");
    let polled = suno.poll(&a_song(), "t1").await.expect_err("a failure");
    assert_eq!(server.asked().len(), 2, "nothing is sent twice");
    assert_eq!(polled.arrived, Arrived::No, "a question costs nothing");
    (submitted, polled)
}

#[actix_web::test]
async fn a_submission_brings_its_task_id() {
    let server = Server::start(Reply::new(200, ACCEPTED));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    assert_eq!(submit(&suno).await, Ok(Submitted::Task(String::from("t1").into())));
    // Accepted, so far nothing more: a poll has nothing to show.
    assert_eq!(suno.poll(&a_song(), "t1").await, Ok(News::Working));
}

#[actix_web::test]
async fn an_error_in_an_http_200_was_surely_not_taken() {
    let body = r#"{"code":429,"msg":"The current credits are insufficient. Please top up.","data":null}"#;
    let (submitted, _) = failures(Reply::new(200, body)).await;
    assert_eq!(submitted.class, Class::InsufficientProviderCredits);
    assert_eq!(submitted.arrived, Arrived::No);

    let (submitted, _) = failures(Reply::new(200, r#"{"code":500,"msg":"Server exception"}"#)).await;
    assert_eq!((submitted.class, submitted.arrived), (Class::ProviderError, Arrived::No));
}

#[actix_web::test]
async fn a_code_that_is_mirrored_in_the_http_status_counts_as_code() {
    let body = r#"{"code":430,"msg":"Your call frequency is too high.","data":null}"#;
    let (submitted, _) = failures(Reply::new(430, body)).await;
    assert_eq!((submitted.class, submitted.arrived), (Class::RateLimited, Arrived::No));
}

#[actix_web::test]
async fn a_bare_5xx_may_have_been_taken() {
    for status in [500, 502, 503, 504] {
        let (submitted, polled) = failures(Reply::new(status, "<html>Bad gateway</html>")).await;
        assert_eq!((submitted.class, submitted.arrived), (Class::ProviderError, Arrived::Maybe));
        assert_eq!(submitted.code, Some(status.to_string()));
        assert_eq!(polled.class, Class::ProviderError);
    }
}

/// The gateway's own words do not tell how far it came before it broke.
#[actix_web::test]
async fn a_5xx_with_the_gateways_own_words_may_have_been_taken_too() {
    let (submitted, _) = failures(Reply::new(500, r#"{"code":500,"msg":"Server exception"}"#)).await;
    assert_eq!((submitted.class, submitted.arrived), (Class::ProviderError, Arrived::Maybe));

    let (submitted, _) = failures(Reply::new(503, r#"{"code":402,"msg":"Credits insufficient"}"#)).await;
    assert_eq!(submitted.class, Class::InsufficientProviderCredits);
    assert_eq!(submitted.arrived, Arrived::No, "a reason for which nothing was started");
}

#[actix_web::test]
async fn a_wait_that_the_provider_names_is_kept() {
    for reply in [Reply::new(429, "slow down"), Reply::new(200, r#"{"code":429,"msg":"slow down"}"#)] {
        let (submitted, polled) = failures(reply.header("Retry-After", "17")).await;
        assert_eq!((submitted.class, submitted.arrived), (Class::RateLimited, Arrived::No));
        assert_eq!(submitted.retry_after, Some(Duration::from_secs(17)));
        assert_eq!(polled.retry_after, Some(Duration::from_secs(17)));
    }
}

#[actix_web::test]
async fn a_refused_key_calls_the_operator() {
    for status in [401, 403, 404] {
        let (submitted, _) = failures(Reply::new(status, "")).await;
        assert!(submitted.operator, "{status}");
        assert_eq!((submitted.class, submitted.arrived), (Class::ProviderError, Arrived::No));
    }
}

#[actix_web::test]
async fn a_success_that_cannot_be_read_may_have_been_taken() {
    for body in ["", "<html>ok</html>", "{\"code\":200", "[1", "\"ok\""] {
        let (submitted, _) = failures(Reply::new(200, body)).await;
        assert_eq!((submitted.class, submitted.arrived), (Class::ProviderError, Arrived::Maybe), "{body}");
    }
}

#[actix_web::test]
async fn a_success_without_task_id_may_have_been_taken() {
    for body in [r#"{"code":200,"msg":"success","data":null}"#, r#"{"code":200,"data":{"taskId":""}}"#, "{}"]
    {
        let server = Server::start(Reply::new(200, body));
        let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
        let failure = submit(&suno).await.expect_err("no task id");
        assert_eq!(failure.arrived, Arrived::Maybe, "{body}");
    }
}

#[actix_web::test]
async fn redirects_are_not_followed() {
    let other = Server::start(Reply::new(200, ACCEPTED));
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::new(status, "").header("Location", format!("{}/api/v1/generate", other.url));
        let (submitted, polled) = failures(reply).await;
        assert!(submitted.operator && polled.operator);
        assert_eq!(submitted.arrived, Arrived::No);
    }
    assert!(other.asked().is_empty());
}

/// A good answer, made this long.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = ACCEPTED.as_bytes().to_vec();
    body.resize(bytes, b' ');
    body
}

#[actix_web::test]
async fn a_body_over_the_limit_is_not_read_to_its_end() {
    let (submitted, polled) = failures(Reply::new(200, padded(BODY_BYTES_MAX + 1))).await;
    assert_eq!((submitted.class, submitted.arrived), (Class::ProviderError, Arrived::Maybe));
    assert_eq!(polled.class, Class::ProviderError);
}

#[actix_web::test]
async fn a_body_of_exactly_the_limit_is_read() {
    let server = Server::start(Reply::new(200, padded(BODY_BYTES_MAX)));
    let suno = adapter(&server.url, Dialect::Sunoapi, Timeouts::default());
    assert_eq!(submit(&suno).await, Ok(Submitted::Task(String::from("t1").into())));
}

#[actix_web::test]
async fn a_refused_connection_surely_did_not_arrive() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine");
    let url = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let suno = adapter(&url, Dialect::Sunoapi, QUICK);
    let failure = submit(&suno).await.expect_err("nobody listens");
    assert_eq!((failure.class, failure.arrived), (Class::Network, Arrived::No));
    assert!(!failure.operator);
}

#[actix_web::test]
async fn a_name_that_does_not_resolve_surely_did_not_arrive() {
    // RFC 6761: never resolves.
    let suno = adapter("http://gateway.invalid", Dialect::Sunoapi, Timeouts::default());
    let failure = submit(&suno).await.expect_err("no such name");
    assert_eq!((failure.class, failure.arrived), (Class::Network, Arrived::No));
}

/// Does one thing to every connection and counts them.
async fn every_connection(act: impl AsyncFn(TcpStream) + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    actix_web::rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            act(stream).await;
        }
    });
    (url, count)
}

/// The head of a request and as much of the body as came with it.
async fn request(stream: &mut TcpStream) {
    let mut buffer = [0; 8192];
    let read = stream.read(&mut buffer).await.expect("a request");
    assert!(read > 0, "a request");
}

async fn ambiguous(act: impl AsyncFn(TcpStream) + 'static) {
    let (url, count) = every_connection(act).await;
    let suno = adapter(&url, Dialect::Sunoapi, QUICK);
    let failure = submit(&suno).await.expect_err("no answer");
    assert_eq!((failure.class, failure.arrived), (Class::Network, Arrived::Maybe), "{failure:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1, "sent once");
    let failure = suno.poll(&a_song(), "t1").await.expect_err("no answer");
    assert_eq!((failure.class, failure.arrived), (Class::Network, Arrived::No));
}

#[actix_web::test]
async fn a_time_out_after_connecting_may_have_arrived() {
    let held = std::cell::RefCell::new(Vec::new());
    ambiguous(async move |stream| held.borrow_mut().push(stream)).await;
}

#[actix_web::test]
async fn a_reset_without_answer_may_have_arrived() {
    ambiguous(async |mut stream| {
        request(&mut stream).await;
        // Closing with nothing to linger for sends a reset.
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
    })
    .await;
}

#[actix_web::test]
async fn a_close_without_answer_may_have_arrived() {
    ambiguous(async |mut stream| {
        request(&mut stream).await;
    })
    .await;
}

#[actix_web::test]
async fn an_answer_that_breaks_off_may_have_arrived() {
    ambiguous(async |mut stream| {
        request(&mut stream).await;
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"code\":200";
        stream.write_all(half).await.expect("a reader");
    })
    .await;
}

#[actix_web::test]
async fn an_answer_that_trickles_ends_with_the_time_out() {
    let held = std::cell::RefCell::new(Vec::new());
    ambiguous(async move |mut stream| {
        request(&mut stream).await;
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{";
        stream.write_all(start).await.expect("a reader");
        held.borrow_mut().push(stream);
    })
    .await;
}

/// Answers so many requests on a connection, reads one more, and closes.
async fn answers(times: usize, stream: &mut TcpStream) {
    for _ in 0..times {
        request(stream).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ACCEPTED}", ACCEPTED.len());
        stream.write_all(head.as_bytes()).await.expect("a reader");
    }
}

#[actix_web::test]
async fn submissions_share_a_fresh_connection() {
    let (url, count) = every_connection(async |mut stream| answers(3, &mut stream).await).await;
    let suno = adapter(&url, Dialect::Sunoapi, QUICK);
    for _ in 0..3 {
        assert!(submit(&suno).await.is_ok());
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[actix_web::test]
async fn what_was_written_to_a_shared_connection_that_breaks_is_not_sent_again() {
    let (url, count) = every_connection(async |mut stream| {
        answers(1, &mut stream).await;
        request(&mut stream).await;
    })
    .await;
    let suno = adapter(&url, Dialect::Sunoapi, QUICK);
    assert!(submit(&suno).await.is_ok());
    let failure = submit(&suno).await.expect_err("no answer");
    assert_eq!((failure.class, failure.arrived), (Class::Network, Arrived::Maybe), "{failure:?}");
    // Whatever came next would come on another connection, and be seen before this.
    assert!(submit(&suno).await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 2, "sent once");
}

#[actix_web::test]
async fn where_each_connection_is_closed_after_its_answer_nothing_is_sent_twice() {
    let (url, count) = every_connection(async |mut stream| answers(1, &mut stream).await).await;
    let suno = adapter(&url, Dialect::Sunoapi, QUICK);
    for sent in 1..=20 {
        let answer = submit(&suno).await;
        // Closed at the very moment at which it was written to: then nobody knows.
        assert!(answer.is_ok() || answer.is_err_and(|failure| failure.arrived == Arrived::Maybe));
        assert!(count.load(Ordering::SeqCst) <= sent);
    }
}
